"""The options of a task and of one call: checked once, with messages that say what fits; and as data in a job's row."""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from windlass import codec, values
from windlass.errors import CallError, ConfigError, DecodeError
from windlass.model import PRIORITIES
from windlass.policy import Retry, class_name

Executor = Literal["auto", "async", "thread", "process"]
Lane = Literal["async", "thread", "process"]
Seconds = float | timedelta

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
LONGEST = 100 * 366 * 86_400.0
"""Seconds in a hundred years: longer waits are mistakes in the unit."""


class Override(Struct, frozen=True, kw_only=True):
    """A `Retry` as data: error classes by their full names, matched along the MRO of what was raised."""

    attempts: int
    backoff: float | None
    on: tuple[str, ...]
    give_up_on: tuple[str, ...]


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one call changes of its task, kept with the job. `timeout` None means none; unset, the task's."""

    retry: Override | None = None
    timeout: float | None | UnsetType = UNSET
    meta: dict[str, Any] = {}


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
        return _read(data)
    except Exception as error:
        raise DecodeError(f"the stored options of a job cannot be read: {error}. What came: {data[:200]!r}") from error


def as_override(retry: Retry) -> Override:
    """A `Retry` as data. Raises `CallError` for a backoff function: code cannot travel with a job."""
    if callable(retry.backoff):
        raise CallError(
            "the retry of one call has to be data: backoff takes seconds or None there, a function came. "
            "Give the function to the task: @app.task(retry=Retry(backoff=…))"
        )
    names = [
        tuple(kind if isinstance(kind, str) else class_name(kind) for kind in kinds)
        for kinds in (retry.on, retry.give_up_on)
    ]
    return Override(attempts=retry.attempts, backoff=retry.backoff, on=names[0], give_up_on=names[1])


def as_retry(override: Override) -> Retry:
    """The way back. Raises `DecodeError` for numbers that no `Retry` has."""
    try:
        return Retry(override.attempts, override.backoff, override.on, override.give_up_on)
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


def seconds(what: str, value: object, *, more_than_zero: bool = False) -> float:
    """A length of time: a number of seconds, or a timedelta."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    fits = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if fits and 0 <= number <= LONGEST and (number or not more_than_zero):  # type: ignore[operator]
        return float(number)  # type: ignore[arg-type]
    least = "more than 0" if more_than_zero else "0 or more"
    raise ConfigError(f"expected seconds ({least}) or a timedelta for {what}; {short(value)} came")


def timeout(value: object) -> float | None:
    """Seconds per attempt; None: no limit."""
    return None if value is None else seconds("timeout", value, more_than_zero=True)


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


def retry(value: object) -> Retry:
    """When a failed job runs again."""
    if isinstance(value, Retry):
        return value
    hint = f"Retry(attempts={value})" if type(value) is int else "Retry(attempts=5, backoff=60)"
    raise ConfigError(f"expected a Retry for retry, such as {hint}; {short(value)} came")


def unique(task: str, value: object) -> str:
    """A unique key as stores see it. Keys of different tasks never meet: the task's name is part of it."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a text for unique, such as 'order:42'; {short(value)} came")
    return hashlib.sha256(f"{task}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()


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


def when(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a datetime in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
