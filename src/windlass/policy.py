"""Pure decisions: how an attempt ended, when to try again, what a lost job becomes. No time, no I/O, no state."""

import random
import traceback as tracebacks
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from windlass.errors import Cancel, DecodeError, Fail, Snooze
from windlass.model import Claim, Ending, Failure, Outcome
from windlass.values import visible

LOST_RUNS = 3
"""A job whose process died this often fails."""

LONGEST = 100 * 366 * 86_400.0
"""Seconds in a hundred years: the longest that a job is put off, whatever a backoff or a snooze says."""

BY_OPERATOR, BY_TASK = "cancelled by an operator", "cancelled by the task"
BY_CLASH = "another job has taken its unique key"
OWN_REASONS = frozenset({BY_OPERATOR, BY_TASK, BY_CLASH})
"""Reasons in which there is nothing of the task."""

MAX_TEXT = 64 * 1024
"""The most characters kept of an error's message, and of its traceback (its end, where the cause stands)."""

Backoff = float | Callable[[int], float] | None
Kinds = tuple[type[BaseException] | str, ...]

Hide = Callable[[str], str]
"""Takes out of a text what nobody shall see; `str` hides nothing."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a failed job runs again.

    `attempts` counts all tries, the first included. `backoff` is a number of seconds, or a function of the attempt
    that failed (from 1); by default attempt**4 + 15 s ± 10 %, about 20 days over 25 attempts. Only errors in `on`
    are retried, and none in `give_up_on`; a class may be given by its full name, as in "httpx.TimeoutException".
    """

    attempts: int = 25
    backoff: Backoff = None
    on: Kinds = (Exception,)
    give_up_on: Kinds = ()

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"Retry(attempts=…) takes a whole number from 1 on; {self.attempts!r} came")
        for name in ("on", "give_up_on"):
            kinds = getattr(self, name)
            object.__setattr__(self, name, kinds if isinstance(kinds, tuple) else (kinds,))

    def wants(self, error: BaseException, attempt: int) -> bool:
        """Whether a job whose try number `attempt` ended with `error` runs again."""
        if attempt >= self.attempts or is_one_of(error, self.give_up_on):
            return False
        return is_one_of(error, self.on) or isinstance(error, (SystemExit, KeyboardInterrupt))

    def delay(self, attempt: int) -> float:
        """Seconds until the try after number `attempt`. A broken backoff function falls back to the default."""
        if callable(self.backoff):
            try:
                return bounded(float(self.backoff(attempt)))
            except Exception:
                return default_backoff(attempt)
        return default_backoff(attempt) if self.backoff is None else bounded(float(self.backoff))


def is_one_of(error: BaseException, kinds: Kinds) -> bool:
    """Whether `error` is of one of these classes; a name stands for a class anywhere in the error's MRO."""
    return any(
        isinstance(error, kind) if isinstance(kind, type) else kind in map(class_name, type(error).__mro__)
        for kind in kinds
    )


