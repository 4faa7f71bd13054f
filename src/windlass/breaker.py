"""A circuit breaker of a task: a pure rule on the moments of its failures, which the store keeps for all workers.

Closed, it counts. After so many failures within a window the task is paused everywhere. Some time later one job at a
time may try: a success closes the breaker, a failure leaves it open for as long again.
"""

import sys
from dataclasses import dataclass

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from windlass import options
from windlass.errors import ConfigError
from windlass.model import Ending, Outcome
from windlass.pause import Pause
from windlass.policy import Kinds, class_name

MOST = 1_000
"""The most failures that a breaker may be told to wait for: so many moments are stored."""

HOLD = 15.0
"""Seconds for which a runner has the right to try one job, unless it renews it: so long nobody tries if it dies."""

TRIED = frozenset({Ending.SUCCEEDED, Ending.RETRY, Ending.FAILED})
"""The endings that say something about what the task needs."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """Pauses a task everywhere after `failures` of its attempts failed within `window` seconds.

    After `probe` seconds, and then again as often, one job at a time is tried, until one succeeds. Only errors in `on`
    count, and only they keep it open; a class may be given by its full name, as in "httpx.TimeoutException".
    """

    failures: int = 5
    window: options.Seconds = 60.0
    probe: options.Seconds = 30.0
    on: Kinds = (Exception,)

    def __post_init__(self) -> None:
        if type(self.failures) is not int or not 1 <= self.failures <= MOST:
            raise ConfigError(
                f"expected a whole number from 1 to {MOST:,} for failures; {options.short(self.failures)} came"
            )
        for name in ("window", "probe"):
            object.__setattr__(self, name, options.seconds(name, getattr(self, name), above_zero=True))
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not kinds or not all(isinstance(kind, type | str) for kind in kinds):
            raise ConfigError(f"expected classes of errors, or their full names, for on; {options.short(self.on)} came")
        object.__setattr__(self, "on", kinds)


class Failures(Struct, frozen=True, kw_only=True):
    """When attempts failed, oldest first: seconds since the epoch, by the store's clock."""

    at: tuple[float, ...] = ()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Failures).decode


def write(at: tuple[float, ...]) -> bytes:
    """Moments of failures as they are stored."""
    return _encode(Failures(at=at))


def read(body: bytes) -> tuple[float, ...]:
    """Stored moments; none where they cannot be read."""
    try:
        return _decode(body).at
    except msgspec.MsgspecError:
        return ()


def added(breaker: Breaker, at: tuple[float, ...], more: int, now: float) -> tuple[float, ...]:
    """The failures that still count, with so many more that were just seen."""
    recent = tuple(one for one in at if 0 <= now - one < length(breaker.window))
    return (*recent, *[now] * min(more, breaker.failures))[-breaker.failures :]


def trips(breaker: Breaker, at: tuple[float, ...]) -> bool:
    """Whether so many failures open it."""
    return len(at) >= breaker.failures


def opened(breaker: Breaker, kind: str, now: float) -> Pause:
    """The pause that begins now; `kind` is the class of the last error."""
    reason = f"{breaker.failures} failures within {length(breaker.window):g} s, the last of them {kind}"
    return Pause(since=now, reason=reason, until=now + length(breaker.probe))


def taken(pause: Pause, runner: str, now: float) -> Pause:
    """The same with the right to try one job taken, or renewed, by a runner."""
    return replace(pause, prober=runner, held=now + HOLD)


def released(pause: Pause) -> Pause:
    """The same with the right to try free for anybody."""
    return replace(pause, prober="", held=0.0)


def reopened(breaker: Breaker, pause: Pause, kind: str, now: float) -> Pause:
    """The same after the job that was tried failed too."""
    reason = f"{pause.reason.partition('; ')[0]}; a job that was tried failed as well: {kind}"
    return replace(released(pause), reason=reason, until=now + length(breaker.probe))


def verdict(breaker: Breaker, outcome: Outcome) -> bool | None:
    """Whether an attempt tells that all is well; False: that it is not; None: it tells nothing.

    An error that is not in `on` is an answer, so all is well.
    """
    if outcome.ending not in TRIED:
        return None
    return outcome.failure is None or not is_kind(outcome.failure.type, breaker.on)


def length(seconds: options.Seconds) -> float:
    """Seconds as a number."""
    return options.seconds("seconds", seconds)


def is_kind(name: str, kinds: Kinds) -> bool:
    """Whether an error whose class is called so is of one of these kinds. Attempts come as data, some from
    other processes; a class that cannot be found here is of its own kind only, and an `Exception`."""
    found = class_called(name)
    names = {name, "Exception", "BaseException"} if found is None else set(map(class_name, found.__mro__))
    return any((kind if isinstance(kind, str) else class_name(kind)) in names for kind in kinds)


def class_called(name: str) -> type | None:
    """The class of that full name, if its module is imported here."""
    parts = name.split(".")
    for end in range(len(parts) - 1, -1, -1):
        found: object = sys.modules.get(".".join(parts[:end]) or "builtins")
        if found is not None:
            for part in parts[end:]:
                found = getattr(found, part, None)
            return found if isinstance(found, type) else None
    return None
