"""Where jobs stand, as arguments of scripts."""

from typing import Any

from msgspec import UNSET

from windlass.gate import write_needs
from windlass.place import Change, Place
from windlass.store.rows import micros


def change_row(change: Change) -> tuple[Any, ...]:
    """A change as (id, where it was, where it is now)."""
    return change.id, place_row(change.was), place_row(change.now)


def place_row(place: Place) -> tuple[Any, ...]:
    """A place as (queue, priority, ahead, gates or False, whether the options stay, options or False)."""
    options = place.options.decode() if isinstance(place.options, bytes) else False
    gates = write_needs(place.gates) or False
    return place.queue, place.priority, micros(place.ahead), gates, place.options is UNSET, options
