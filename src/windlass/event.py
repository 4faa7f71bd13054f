"""PURE: which subscriptions an event reaches, and the jobs that it makes. The rules stand in docs/events.md."""

import contextlib
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from windlass import options, values
from windlass.call import Call, open_call, seal_call
from windlass.errors import ConfigError, DecodeError
from windlass.model import Mark
from windlass.vault import Vault

TOPIC = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
PATTERN = re.compile(r"([A-Za-z0-9_-]+|\*\*?)(\.([A-Za-z0-9_-]+|\*\*?))*")
LONGEST = 128
"""The most characters of a topic or a pattern."""

MOST = 64 * 1024
"""The most bytes of a filter."""

OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "prefix", "exists")

EVENTS = uuid.UUID("c1a5b3de-5a53-4f8e-8a0c-4d1c7a0b5f2e")
"""The namespace of the ids of jobs that events make."""

Where = Mapping[str, Any]
"""What a payload has to be: paths into it (`customer.country`, `lines.0.sku`), each with a value, a list of which it is
one, or operators: `{"total": {">=": 100}}`."""


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened. `payload` is JSON. `remember`: seconds for which it is known what it made."""

    id: str
    topic: str
    payload: bytes
    known: bool = False
    """Whether its id was given, so that it may have been published before."""

    remember: float = 0.0


class Subscription(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who wants which events. `call` is what is enqueued, without arguments; `parameter` takes the payload.

    `debounce` and `throttle` are seconds, per value at the path `key` of the payload; `most` bounds how long debouncing
    puts off.
    """

    name: str
    topic: str
    call: Call
    parameter: str | None = None
    where: dict[str, Any] = {}
    key: str = ""
    debounce: float | None = None
    most: float | None = None
    throttle: float | None = None


class Pending(Struct, frozen=True, kw_only=True):
    """A debounced event that waits for calm: the call that will be made, and when the first of its events came."""

    call: Call
    since: float


_read = msgspec.json.Decoder(list[Subscription]).decode
_read_pending = msgspec.json.Decoder(Pending).decode


def read(body: bytes) -> list[Subscription]:
    """Stored subscriptions. Raises `DecodeError`."""
    try:
        return _read(body)
    except Exception as error:
        raise DecodeError(f"the stored subscriptions cannot be read: {error}") from error


def read_pending(body: bytes) -> Pending:
    """A stored event that waits. Raises `DecodeError`."""
    try:
        return _read_pending(body)
    except Exception as error:
        raise DecodeError(f"the stored event cannot be read: {error}") from error


def sealed(subscription: Subscription, vault: Vault) -> Subscription:
    """A subscription as it is stored."""
    call = seal_call(subscription.name, subscription.call, vault)
    return msgspec.structs.replace(subscription, call=call)


# Who


def topic(value: object) -> str:
    """The topic of an event. Raises `ConfigError`."""
    if isinstance(value, str) and len(value) <= LONGEST and TOPIC.fullmatch(value):
        return value
    raise ConfigError(f"expected a topic of words with dots between, such as 'order.paid'; {options.short(value)} came")


def pattern(value: object) -> str:
    """The topics that a subscription wants. Raises `ConfigError`."""
    if isinstance(value, str) and len(value) <= LONGEST and PATTERN.fullmatch(value):
        return value
    raise ConfigError(
        "expected topics such as 'order.paid', 'order.*' (one word) or 'order.**' (any number of words); "
        f"{options.short(value)} came"
    )


