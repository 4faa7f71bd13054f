"""What a task may know and say of the job it runs: `current()`."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextvars import ContextVar
from datetime import datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

from windlass import blocking, policy
from windlass.errors import ConfigError
from windlass.follow import parent_of
from windlass.lineage import Lineage
from windlass.model import Claim, Progress

logger = logging.getLogger("windlass.job")


class Transaction(Protocol):
    """What `current().transaction()` gives, for `with` and for `async with`."""

    result: Any
    """The job's result. What the task returns after the block is not stored any more."""

    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Takes(Protocol):
    """Gates, for tasks that take of them while they run."""

    async def atake(
        self, name: str, units: int = 1, *, key: object = None, timeout: float | timedelta | None = None
    ) -> None: ...
    async def aslow(self, name: str, seconds: float | timedelta, *, key: object = None) -> None: ...


class Slot(Protocol):
    """The place that a running job takes in its worker. Both may be called in any event loop; after each `leave`,
    also one that failed or was cancelled, comes a `take`."""

    async def leave(self, task: str) -> None:
        """Let another job have it, while this one waits for a job of that task. Raises `TooManyWaiting`."""

    async def take(self, task: str) -> None:
        """Wait for it, before going on: this wait for a job of that task is over."""


class Context:
    """The running job, as its own code sees it. Inert (`job` is None) when the function is called directly.

    `fence` grows with every attempt of this job: hand it to an outside system that shall refuse an older attempt.
    `state` is what `App(lifespan=…)` yielded in this process. `cancelled` turns true when the job shall stop.
    `schedule` is the name of the schedule that made the job, and `tick` the moment it is for, in UTC. `carrier` is what
    hooks gave the job along (`Hook.sending`), and `trace_id` the trace that it belongs to, in hex, if there is one.
    `runner` is the id of who runs it, as in `job.attempts`.
    `error` is what the task raised, while hooks hear `after`.
    """

    schedule: str = ""
    tick: datetime | None = None
    carrier: Mapping[str, str] = MappingProxyType({})
    trace_id: str = ""
    runner: str = ""
    error: BaseException | None = None
    slot: Slot | None = None
    over = False
    _lineage: Lineage | None = None

    def __init__(
        self,
        claim: Claim | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        state: Any = None,
        report: Callable[[Progress], None] | None = None,
        gates: Takes | None = None,
    ) -> None:
        self._gates = gates
        self.job = claim
        self.meta: Mapping[str, Any] = MappingProxyType(dict(meta or {}))
        self.state = state
        self.cancelled = False
        self._report = report

    @property
    def parent(self) -> str | None:
        """The id of the job that enqueued this one, or that it follows (`using(on_success=…)`): see `app.jobs.get`."""
        return parent_of(self.job.id) if self.job else None

    @property
    def lineage(self) -> Lineage | None:
        """The jobs that this run enqueues; None outside of a run."""
        if self._lineage is None and self.job is not None and not self.over:
            self._lineage = Lineage(self.job)
        return None if self.over else self._lineage

    @property
    def attempt(self) -> int:
        """The number of this try, from 1; only charged tries count."""
        return self.job.attempt + 1 if self.job else 1

    @property
    def fence(self) -> int:
        """A number that is higher in every later attempt of this job."""
        return self.job.fence if self.job else 0

    @property
    def log(self) -> "JobLog":
        """A logger whose records carry `job_id`, `task`, `queue`, `attempt`, `trace_id` and `runner`. What it logs
        from INFO on is kept with the job, whatever the levels of loggers are."""
        return JobLog(self)

    @property
    def fields(self) -> dict[str, Any]:
        """What names this attempt in a log; nothing outside of a job."""
        if self.job is None:
            return {}
        named = {"job_id": self.job.id, "task": self.job.task, "queue": self.job.queue, "attempt": self.attempt}
        more = {"trace_id": self.trace_id, "runner": self.runner}
        return {**named, **{name: value for name, value in more.items() if value}}

    def scrub(self, text: str) -> str:
        """A text without the secrets of this job."""
        return text

    def keep(self, record: logging.LogRecord) -> None:
        """Keep a line of the log with the job."""

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is; as often as you like, the newest within a second is stored."""
        if self._report is not None:
            self._report(
                Progress(
                    done=float(done), total=None if total is None else float(total), note=policy.storable(str(note))
                )
            )

    def take(
        self, gate: str, units: int = 1, *, key: object = None, timeout: float | timedelta | None = None
    ) -> Awaitable[None]:
        """Take starts of a gate with a rate, and wait until it allows them: `await current().take("stripe")`.

        In a plain function it waits itself, without `await`. See `app.gates.take`; outside of a job it does nothing.
        """
        return here(self._gates.atake(gate, units, key=key, timeout=timeout)) if self._gates else Done()

    def slow(self, gate: str, seconds: float | timedelta, *, key: object = None) -> Awaitable[None]:
        """Have nothing start through a gate with a rate for so many seconds: `await current().slow("stripe", 30)`.

        In a plain function without `await`. See `app.gates.slow`; outside of a job it does nothing.
        """
        return here(self._gates.aslow(gate, seconds, key=key)) if self._gates else Done()

    def transaction(self, database: Any = None, *, result: Any = None) -> Transaction:
        """Write to the database that the jobs are in, and succeed, in one commit: its effects happen exactly once.

        `with current().transaction() as connection:` gives a psycopg connection, or a `sqlite3` one; `async with` in
        coroutines. `transaction(Session)` gives a session of this SQLAlchemy sessionmaker, or a connection of an engine
        or a Django alias, which have to lead to the same database.

        When the block ends, the job is settled as succeeded with `result` (or what `.result` was set to in the block),
        and both are committed. An error in the block rolls back and goes its usual way. If the job was handed to
        somebody else meanwhile, all is rolled back. Raises `ConfigError` outside of a job, and on a store without SQL.
        """
        raise ConfigError(
            "expected a running job: the transaction settles it. In a direct call or a test there is none; run the "
            "task by `async with app.worker()`, or put the writing into a function that takes the connection"
        )


@contextlib.asynccontextmanager
async def waiting(task: str) -> AsyncIterator[None]:
    """Let another job have the slot of the running one while it waits for a job of that task."""
    slot = None if current().over else current().slot
    if slot is None:
        yield
        return
    try:
        await slot.leave(task)
        yield
    finally:
        await slot.take(task)


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """The logger of a running job."""

    def __init__(self, context: Context) -> None:
        super().__init__(logger, context.fields)
        self._context = context

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log as any logger does, and keep it."""
        if level >= logging.INFO:
            info = kwargs.get("exc_info")
            error = sys.exception() if info is True else info if isinstance(info, BaseException) else None
            found = None if error is None else (type(error), error, error.__traceback__)
            self._context.keep(logging.LogRecord(logger.name, level, "", 0, msg, args, found))
        super().log(level, msg, *args, **{**kwargs, "stacklevel": kwargs.get("stacklevel", 1) + 1})


class Done:
    """Awaits nothing."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def here(work: Coroutine[Any, Any, None]) -> Awaitable[None]:
    """Begin work where an event loop runs, else do it."""
    try:
        return asyncio.get_running_loop().create_task(work)
    except RuntimeError:
        blocking.run(work)
        return Done()


_current: ContextVar[Context | None] = ContextVar("windlass_current", default=None)


def current() -> Context:
    """The running job's context; an inert one outside of a job, so that tasks can be called directly."""
    return _current.get() or Context()


def running() -> Context | None:
    """The running job's context; None outside of a job."""
    return _current.get()


def enter(context: Context) -> None:
    """Make `context` the current one in this task, thread or process."""
    _current.set(context)
