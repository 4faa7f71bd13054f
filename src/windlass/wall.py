"""PURE: what clocks on a wall show in a zone, and when; docs/design/schedules.md has the rules for their changes."""

import difflib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from windlass.errors import ConfigError

FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
"""Schedules live between these; further out `datetime` cannot tell every zone's time."""

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)

SPREAD = 2 * DAY
"""More than any two clocks are apart: an offset is less than a day."""

Match = Callable[[datetime], datetime | None]
"""The first matching local time from one on, that one included; both without a zone and in whole seconds."""


def zone_name(given: object) -> str:
    """The IANA name of a zone that was given as a name, a `ZoneInfo` or `UTC`. Raises `ConfigError`."""
    name = "UTC" if given is UTC else given.key if isinstance(given, ZoneInfo) else given
    if not isinstance(name, str):
        raise ConfigError(
            f"expected the IANA name of a time zone, such as 'Europe/Berlin'; {given!r} came, "
            "and an offset alone does not say when the clocks change"
        )
    try:
        ZoneInfo(name)
    except Exception:
        near = difflib.get_close_matches(name, available_timezones(), 3, 0.6)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "names look like 'Europe/Berlin' or 'UTC'"
        raise ConfigError(
            f"expected the IANA name of a time zone; {name[:80]!r} came, which is unknown: {hint}"
        ) from None
    return name


def utc(moment: datetime, what: str = "a moment") -> datetime:
    """An aware datetime in UTC. Raises `ConfigError` for anything else."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ConfigError(
            f"expected {what} as a datetime with a zone, such as datetime(2030, 1, 31, 9, tzinfo=ZoneInfo('UTC')); "
            f"{moment!r} came"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return FIRST if moment.year < 5_000 else LAST


def fixed_after(zone: tzinfo, moment: datetime, match: Match) -> datetime | None:
    """The first instant after `moment` at which a matching local time is due.

    Each is due once: one that the clocks skip at the first instant after the gap, one shown twice at the first.
    """
    shown = moment.astimezone(zone)
    if shown.fold:
        again = first_change(zone, instant(shown.replace(fold=0)), moment)
        local = again.replace(tzinfo=None) + offset(zone, again - SECOND)
    else:
        local = shown.replace(tzinfo=None, microsecond=0) + SECOND
    while (found := match(local)) is not None:
        if (due := valid(zone, found)) > moment:
            return due
        local = found + SECOND
    return None


def shown_after(zone: tzinfo, moment: datetime, match: Match) -> datetime | None:
    """The first instant after `moment` at which the clocks show a matching local time, also when they show it again."""
    begin = moment.replace(microsecond=0) + SECOND
    while True:
        ahead = offset(zone, begin)
        found = match(begin.replace(tzinfo=None) + ahead)
        if found is None:
            return None
        due = (found - ahead).replace(tzinfo=UTC)
        change = next_change(zone, begin, min(due, begin + SPREAD))
        if change is None and due - begin <= SPREAD:
            return due
        begin = change or due - SPREAD  # what changes on the way shows no match: it is too far from both ends


def valid(zone: tzinfo, local: datetime) -> datetime:
    """The first instant at which the clocks of `zone` show `local` or, when they skip it, something later."""
    before = local.replace(tzinfo=zone)
    due = instant(before)
    if due.astimezone(zone).replace(tzinfo=None) == local:
        return due
    return first_change(zone, instant(before.replace(fold=1)), due)


def instant(shown: datetime) -> datetime:
    """An aware datetime in UTC, which alone can be compared: in one zone Python compares what the wall shows."""
    return shown.astimezone(UTC)


def offset(zone: tzinfo, moment: datetime) -> timedelta:
    """How far `zone` is ahead of UTC then."""
    return moment.astimezone(zone).utcoffset() or timedelta()


def next_change(zone: tzinfo, begin: datetime, end: datetime) -> datetime | None:
    """The first change of the offset after `begin`, up to `end`; None if there is none."""
    known = offset(zone, begin)
    while begin < end:
        ahead = min(begin + DAY, end)
        if offset(zone, ahead) != known:
            return first_change(zone, begin, ahead)
        begin = ahead
    return None


def first_change(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """The second after `low`, up to `high`, from which on the offset is no longer that of `low`."""
    known = offset(zone, low)
    below, above = 0, -(-(high - low) // SECOND)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if offset(zone, low + middle * SECOND) == known else (below, middle)
    return low + above * SECOND
