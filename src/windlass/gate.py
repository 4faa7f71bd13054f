"""What a gate admits: pure arithmetic on its settings, on what it holds and on the moment of its next start.

The rate is the generic cell rate algorithm (ITU-T I.371): a gate keeps one moment, until which it is paid for. Starting
`weight` units pays for `weight` intervals more; it may be ahead of the clock by `burst` intervals. So no window of any
length sees more starts than it has intervals, plus `burst`.
"""

import msgspec
from msgspec import Struct

from windlass.model import Need
from windlass.pause import Pause


class Settings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many units a gate holds at once, and microseconds from one start to the next; None: as many as come, at any
    time. `burst` units may start together."""

    limit: int | None = None
    interval: int | None = None
    burst: int = 1


class Own(Settings, frozen=True, kw_only=True, omit_defaults=True):
    """Settings of one key, as somebody set them at run time. While it is `paused` they admit nothing; when it is
    resumed it has those in `then`, or, if these are None, those of all keys."""

    paused: Pause | None = None
    then: Settings | None = None

    @property
    def rule(self) -> Settings | None:
        """What the key admits but for the pause; None: what all keys do."""
        return self.then if self.paused else self


class Pace(Struct, frozen=True, kw_only=True):
    """Until which moment the starts of a gate are paid for, as written `at` another: microseconds since the epoch."""

    paid: int
    at: int


CLOSED = Settings(limit=0)
"""A gate of which no settings are stored: nothing starts before some worker has told them."""

_encode = msgspec.json.Encoder().encode
_settings = msgspec.json.Decoder(Settings).decode
_own = msgspec.json.Decoder(Own).decode
_pace = msgspec.json.Decoder(Pace).decode
_needs = msgspec.json.Decoder(tuple[Need, ...]).decode


def family_of(gate: str) -> str:
    """The part of a gate's name under which the settings of all its keys are stored; what is behind it is the key."""
    return gate.partition("/")[0]


def said_by(gate: str) -> tuple[str, ...]:
    """The names of the documents that may say the settings of a gate, of which the first that exists counts: its key's
    own, its family's."""
    family = family_of(gate)
    return (family,) if family == gate else (gate, family)


def read_settings(body: bytes | None) -> Settings:
    """Stored settings; CLOSED where there are none that can be read."""
    try:
        return CLOSED if body is None else _settings(body)
    except msgspec.MsgspecError:
        return CLOSED


def read_own(body: bytes) -> Own:
    """Stored settings with what somebody did to one key; closed ones where they cannot be read."""
    try:
        return _own(body)
    except msgspec.MsgspecError:
        return Own(limit=0)


def write_settings(settings: Settings) -> bytes:
    """Settings as they are stored."""
    return _encode(settings)


def read_pace(body: bytes | None, now: int) -> int:
    """The moment in a stored `Pace`; 0 where there is none, and when it was written by a clock that was set back since:
    better one burst more than to stand still until that time comes again."""
    try:
        pace = None if body is None else _pace(body)
    except msgspec.MsgspecError:
        pace = None
    return 0 if pace is None or pace.at > now else pace.paid


def write_pace(paid: int, now: int) -> bytes:
    """A `Pace` as it is stored."""
    return _encode(Pace(paid=paid, at=now))


def read_needs(text: str | bytes | None) -> tuple[Need, ...]:
    """The needs of a job as stored; none, where nobody of ours wrote them."""
    try:
        needs = () if text is None else _needs(text)
    except (msgspec.MsgspecError, UnicodeError):
        return ()
    return needs if all(need.weight > 0 for need in needs) else ()


def write_needs(needs: tuple[Need, ...]) -> str | None:
    """Needs as jobs keep them: those of two jobs are the same text if they are the same."""
    return _encode(sorted(needs, key=lambda one: one.gate)).decode() if needs else None


def share(settings: Settings, weight: int) -> int:
    """The units that a job of this weight takes: a job heavier than its gate takes all of it."""
    return weight if settings.limit is None else max(1, min(weight, settings.limit))


def starts_at(settings: Settings, paid: int, now: int, weight: int) -> int:
    """When `weight` units may start: now, or a moment to come."""
    if settings.interval is None:
        return now
    ahead = max(settings.burst, weight) - weight
    return max(now, paid - ahead * settings.interval)


def paid_after(settings: Settings, paid: int, now: int, weight: int) -> int:
    """The moment until which a gate is paid for when `weight` units start now."""
    return max(paid, now) + weight * (settings.interval or 0)


def fit(settings: Settings, used: int, paid: int, now: int, weight: int, most: int) -> int:
    """How many jobs of this weight may start now, at most `most`."""
    if settings.limit is not None:
        most = min(most, (settings.limit - used) // share(settings, weight))
    if settings.interval is not None:
        budget = max(settings.burst, weight) * settings.interval - (max(paid, now) - now)
        most = min(most, budget // (weight * settings.interval) if settings.interval else most)
    return max(0, most)