def fits(pattern: str, topic: str) -> bool:
    """Whether a topic is one of a pattern's: `*` stands for one word, `**` for any number."""
    reached = {0}
    words = topic.split(".")
    for part in pattern.split("."):
        if part == "**":
            reached = set(range(min(reached, default=len(words) + 1), len(words) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(words) and part in ("*", words[at])}
    return len(words) in reached


def checked(where: object) -> dict[str, Any]:
    """A filter. Raises `ConfigError` for what is none."""
    if not isinstance(where, Mapping) or not all(isinstance(path, str) and path for path in where):
        raise ConfigError(
            f"expected where= as paths into the payload with what they have to be, {{'country': 'DE'}}; "
            f"{options.short(where)} came"
        )
    for path, wanted in where.items():
        if isinstance(wanted, Mapping) and (not wanted or wanted.keys() - set(OPERATORS)):
            raise ConfigError(
                f"expected operators out of {', '.join(OPERATORS)} for {path!r} in where=; {options.short(wanted)} came"
            )
    try:
        kept: dict[str, Any] = values.plain_value(values.plain_bytes(where))
    except Exception as error:
        raise ConfigError(f"expected where= of plain JSON values; {options.short(where)} came: {error}") from error
    if len(values.plain_bytes(kept)) > MOST:
        raise ConfigError(f"expected where= of at most {MOST:,} bytes of JSON; more came")
    return kept


def accepts(where: Where, payload: object) -> bool:
    """Whether a payload is as a filter wants it."""
    return all(is_as(wanted, *find(payload, path)) for path, wanted in where.items())


def find(payload: object, path: str) -> tuple[bool, Any]:
    """Whether there is something at a path of a payload, and what."""
    here: Any = payload
    for word in path.split("."):
        if isinstance(here, dict) and word in here:
            here = here[word]
        elif isinstance(here, list) and word.isdecimal() and int(word) < len(here):
            here = here[int(word)]
        else:
            return False, None
    return True, here


def is_as(wanted: Any, there: bool, value: Any) -> bool:
    """Whether what stands at a path is as wanted."""
    if isinstance(wanted, Mapping):
        return all(holds(operator, bound, there, value) for operator, bound in wanted.items())
    return there and any(equal(value, one) for one in (wanted if isinstance(wanted, list) else [wanted]))


def holds(operator: str, bound: Any, there: bool, value: Any) -> bool:
    """Whether one comparison is true. What cannot be compared, or is not there, is not."""
    if operator == "exists":
        return there == bool(bound)
    if operator == "!=":
        return not (there and equal(value, bound))
    if not there:
        return False
    if operator == "==":
        return equal(value, bound)
    if operator == "in":
        return isinstance(bound, list) and any(equal(value, one) for one in bound)
    if operator == "prefix":
        return isinstance(value, str) and isinstance(bound, str) and value.startswith(bound)
    if kind_of(value) != kind_of(bound) or kind_of(value) not in ("number", "text"):
        return False
    return bool({"<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound}.get(operator))


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; True is not 1."""
    return kind_of(one) == kind_of(other) and bool(one == other)


def kind_of(value: Any) -> str:
    """What JSON calls a value."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else type(value).__name__


# What


def job_id(event: str, subscription: str) -> str:
    """The id of the job that an event makes for a subscription."""
    return str(uuid.uuid5(EVENTS, f"{event}\n{subscription}"))


def call_with(subscription: Subscription, event: Event, vault: Vault) -> Call:
    """What a subscription enqueues for an event, not sealed. Raises `DecodeError`."""
    call = open_call(subscription.name, subscription.call, vault)
    own = options.read_options(call.options)
    meta = {**own.meta, "topic": event.topic, "event": event.id}
    name = subscription.parameter
    args = b"{}" if name is None else b'{"' + name.encode() + b'":' + event.payload + b"}"
    return msgspec.structs.replace(call, args=args, options=values.to_bytes(msgspec.structs.replace(own, meta=meta)))


def marks_of(subscription: Subscription, event: Event, payload: object, id: str) -> list[Mark]:
    """What keeps a repeated event, or one too many of its key, from making a job."""
    marks = [Mark(key=f"event:{id}", job=id, ttl=event.remember)] if event.remember else []
    if subscription.throttle is not None:
        marks.append(Mark(key=f"throttle:{key_id(subscription, payload)}", job=id, ttl=subscription.throttle))
    return marks


def key_id(subscription: Subscription, payload: object) -> str:
    """What stands for a subscription and the value of its key in a payload."""
    _, value = find(payload, subscription.key) if subscription.key else (False, None)
    return str(uuid.uuid5(EVENTS, f"{subscription.name}\n{values.plain_bytes(value).decode()}"))


def put_off(subscription: Subscription, call: Call, old: bytes | None, now: float) -> tuple[bytes, float]:
    """A debounced event as it is stored, and when it is due: when it was calm for so long, or the first has waited for
    long enough. `call` is sealed, `old` what waits so far."""
    since = now
    if old is not None:
        with contextlib.suppress(DecodeError):
            since = read_pending(old).since
    assert subscription.debounce is not None
    due = now + subscription.debounce
    if subscription.most is not None:
        due = max(now, min(due, since + subscription.most))
    return values.to_bytes(Pending(call=call, since=since)), due


def matching(subscriptions: Iterable[Subscription], event: Event, payload: object) -> list[Subscription]:
    """The subscriptions that an event reaches, each name once."""
    found = {one.name: one for one in subscriptions if fits(one.topic, event.topic) and accepts(one.where, payload)}
    return list(found.values())
