"""Uniqueness as users write it: what is one job only, for how long, and what a second one does. Pure values."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from windlass import options, values
from windlass.codec import Shape
from windlass.errors import ConfigError
from windlass.limits import Key, check_template, text_of
from windlass.model import Clash
from windlass.options import Seconds

Conflict = Literal["return", "raise", "replace", "move", "cancel", "again"]

CLASHES: dict[str, Clash] = {"replace": Clash.REPLACE, "move": Clash.MOVE, "cancel": Clash.CANCEL}

AGAIN = "windlass.again"
"""The gate, one key each, by which a job that shall run once more waits for the end of the run before."""


class Uniqueness(Struct, frozen=True, kw_only=True):
    """A checked `Unique` or `debounce`. `held`: seconds, 0 until the start, None until the end."""

    key: Key | None
    held: float | None
    conflict: str
    delay: float | None = None
    max_wait: float | None = None

    @property
    def clash(self) -> Clash:
        """What the store does to the job that holds the key."""
        return CLASHES.get(self.conflict, Clash.KEEP)

    def text(self, stored: bytes, shape: Shape) -> str:
        """What the key of a stored call is made of. Raises `DecodeError` for one that does not fit its task."""
        given = bound(stored, shape)
        if self.key is None:
            return values.encode(dict(given.arguments), "args", options.MOST_KEY).decode()
        return text_of(self.key, given)


def bound(stored: bytes, shape: Shape) -> inspect.BoundArguments:
    """A stored call with its defaults. Raises `DecodeError`."""
    args, kwargs = shape.decode_call(stored)
    given = shape.signature.bind(*args, **kwargs)
    given.apply_defaults()
    return given


def Unique(  # noqa: N802 - reads as the value that it makes
    key: Key | None = None, *, until: Literal["end", "start"] | Seconds = "end", on_conflict: Conflict = "return"
) -> Uniqueness:
    """One job of a task per key: `@app.task(unique=Unique("{order_id}"))`.

    `key` is a template of the arguments, or a function that is called as the task is; without it all arguments count.
    The key is held until the job ends, until it starts, or for so many seconds whatever becomes of it. A second job is
    not stored: `"return"` gives the first (its handle says `new` is false), `"raise"` raises `NotUnique`. Or else:
    `"replace"` gives the first, unless it runs, the arguments of the second, `"move"` its time too; `"cancel"` cancels
    the first and stores the second; `"again"` lets one more wait until the running one is over. Raises `ConfigError`.
    """
    if until not in ("end", "start"):
        held: float | None = options.seconds("until", until, above_zero=True)
    else:
        held = None if until == "end" else 0.0
    known = ("return", "raise", *CLASHES, "again")
    if on_conflict not in known:
        raise ConfigError(f"expected on_conflict as one of {', '.join(known)}; {options.short(on_conflict)} came")
    if on_conflict == "again" and until != "end":
        raise ConfigError('on_conflict="again" holds its key until the start: leave until= out')
    return Uniqueness(key=checked(key), held=0.0 if on_conflict == "again" else held, conflict=on_conflict)


def debounce(window: Seconds, *, max_wait: Seconds | None = None, key: Key | None = None) -> Uniqueness:
    """One run for many calls: `@app.task(unique=debounce(2, max_wait=10, key="{document}"))`.

    The job starts when nobody has enqueued another for `window` seconds, at the latest `max_wait` after the first, and
    with the last arguments. Raises `ConfigError`.
    """
    return Uniqueness(
        key=checked(key),
        held=0.0,
        conflict="move",
        delay=options.seconds("window", window, above_zero=True),
        max_wait=None if max_wait is None else options.seconds("max_wait", max_wait, above_zero=True),
    )


def checked(key: object) -> Key | None:
    """A template or a function. Raises `ConfigError`."""
    if key is None or callable(key) or (isinstance(key, str) and key):
        return key
    raise ConfigError(f"expected key as a template such as '{{order_id}}', or a function; {options.short(key)} came")


def fitting(rule: object, shape: Shape) -> Uniqueness:
    """A rule for a task. Raises `ConfigError`."""
    if not isinstance(rule, Uniqueness):
        raise ConfigError(
            "expected Unique(…) or debounce(…) for unique, or in using() a text such as 'order:42'; "
            f"{options.short(rule)} came"
        )
    if isinstance(rule.key, str):
        check_template(rule.key, shape)
    return rule


Weigh = float | Callable[..., float]


class Turns(Struct, frozen=True, kw_only=True):
    """Whose turn a job takes, as users write it: a key, and how many turns it has beside others."""

    key: Key
    weight: Weigh = 1.0

    def of(self, stored: bytes, shape: Shape) -> tuple[str, float]:
        """The key and the weight of a stored call. Raises `DecodeError`, `ConfigError`."""
        given = bound(stored, shape)
        weight = self.weight if isinstance(self.weight, int | float) else self.weight(*given.args, **given.kwargs)
        return text_of(self.key, given), checked_weight(weight)


def turns(key: object, weight: Any, shape: Shape) -> Turns:
    """Checked turns. Raises `ConfigError`."""
    if key is None:
        raise ConfigError("fair_weight= weighs the keys of fair_key=, which is missing")
    found = checked(key)
    if isinstance(found, str):
        check_template(found, shape)
    if not callable(weight):
        checked_weight(weight)
    return Turns(key=found or "", weight=weight)


def checked_weight(value: object) -> float:
    """How many turns a key has. Raises `ConfigError`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.001 <= value <= 1000:
        return float(value)
    raise ConfigError(f"expected a number from 0.001 to 1000 for fair_weight; {options.short(value)} came")
