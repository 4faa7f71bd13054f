"""The options of a task and of one call: checked once, with messages that say what fits; and as data in a job's row."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from windlass import codec, values
from windlass.errors import CallError, ConfigError, DecodeError
from windlass.model import PRIORITIES
from windlass.policy import Kinds, Retry, class_name

Executor = Literal["auto", "async", "thread", "process"]
Lane = Literal["async", "thread", "process"]
Seconds = float | timedelta

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
MOST_KEY = 1 << 20
"""The most bytes of arguments that a unique key is made of."""

LONGEST = 100 * 366 * 86_400.0
"""Seconds in a hundred years: longer waits are mistakes in the unit."""


class Override(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A `Retry` as data: what is unset stays as the task has it. Error classes are kept by their full names, and
    matched along the MRO of what was raised."""

    attempts: int
    backoff: float | UnsetType | None = UNSET
    on: tuple[str, ...] | UnsetType = UNSET
    give_up_on: tuple[str, ...] | UnsetType = UNSET


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one call changes of its task, kept with the job. `timeout` None means none; unset, the task's. `secret`
    names the arguments that are not shown. `schedule` and `tick` say which schedule made the job, for which moment.
    `rhythm` is when that is due, for hooks. `priority` is what was asked for where the queue ages. `carrier` is what
    hooks gave it along."""

    retry: Override | None = None
    timeout: float | UnsetType | None = UNSET
    meta: dict[str, Any] = {}
    secret: tuple[str, ...] = ()
    schedule: str = ""
    tick: float | None = None
    rhythm: dict[str, Any] | None = None
    priority: int | None = None
    carrier: dict[str, str] = {}

    def asked(self, stored: int) -> int:
        """The priority that was asked for: where the queue ages, the store has another."""
        return stored if self.priority is None else self.priority

    @property
    def trace_id(self) -> str:
        """The id of its W3C trace context, 32 hex digits; empty if it carries none."""
        found = TRACE.fullmatch(self.carrier.get("traceparent", ""))
        return found[1] if found else ""

    @property
    def due_tick(self) -> datetime | None:
        """`tick` as a datetime in UTC."""
        return None if self.tick is None else datetime.fromtimestamp(self.tick, UTC)


_read = msgspec.json.Decoder(Options).decode
NONE = Options()


def store_options(options: Options, limit: int) -> bytes | None:
    """Options as a job keeps them; None if there are none. Raises `EncodeError` for a `meta` that cannot be stored."""
    if options == NONE:
        return None
    codec.encode_free(options.meta, "meta", limit)
    return values.to_bytes(options)


def read_options(data: bytes | None) -> Options:
    """The options kept with a job. Raises `DecodeError`."""
    if data is None:
        return NONE
    try:
        found = _read(data)
        if found.timeout is not UNSET:
            timeout(found.timeout)
        return found
    except Exception as error:
        raise DecodeError(f"the stored options of a job cannot be read: {error}. What came: {data[:200]!r}") from error


def with_carrier(stored: bytes | None, carrier: dict[str, str]) -> bytes:
    """Stored options of a job that carries this along. Raises `DecodeError`."""
    return values.to_bytes(msgspec.structs.replace(read_options(stored), carrier=carrier))


def as_override(given: Retry | int) -> Override:
    """What one call says of its retries. A number changes the attempts alone, a `Retry` replaces the task's.

    Raises `CallError` for a backoff function: code cannot travel with a job.
    """
    policy = retry(given)
    if not isinstance(given, Retry):
        return Override(attempts=policy.attempts)
    if callable(policy.backoff):
        raise CallError(
            "the retry of one call has to be data: backoff takes seconds or None there, a function came. "
            "Give the function to the task: @app.task(retry=Retry(backoff=…))"
        )
    return Override(
        attempts=policy.attempts,
        backoff=policy.backoff,
        on=class_names(policy.on),
        give_up_on=class_names(policy.give_up_on),
    )


def class_names(kinds: Kinds) -> tuple[str, ...]:
    """Error classes by their full names."""
    return tuple(kind if isinstance(kind, str) else class_name(kind) for kind in kinds)


def as_retry(override: Override, task: Retry) -> Retry:
    """How a job is retried whose call changed its task's policy so. Raises `DecodeError` for impossible numbers."""
    given = {name: value for name, value in msgspec.structs.asdict(override).items() if value is not UNSET}
    try:
        return dataclasses.replace(task, **given)
    except ValueError as error:
        raise DecodeError(f"the stored options of a job cannot be used: {error}") from error


