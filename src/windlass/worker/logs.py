"""Log lines on stderr, for processes that are ours. The root logger and the user's handlers are left alone."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from windlass.context import logger as own
from windlass.context import running
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


class Keeper(logging.Handler):
    """Gives what a job logs to its context. It stands at the root logger, beside what is there, and changes nothing:
    where nobody else listens, warnings still go to stderr."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.users = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep a record of a job; `current().log` keeps its own."""
        job = running()
        if job is not None and record.name != own.name:
            job.keep(record)
        if record.levelno >= logging.WARNING and self._is_alone(record.name) and logging.lastResort:
            logging.lastResort.handle(record)
        return True

    def _is_alone(self, name: str) -> bool:
        """Whether no other handler hears this logger."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True


KEEPER = Keeper()


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """Have jobs keep what they log, for the length of the block."""
    KEEPER.users += 1
    logging.getLogger().addHandler(KEEPER)  # which adds it once
    try:
        yield
    finally:
        KEEPER.users -= 1
        if not KEEPER.users:
            logging.getLogger().removeHandler(KEEPER)
