"""Log lines on stderr, for processes that are ours. The root logger and the user's handlers are left alone."""

import logging
import sys

from windlass.values import visible

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class Lines(logging.Formatter):
    """One line per record, the rest of it indented, so that no text forges one; a task's is followed by its job."""

    def format(self, record: logging.LogRecord) -> str:
        line = visible(super().format(record)).replace("\n", "\n    ")
        job = getattr(record, "job_id", None)
        return f"{line}  [job {job} {getattr(record, 'task', '')}]" if job and record.name == "windlass.job" else line


def set_up(level: int = logging.INFO) -> None:
    """Write the `windlass` loggers to stderr unless somebody configured them before."""
    logger = logging.getLogger("windlass")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Lines(FORMAT, "%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(level)
