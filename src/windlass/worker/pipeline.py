"""One attempt in small steps: decode the arguments, call the task, encode the result, say how it ended.

The same for every lane. Whatever user code does, an `Outcome` comes out: nothing here raises.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from windlass import policy
from windlass.context import Context, Takes, Transaction, enter
from windlass.errors import DecodeError, Directive
from windlass.hook import Hook, tell
from windlass.lazy import Lazy
from windlass.lines import Lines
from windlass.model import Claim, Ending, Failure, Outcome, Progress
from windlass.options import NONE, Options, read_options
from windlass.policy import Retry
from windlass.secret import scrub
from windlass.worker.completion import Transactions

logger = logging.getLogger("windlass.worker")

MAX_RESULT = 1024 * 1024
"""The most bytes of an encoded result, unless the app says otherwise."""

_ONCE = Retry(attempts=1)


class Shape(Protocol):
    """How a task's arguments and result are stored."""

    def decode_call(self, stored: bytes, /) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments of a call. Raises `DecodeError`."""

    def encode_result(self, value: Any, limit: int, /) -> bytes | None:
        """What is stored of a result, at most `limit` bytes; None for None. Raises `EncodeError`."""

    def secret_texts(self, stored: bytes, /) -> Sequence[str]:
        """The texts in a stored call that nobody shall see."""


class Runnable(Protocol):
    """What one attempt needs of its task."""

    @property
    def fn(self) -> Callable[..., Any]:
        """The user's function."""

    @property
    def shape(self) -> Shape:
        """Its arguments and result."""

    def options_for(self, claim: Claim, /) -> tuple[Retry, float | None]:
        """How this job is retried, and its timeout in seconds."""


