"""Limits and rates as users write them, and what a call needs of them: pure values."""

import hashlib
import inspect
import re
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from windlass import options
from windlass.codec import Shape
from windlass.errors import ConfigError, DecodeError
from windlass.gate import Settings
from windlass.model import Need

Key = str | Callable[..., Any]
Weight = int | Callable[..., int]
Sealer = Callable[[str, str], str]
"""Hides a key of a gate of that name, where keys are hidden."""

MICRO = 1_000_000
UNITS = {"s": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86_400, "day": 86_400}
PACE = re.compile(rf"\s*(\d+)\s*/\s*(\d+)?\s*({'|'.join(sorted(UNITS, key=len, reverse=True))})s?\s*")

JITTER = 0.5
"""Seconds, or a hundredth of the window if that is less, by which a window of a rate is longer than asked for: between
the claim of a job and the first line of its code passes some time, now more, now less, and one start more shall not get
into a window by that."""

LONGEST_KEY = 128
"""Bytes of a key up to which it is stored as it is."""

MOST = 4
"""The most gates of a task, and of a queue: indexes hold their names, which must fit into a page of them together."""


class Gate(Struct, frozen=True, kw_only=True):
    """A limit or a rate: `limit(…)`, `rate(…)`."""

    settings: Settings
    name: str = ""
    key: Key | None = None
    weight: Weight = 1
    keep: bool = False

    @property
    def asks(self) -> bool:
        """Whether what it takes depends on the arguments."""
        return self.key is not None or not isinstance(self.weight, int)

    def need(self, given: inspect.BoundArguments | None, seal: Sealer) -> Need:
        """What a call with these arguments takes of it."""
        name = self.name
        if self.key is not None and given is not None:
            name = f"{name}/{seal(name, text_of(self.key, given))}"
        weight = self.weight
        if not isinstance(weight, int):
            weight = checked_weight(1 if given is None else weight(*given.args, **given.kwargs))
        return Need(name, weight, self.keep)


def limit(most: int | None, *, key: Key | None = None, name: str | None = None, weight: Weight = 1) -> Gate:
    """At most so many jobs at once, everywhere together; None: no limit, until somebody sets one (`app.gates.set`).

    `key` counts each value apart: a template of the arguments such as `"{tenant_id}"`, or a function that is called as
    the task is. Tasks that give the same `name` share the limit; without one it is the task's own. `weight` says how
    many places a job takes, as a number or a function of the arguments. Raises `ConfigError`.
    """
    if most is not None and (type(most) is not int or most < 1):
        raise ConfigError(f"expected a whole number from 1 on, or None, for limit(…); {options.short(most)} came")
    return made(Settings(limit=most), key, name, weight)


def rate(pace: str, *, burst: int = 1, key: Key | None = None, name: str | None = None, weight: Weight = 1) -> Gate:
    """At most so many starts in any window of time, everywhere together: `rate("100/minute")`, `rate("5/10s")`.

    Starts are spread over the window; `burst` of them may come at once, and so many more than asked for may be in a
    window then. `key`, `name` and `weight` as for `limit`. Raises `ConfigError`.
    """
    found = PACE.fullmatch(pace) if isinstance(pace, str) else None
    if not found or int(found[1]) < 1 or found[2] == "0":
        raise ConfigError(f"expected a rate such as '100/minute' or '5/10s'; {options.short(pace)} came")
    if type(burst) is not int or burst < 1:
        raise ConfigError(f"expected a whole number from 1 on for burst; {options.short(burst)} came")
    return made(
        Settings(interval=interval_of(int(found[1]), int(found[2] or 1) * UNITS[found[3]]), burst=burst),
        key,
        name,
        weight,
    )