def class_name(kind: type) -> str:
    """The full name of a class, as failures show it; without a module for a built-in one."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def bounded(delay: float) -> float:
    """Seconds from 0 to LONGEST; what is no number waits longest."""
    return max(0.0, delay) if delay <= LONGEST else LONGEST


def default_backoff(attempt: int) -> float:
    """attempt**4 + 15 s, ± 10 %: long waits for what stays broken, and no two jobs in step."""
    return (attempt**4 + 15) * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing


def outcome(claim: Claim, ending: Ending, **changes: object) -> Outcome:
    """The outcome of this claim; its counts are kept unless `changes` says otherwise."""
    base = Outcome(id=claim.id, fence=claim.fence, seq=claim.seq, ending=ending, attempt=claim.attempt)
    return msgspec.structs.replace(base, **changes) if changes else base


def succeeded(claim: Claim, result: bytes | None) -> Outcome:
    """The attempt returned."""
    return Outcome(
        id=claim.id,
        fence=claim.fence,
        seq=claim.seq,
        ending=Ending.SUCCEEDED,
        attempt=claim.attempt + 1,
        result=result,
    )


def raised(claim: Claim, error: BaseException, retry: Retry, hide: Hide = str) -> Outcome:
    """The attempt ended by an exception: a directive, or a failure that may be tried again."""
    if isinstance(error, Snooze):
        return outcome(claim, Ending.SNOOZED, delay=bounded(error.delay), reason=describe(error, hide).message)
    if isinstance(error, Cancel):
        return cancelled(claim, describe(error, hide).message or BY_TASK)
    attempt = claim.attempt + 1
    failure = describe(error, hide)
    if claim.lost and isinstance(error, MemoryError):
        return starved(claim, failure)
    if not isinstance(error, (Fail, DecodeError)) and retry.wants(error, attempt):
        return outcome(claim, Ending.RETRY, attempt=attempt, delay=retry.delay(attempt), failure=failure)
    return outcome(claim, Ending.FAILED, attempt=attempt, failure=failure)


def timed_out(claim: Claim, retry: Retry, timeout: float) -> Outcome:
    """The attempt was ended because its time was over; it counts as a `TimeoutError`."""
    return raised(claim, TimeoutError(f"the attempt took longer than its timeout of {timeout:g} s"), retry)


def lost(claim: Claim, cause: str) -> Outcome:
    """The process that ran this job, alone, died of `cause`. Counted apart from failures."""
    return lost_run(claim, Failure(type="ProcessLost", message=f"the process that ran this job died: {cause}"))


def starved(claim: Claim, failure: Failure) -> Outcome:
    """A suspect asked, alone, for more memory than there is: one more lost run. In company that ended its runner."""
    message = f"the job asked for more memory than it can have; it has ended its process before. {failure.message}"
    failure = msgspec.structs.replace(failure, message=message.strip())
    return lost_run(claim, failure)


def lost_run(claim: Claim, failure: Failure) -> Outcome:
    """One more lost run: again at once, or failed."""
    runs = claim.lost + 1
    if runs < LOST_RUNS:
        return outcome(claim, Ending.LOST, lost=runs, failure=failure)
    failure = msgspec.structs.replace(failure, message=f"{failure.message} (lost run {runs} of {LOST_RUNS})")
    return outcome(claim, Ending.FAILED, lost=runs, failure=failure)


def interrupted(claim: Claim) -> Outcome:
    """The attempt was ended because its worker stops: not charged, ready again."""
    return outcome(claim, Ending.INTERRUPTED, lost=claim.lost)


def cancelled(claim: Claim, reason: str) -> Outcome:
    """The attempt was ended because nobody wants it any more."""
    return outcome(claim, Ending.CANCELLED, reason=reason)


def describe(error: BaseException, hide: Hide = str) -> Failure:
    """An exception as text, whatever it does when asked for it. Secrets go before it is cut: half of one is one."""
    name = class_name(type(error))
    try:
        message = str(error)
    except BaseException as broken:
        message = f"(its __str__ raised {type(broken).__name__})"
    if isinstance(error, MemoryError):
        tracebacks.clear_frames(error.__traceback__)  # what fills the memory lives there; telling takes some too
    try:
        text = "".join(tracebacks.format_exception(error, chain=True, limit=50))
    except BaseException as broken:
        text = f"(its traceback could not be written: {type(broken).__name__})"
    message, text = hide(storable(message)), hide(storable(text))
    return Failure(type=storable(name), message=clip_head(message), traceback=clip_tail(text))


def storable(text: str) -> str:
    """`text` without what UTF-8 or a database cannot hold: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def first_line(text: str) -> str:
    """The first line of a text as a log may hold it."""
    return visible(text.partition("\n")[0][:1000])


def clip_head(text: str) -> str:
    """The first MAX_TEXT characters, and how many were cut."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT:,} more characters)"


def clip_tail(text: str) -> str:
    """The last MAX_TEXT characters, and how many were cut."""
    return text if len(text) <= MAX_TEXT else f"({len(text) - MAX_TEXT:,} characters before) …{text[-MAX_TEXT:]}"
