"""Log lines on stderr, for processes that are ours. The root logger and the user's handlers are left alone."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from windlass.context import logger as own
from windlass.context import running
from windlass.errors import ConfigError
from windlass.logs import JobFields
from windlass.values import visible

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

VARIABLE = "WINDLASS_LOG_FORMAT"
"""The environment's word on how lines look: console or json. Processes that are started from here read it too."""

FORMATS = ("console", "json")


class Lines(logging.Formatter):
    """One line per record, the rest of it indented, so that no text forges one; a task's is followed by its job."""

    def format(self, record: logging.LogRecord) -> str:
        line = visible(super().format(record)).replace("\n", "\n    ")
        job = getattr(record, "job_id", None)
        return f"{line}  [job {job} {getattr(record, 'task', '')}]" if job and record.name == "windlass.job" else line


def set_up(level: int = logging.INFO, form: str | None = None) -> None:
    """Write the `windlass` loggers to stderr unless somebody configured them before, in one of FORMATS.

    As JSON, so are `warnings`, and what Python itself writes of loggers that nobody configured. Raises `ConfigError` if
    the library for it is missing.
    """
    if form:
        os.environ[VARIABLE] = form
    handler = handler_of(json_lines() if is_json() else Lines(FORMAT, "%H:%M:%S"))
    if own_lines("windlass", handler) and is_json():
        logging.lastResort = handler_of(json_lines(), logging.WARNING)
        own_lines("py.warnings", handler)
        logging.captureWarnings(True)
    logger = logging.getLogger("windlass")
    if logger.level == logging.NOTSET:
        logger.setLevel(level)


def own_lines(name: str, handler: logging.Handler) -> bool:
    """Give a logger this handler and no other; whether it had none."""
    logger = logging.getLogger(name)
    if logger.handlers:
        return False
    logger.addHandler(handler)
    logger.propagate = False
    return True


def is_json() -> bool:
    """Whether lines are JSON in this process."""
    return os.environ.get(VARIABLE) == "json"


def json_lines() -> logging.Formatter:
    """What writes records as JSON. Raises `ConfigError` where what it needs is not installed."""
    try:
        from windlass.worker.jsonlines import JsonLines
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"logs as JSON need {error.name}, which is not installed: pip install 'windlass[json]'"
        ) from error
    return JsonLines()


def handler_of(formatter: logging.Formatter, level: int = logging.NOTSET) -> logging.Handler:
    """A handler that writes to stderr, with the fields of jobs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(formatter)
    handler.addFilter(JobFields())
    return handler


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
