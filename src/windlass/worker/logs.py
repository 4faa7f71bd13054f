"""Log lines on stderr, for processes that are ours. The root logger and the user's handlers are left alone."""

import logging
import sys

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def set_up(level: int = logging.INFO) -> None:
    """Write the `windlass` loggers to stderr unless somebody configured them before."""
    logger = logging.getLogger("windlass")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(FORMAT, "%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(level)