class Stop(StrEnum):
    """Why somebody ends an attempt."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"


class Running(Context):
    """The context of an attempt that may be told to stop. Say so here before cancelling anything.

    `settled`: its own transaction has settled it so; `superseded`: it found out that the job is another's now;
    `cleared`: it is no suspect any more.
    """

    stop: Stop | None = None
    settled: Outcome | None = None
    superseded = False
    cleared = False
    over = True  # until the task itself begins: what hooks enqueue are no children
    shape: Shape
    limit: int
    said: Progress | None = None
    _lines: Lines | None = None
    _relayed = ""

    def __init__(
        self,
        claim: Claim,
        *,
        runner: str = "",
        state: Any = None,
        moved: Callable[[], None] = lambda: None,
        transactions: Transactions | None = None,
        gates: Takes | None = None,
    ) -> None:
        own = options_of(claim)
        super().__init__(claim, meta=own.meta, state=state, report=self._say, gates=gates)
        self._moved = moved
        self.schedule, self.tick = own.schedule, own.due_tick
        self.carrier, self.trace_id = own.carrier, own.trace_id
        self.claim, self.runner = claim, runner
        self._transactions = transactions

    def end(self, why: Stop) -> None:
        """Tell the task to stop, as far as it looks; the first reason stands."""
        if self.stop is None:
            self.stop = why
            self.cancelled = True

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return self.stop is Stop.TIMED_OUT

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        super().progress(done, total, self.scrub(str(note)) if note else "")

    def _say(self, progress: Progress) -> None:
        self.said = progress
        self._moved()

    def keep(self, record: logging.LogRecord) -> None:
        if not self.over:
            if self._lines is None:
                self._lines = Lines()
            self._lines.add(record, self.scrub)
            self._moved()

    @property
    def logged(self) -> str:
        """The newest lines that it logged."""
        return self._relayed if self._lines is None else str(self._lines)

    def relay(self, progress: Progress | None, lines: str) -> None:
        """What it said in another process."""
        self.said, self._relayed = progress, lines
        self._moved()

    def scrub(self, text: str) -> str:
        return scrub(text, self._secrets)

    @Lazy
    def _secrets(self) -> Sequence[str]:
        return self.shape.secret_texts(self.claim.args)

    def encode(self, result: Any) -> bytes | None:
        """A result as it is stored. Raises `EncodeError`."""
        return self.shape.encode_result(result, self.limit)

    def transaction(self, database: Any = None, *, result: Any = None) -> Transaction:
        if self._transactions is None:
            return super().transaction(database, result=result)
        return self._transactions.begin(self, database, result)


def options_of(claim: Claim) -> Options:
    """What came with a job; nothing where its options cannot be read, which its task will complain of."""
    try:
        return read_options(claim.options)
    except DecodeError:
        return NONE


async def perform(
    task: Runnable, claim: Claim, context: Running, hooks: Sequence[Hook] = (), limit: int = MAX_RESULT
) -> Outcome:
    """Run one attempt of a coroutine function in the running asyncio task."""
    enter(context)
    context.shape, context.limit = task.shape, limit
    try:
        args, kwargs = task.shape.decode_call(claim.args)
    except BaseException as error:
        return _raised(task, claim, context, error)
    if hooks:
        tell(hooks, "before", context)
    context.over = False
    try:
        value = await task.fn(*args, **kwargs)
    except BaseException as error:
        context.over, context.error = True, error if hooks else None
        outcome = _raised(task, claim, context, error)
    else:
        context.over = True
        outcome = _returned(task, claim, context, value)
    if hooks:
        tell(hooks, "after", context, outcome)
        context.error = None  # its frames lead back to it
    return outcome


def perform_blocking(
    task: Runnable, claim: Claim, context: Running, hooks: Sequence[Hook] = (), limit: int = MAX_RESULT
) -> Outcome:
    """Run one attempt of a plain function here and now. Give each call contextvars of its own."""
    enter(context)
    context.shape, context.limit = task.shape, limit
    try:
        args, kwargs = task.shape.decode_call(claim.args)
    except BaseException as error:
        return _raised(task, claim, context, error)
    if hooks:
        tell(hooks, "before", context)
    context.over = False
    try:
        value = task.fn(*args, **kwargs)
    except BaseException as error:
        context.over, context.error = True, error if hooks else None
        outcome = _raised(task, claim, context, error)
    else:
        context.over = True
        outcome = _returned(task, claim, context, value)
    if hooks:
        tell(hooks, "after", context, outcome)
        context.error = None  # its frames lead back to it
    return outcome


def stopped(
    claim: Claim,
    why: Stop,
    retry: Retry,
    timeout: float | None,
    error: BaseException | None = None,
    hide: policy.Hide = str,
) -> Outcome:
    """The outcome of an attempt that was told to stop and did; what it raised on its way out is kept with it."""
    if why is Stop.TIMED_OUT:
        return policy.timed_out(claim, retry, timeout or 0.0)
    if isinstance(error, Directive):
        return policy.raised(claim, error, retry, hide)
    cancelled = why is Stop.CANCELLED
    outcome = policy.cancelled(claim, policy.BY_OPERATOR) if cancelled else policy.interrupted(claim)
    if error is None or isinstance(error, asyncio.CancelledError):
        return outcome
    return msgspec.structs.replace(outcome, failure=policy.describe(error, hide))


def _returned(task: Runnable, claim: Claim, context: Running, value: Any) -> Outcome:
    """The task returned. That counts although it was told to stop: its effects have happened. Overtime does not."""
    if context.settled is not None:
        if value is not None and not _is_result(context, value):
            logger.warning(
                "job %s (%s) returned a value after its transaction; its result is that of transaction(result=…)",
                claim.id,
                claim.task,
            )
        return context.settled
    if context.stop is Stop.TIMED_OUT:
        return _raised(task, claim, context, asyncio.CancelledError())
    try:
        return policy.succeeded(claim, context.encode(value))
    except BaseException as error:
        # the work is done; doing it again would encode no better
        return policy.raised(claim, error, _ONCE, context.scrub)


def _is_result(context: Running, value: Any) -> bool:
    """Whether this value is the result that is stored."""
    try:
        return context.settled is not None and context.encode(value) == context.settled.result
    except BaseException:
        return False


def _raised(task: Runnable, claim: Claim, context: Running, error: BaseException) -> Outcome:
    if context.settled is not None:
        if context.stop is None:
            logger.warning(
                "job %s (%s) raised after its transaction had settled it; its success stands\n%s",
                claim.id,
                claim.task,
                policy.describe(error, context.scrub).traceback,
            )
        return context.settled
    if context.superseded:
        return policy.interrupted(claim)
    try:
        retry, timeout = task.options_for(claim)
    except BaseException:
        retry, timeout = Retry(), None
    try:
        if context.stop is not None:
            outcome = stopped(claim, context.stop, retry, timeout, error, context.scrub)
            return msgspec.structs.replace(outcome, lost=0) if context.cleared else outcome
        return policy.raised(claim, _meant(error), retry, context.scrub)
    except BaseException as broken:
        failure = Failure(
            type=type(error).__name__,
            message=f"(the error could not be looked at: that raised {type(broken).__name__})",
        )
        return policy.outcome(claim, Ending.FAILED, attempt=claim.attempt + 1, failure=failure)


def _meant(error: BaseException) -> BaseException:
    """The error that counts: a directive without the task group around it; a failure for a stray cancellation."""
    if isinstance(error, asyncio.CancelledError):
        stray = RuntimeError("asyncio.CancelledError came out of the task, though nobody had asked this job to stop")
        stray.__cause__ = error
        return stray
    inner = error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner if isinstance(inner, Directive) else error
