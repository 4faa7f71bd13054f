"""Where jobs stand that do not run, and how that is changed."""

from msgspec import UNSET, UnsetType

from windlass.discreet import Discreet
from windlass.model import Need

LIFTED = 0
"""The priority at which jobs stand that are lifted: with the highest of a queue that ages, and with those of other
queues that were given none."""

BEHIND = LIFTED - 1
"""The priority of those that are not lifted yet: just below what others are given by default, in this queue and in
others of the same worker."""

EARLY = 1.5
"""Seconds by which jobs may be lifted early: who lifts them looks once a second, and none shall be late."""


class Place(Discreet, frozen=True, kw_only=True):
    """Where a job that does not run stands, all in one; its options too, if they are set here."""

    queue: str
    priority: int
    ahead: float = 0
    gates: tuple[Need, ...] = ()
    options: bytes | UnsetType | None = UNSET


class Change(Discreet, frozen=True, kw_only=True):
    """A job that stands as it `was` is to stand as it is `now`. Both have options, or neither."""

    id: str
    was: Place
    now: Place