def interval_of(starts: int, window: float) -> int:
    """Microseconds from one start to the next, for so many starts in a window of so many seconds."""
    return -round(-(window + min(JITTER, window / 100)) * MICRO // starts)


def made(settings: Settings, key: Key | None, name: str | None, weight: Weight) -> Gate:
    """A gate of checked parts. Raises `ConfigError`."""
    if key is not None and not (callable(key) or (isinstance(key, str) and key)):
        raise ConfigError(
            f"expected key as a template such as '{{tenant_id}}', or a function; {options.short(key)} came"
        )
    if not callable(weight):
        checked_weight(weight)
    return Gate(
        settings=settings, name=options.name("the name of a gate", name) if name else "", key=key, weight=weight
    )


def ordered(key: object) -> Gate:
    """One after another, in the order in which they came. Raises `ConfigError`."""
    if not (callable(key) or (isinstance(key, str) and key)):
        raise ConfigError(
            f"expected ordered_by as a template such as '{{account_id}}', or a function; {options.short(key)} came"
        )
    return Gate(settings=Settings(limit=1), key=key, keep=True)


def gates_of(given: object, owner: str, shape: Shape | None) -> tuple[Gate, ...]:
    """One gate or several, with names: `owner`, or `owner:2` and so on, where none is given. Raises `ConfigError`."""
    several = (given,) if isinstance(given, Gate) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(one, Gate) for one in several):
        raise ConfigError(f"expected limit(…), rate(…), or a list of them, for gates; {options.short(given)} came")
    if len(several) > MOST:
        raise ConfigError(f"expected at most {MOST} gates for {owner}; {len(several)} came")
    named: dict[str, Gate] = {}
    for place, gate in enumerate(several, 1):
        name = gate.name or (owner if place == 1 else f"{owner}:{place}")
        if name in named:
            raise ConfigError(f"two gates of {owner} are called {name}: give one another name=")
        if shape is None and gate.asks:
            raise ConfigError(
                f"a gate of a queue takes no key or function: tasks have different arguments; {owner} has one"
            )
        if shape is not None and isinstance(gate.key, str):
            check_template(gate.key, shape)
        named[name] = replace(gate, name=name)
    return tuple(named.values())


def check_template(template: str, shape: Shape) -> None:
    """Raise `ConfigError` for a template that no call can fill."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigError(f"the key {template!r} is no template: {error}") from None
    known = shape.signature.parameters
    unknown = [field for field in fields if re.split(r"[.\[]", field)[0] not in known]
    if unknown or not fields:
        what = f"the argument {unknown[0]!r}" if unknown else "no argument"
        raise ConfigError(
            f"the key {template!r} names {what}, and the task is {shape.title}. Write it as in '{{name}}'"
        )


def needs_of(gates: Iterable[Gate], stored: bytes, shape: Shape, seal: Sealer) -> tuple[Need, ...]:
    """What a stored call takes of these gates. One that does not fit its task takes no more than any: it will fail."""
    gates = tuple(gates)
    given = None
    if any(gate.asks for gate in gates):
        try:
            args, kwargs = shape.decode_call(stored)
            given = shape.signature.bind(*args, **kwargs)
            given.apply_defaults()
        except DecodeError:
            gates = tuple(gate for gate in gates if not gate.asks)
    return each_once(gate.need(given, seal) for gate in gates)


def each_once(needs: Iterable[Need]) -> tuple[Need, ...]:
    """What is taken of each gate, in the order of their names; of one that a task and its queue both name, the most."""
    found: dict[str, Need] = {}
    for need in sorted(needs, key=lambda need: (need.gate, need.keep, need.weight)):
        found[need.gate] = need
    return tuple(found.values())


def text_of(key: Key, given: inspect.BoundArguments) -> str:
    """A key of these arguments as a text."""
    if isinstance(key, str):
        return key.format_map(given.arguments)
    return str(key(*given.args, **given.kwargs))


def plain(key: str) -> str:
    """A key as it is stored where nothing is hidden: itself, or its hash where it is long or no plain text."""
    if key and len(key.encode("utf-8", "replace")) <= LONGEST_KEY and key.isprintable():
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def checked_weight(value: object) -> int:
    """How many places a job takes. Raises `ConfigError`."""
    if type(value) is int and value >= 1:
        return value
    raise ConfigError(f"expected a whole number from 1 on for the weight of a gate; {options.short(value)} came")


def declared(gates: Iterable[Gate]) -> Mapping[str, Settings]:
    """The settings of these gates, by name. Raises `ConfigError` where two of one name differ."""
    found: dict[str, Settings] = {}
    for gate in gates:
        if found.setdefault(gate.name, gate.settings) != gate.settings:
            raise ConfigError(f"two gates are called {gate.name} and have different settings: which are meant?")
    return found
