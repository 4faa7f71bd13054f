"""Where jobs stand that do not run, and how that is changed."""

from msgspec import UNSET, UnsetType

from windlass.discreet import Discreet
from windlass.model import Need


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