# Checks: each returns the value as it is kept, or raises `ConfigError`


def name(what: str, value: object) -> str:
    """The name of a queue, task, tag or id."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise ConfigError(f"expected {what} of 1 to 128 letters, digits, '_', '.' or '-'; {short(value)} came")


def names(what: str, value: Iterable[str]) -> tuple[str, ...]:
    """Several names, each once, in order."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"expected a list of names for {what}; {short(value)} came. Put it in brackets: [{value!r}]")
    return tuple(dict.fromkeys(name(f"a name in {what}", one) for one in value))


def priority(value: object) -> int:
    """-100 to 100, higher first."""
    if type(value) is int and value in PRIORITIES:
        return value
    raise ConfigError(f"expected a whole number from -100 to 100 for priority (higher first); {short(value)} came")


def seconds(what: str, value: object, *, above_zero: bool = False) -> float:
    """A length of time: a number of seconds, or a timedelta."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    fits = isinstance(number, int | float) and not isinstance(number, bool)  # what is not finite is not in the range
    if fits and 0 <= number <= LONGEST and (number or not above_zero):  # type: ignore[operator]
        return float(number)  # type: ignore[arg-type]
    least = "more than 0" if above_zero else "0 or more"
    raise ConfigError(f"expected seconds ({least}) or a timedelta for {what}; {short(value)} came")


def timeout(value: object) -> float | None:
    """Seconds per attempt; None: no limit."""
    return None if value is None else seconds("timeout", value, above_zero=True)


def moment(what: str, value: object) -> float:
    """A point in time, as seconds since the epoch."""
    if not isinstance(value, datetime):
        hint = "; for a wait use delay=" if isinstance(value, int | float | timedelta) else ""
        raise ConfigError(f"expected a datetime with a time zone for {what}; {short(value)} came{hint}")
    if value.tzinfo is None:
        raise ConfigError(
            f"expected a datetime with a time zone for {what}; {value} came without one, so nobody knows which moment "
            "is meant. Use datetime.now(UTC), or .replace(tzinfo=ZoneInfo('Europe/Berlin'))"
        )
    return value.timestamp()


def start(
    *, delay: object = None, run_at: datetime | timedelta | None = None, run_after: datetime | timedelta | None = None
) -> dict[str, float | None]:
    """When a job is due, as the fields of a `NewJob` that say so; empty if nothing is given."""
    given = [(what, value) for what, value in (("run_at", run_at), ("run_after", run_after)) if value is not None]
    if len(given) + (delay is not None) > 1:
        raise ConfigError("expected one of delay, run_at and run_after; several came")
    for what, value in given:
        if isinstance(value, timedelta):
            return {"delay": seconds(what, value), "run_at": None}
        return {"delay": 0.0, "run_at": moment(what, value)}
    return {} if delay is None else {"delay": seconds("delay", delay), "run_at": None}


def retry(value: object) -> Retry:
    """When a failed job runs again; a whole number stands for that many attempts."""
    if isinstance(value, Retry):
        return value
    if type(value) is int and value > 0:
        return Retry(attempts=value)
    raise ConfigError(f"expected Retry(attempts=…) or a number of attempts for retry; {short(value)} came")


def unique(value: object) -> str:
    """What a unique key is made of."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a text for unique, such as 'order:42'; {short(value)} came")
    return value


def meta(value: object) -> dict[str, Any]:
    """Free data that travels with a job."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise ConfigError(f"expected a dict with texts as keys for meta; {short(value)} came")


def executor(value: object, *, coroutine: bool, task: str) -> Lane:
    """Where a task runs; "auto" is the event loop for coroutine functions and a thread for others."""
    if value == "auto":
        return "async" if coroutine else "thread"
    if value == "process":
        return "process"
    if value == "async" and coroutine:
        return "async"
    if value == "thread" and not coroutine:
        return "thread"
    if value in ("async", "thread"):
        kind, fits = ("a coroutine function", "async") if coroutine else ("a plain function", "thread")
        raise ConfigError(f"task {task} is {kind}: expected executor 'auto', {fits!r} or 'process'; {value!r} came")
    raise ConfigError(f"expected executor 'auto', 'async', 'thread' or 'process' for task {task}; {short(value)} came")


def short(value: object) -> str:
    """A value as messages show it."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}…"
