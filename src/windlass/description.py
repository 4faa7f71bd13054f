"""What all jobs of a queue have in common, as `app.queue(…)` says it: pure values."""

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

from msgspec import Struct

from windlass import options
from windlass.errors import ConfigError
from windlass.limits import Gate
from windlass.model import PRIORITIES, Need
from windlass.options import Seconds
from windlass.place import BEHIND, LIFTED

WhenFull = Literal["block", "reject", "drop_oldest", "shed_lowest"]
DROPS = frozenset({"drop_oldest", "shed_lowest"})


class Most(Struct, frozen=True, kw_only=True):
    """The most jobs that a queue takes, and what happens with more; `max_wait` in seconds, None: for ever."""

    max_length: int
    when_full: WhenFull = "block"
    max_wait: float | None = None

    @property
    def drops(self) -> bool:
        """Whether jobs that stand there make room for new ones."""
        return self.when_full in DROPS


class Described(NamedTuple):
    """Gates that all jobs of a queue pass, the seconds of its aging and of the life of its jobs, and its bound."""

    gates: tuple[Gate, ...] = ()
    aging: float | None = None
    expires_in: float | None = None
    most: Most | None = None

    def ages(self, gates: Iterable[Gate | Need], *, fair: bool) -> bool:
        """Whether a job with these gates ages here: not one that takes turns, nor one in strict order."""
        return bool(self.aging) and not fair and not any(one.keep for one in gates)

    def stands(self, priority: int) -> tuple[int, float]:
        """Where a job that ages stands when it is due: the priority at which the store has it, and how far ahead. It
        stands behind, by what it has to wait until it is lifted; one of the highest priority is where others get."""
        wait = round((self.aging or 0.0) * (PRIORITIES[-1] - priority) / (PRIORITIES[-1] - PRIORITIES[0]), 6)
        return (BEHIND, -wait) if wait else (LIFTED, 0.0)


PLAIN = Described()


def bound_of(max_length: object, when_full: WhenFull, max_wait: Seconds | None, *, ages: bool = False) -> Most | None:
    """A checked bound; None where there is none. Raises `ConfigError`."""
    if when_full not in get_args(WhenFull):
        known = ", ".join(map(repr, get_args(WhenFull)))
        raise ConfigError(f"expected when_full as one of {known}; {options.short(when_full)} came")
    if max_wait is not None and when_full != "block":
        raise ConfigError(f"max_wait says how long to wait, and when_full={when_full!r} does not wait: leave one out")
    if max_length is None:
        if max_wait is not None or when_full != "block":
            raise ConfigError("when_full and max_wait need a max_length: how many jobs may stand in the queue?")
        return None
    if type(max_length) is not int or max_length < 1:
        raise ConfigError(f"expected a whole number from 1 on for max_length; {options.short(max_length)} came")
    if when_full == "shed_lowest" and ages:
        raise ConfigError("in a queue with aging, waiting makes up for priority: nothing there is the lowest to shed")
    wait = None if max_wait is None else options.seconds("max_wait", max_wait)
    return Most(max_length=max_length, when_full=when_full, max_wait=wait)
