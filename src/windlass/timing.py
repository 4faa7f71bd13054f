"""PURE: when a schedule is due: `cron`, `every`, `rrule` and `at`. The rules stand in docs/design/schedules.md."""

import bisect
import calendar
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from dateutil import rrule as calendars
from msgspec import Struct
from msgspec.structs import force_setattr

from windlass import wall
from windlass.errors import ConfigError, DecodeError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=366 * 100)
TEXT = 500
"""The most characters of an expression."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Rhythm(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """When a schedule is due. `start` and `end` bound the ticks, both included; they are kept in UTC."""

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if (moment := getattr(self, name)) is not None:
                force_setattr(self, name, wall.utc(moment, name))
        if self.start and self.end and self.start > self.end:
            raise ConfigError(f"expected an end after the start; start {self.start} and end {self.end} came")

    def next_after(self, moment: datetime) -> datetime | None:
        """The first tick strictly after `moment`, in the rule's own zone; None when there is none any more.

        Raises `ConfigError` for a moment without a zone.
        """
        after = max(wall.utc(moment), wall.FIRST)
        if self.start:
            after = max(after, self.start - datetime.resolution)
        last = min(self.end or wall.LAST, wall.LAST)
        tick = self._after(after) if after < last else None
        return tick if tick is not None and wall.instant(tick) <= last else None

    def _after(self, moment: datetime) -> datetime | None:
        """The first tick after a moment in UTC, unbounded."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = [_shown(name, getattr(self, name)) for name in self._own() if getattr(self, name) is not None]
        return f"{type(self).__name__.lower()}({', '.join(shown)})"

    def _own(self) -> Iterable[str]:
        return (*(name for name in self.__struct_fields__ if name not in ("start", "end")), "start", "end")


class Cron(Rhythm, frozen=True, kw_only=True, tag="cron"):
    """A cron expression in a zone; made by `cron`."""

    expression: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        Rhythm.__post_init__(self)
        force_setattr(self, "tz", wall.zone_name(self.tz))
        force_setattr(self, "expression", _text("a cron expression such as '*/5 9-17 * * MON-FRI'", self.expression))
        fields(self.expression)

    def _after(self, moment: datetime) -> datetime | None:
        zone, parsed = ZoneInfo(self.tz), fields(self.expression)
        due = (wall.shown_after if parsed.elapsed else wall.fixed_after)(zone, moment, parsed.match)
        return due.astimezone(zone) if due else None


class Every(Rhythm, frozen=True, kw_only=True, tag="every"):
    """A fixed interval of elapsed time; made by `every`."""

    interval: timedelta
    anchor: datetime = EPOCH

    def __post_init__(self) -> None:
        Rhythm.__post_init__(self)
        if not SHORTEST <= self.interval <= LONGEST:
            raise ConfigError(
                f"expected an interval from 1 second to 100 years, as in every(minutes=10); {self.interval} came. "
                "For something faster, loop inside of a task"
            )
        force_setattr(self, "anchor", wall.utc(self.anchor, "anchor"))

    def _after(self, moment: datetime) -> datetime | None:
        return moment + (self.interval - (moment - self.anchor) % self.interval)


class RRule(Rhythm, frozen=True, kw_only=True, tag="rrule"):
    """A calendar rule of RFC 5545 in a zone; made by `rrule`."""

    rule: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        Rhythm.__post_init__(self)
        force_setattr(self, "tz", wall.zone_name(self.tz))
        rule = _text("a rule such as 'FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9'", self.rule)
        force_setattr(self, "rule", rule.removeprefix("RRULE:"))
        if "COUNT" in _parts(self.rule) and not self.start:
            raise ConfigError("expected start=…, from which COUNT counts; none came. Give the first moment, aware")
        self._calendar()

    def _calendar(self) -> "Recurrence":
        begin = (self.start or EPOCH).astimezone(ZoneInfo(self.tz)) if self.start else EPOCH
        return recurrence(self.rule, begin.replace(tzinfo=None, microsecond=0), self.tz)

    def _after(self, moment: datetime) -> datetime | None:
        zone = ZoneInfo(self.tz)
        due = wall.fixed_after(zone, moment, self._calendar().match)
        return due.astimezone(zone) if due else None


class At(Rhythm, frozen=True, kw_only=True, tag="at"):
    """One moment; made by `at`."""

    moment: datetime

    def __post_init__(self) -> None:
        Rhythm.__post_init__(self)
        force_setattr(self, "moment", wall.utc(self.moment, "the moment"))

    def _after(self, moment: datetime) -> datetime | None:
        return self.moment if self.moment > moment else None


Rule = Cron | Every | RRule | At


def cron(
    expression: str, *, tz: str | ZoneInfo = "UTC", start: datetime | None = None, end: datetime | None = None
) -> Cron:
    """A rhythm by a cron expression: minute, hour, day of month, month, day of week; of six fields seconds are first.

    Names (`MON`, `JAN`), ranges, steps, lists, `L` (the last day; `5L` the last Friday), `15W` and `LW` (the nearest,
    the last weekday), `MON#2` (the second Monday), `@daily` and kin. When both day fields are restricted, either is
    enough, as in Vixie cron. Raises `ConfigError` for what is no expression, is never due, or names an unknown zone.
    """
    return Cron(expression=expression, tz=wall.zone_name(tz), start=start, end=end)


def every(
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    anchor: datetime | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Every:
    """A rhythm by elapsed time: the ticks are `anchor` plus or minus whole intervals, whatever the clocks do.

    `anchor` is 1970-01-01 00:00 UTC unless given, so that every(minutes=10) is due at :00, :10, … Raises `ConfigError`
    for an interval below a second.
    """
    try:
        interval = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"expected numbers, as in every(minutes=10); that makes no interval: {error}") from None
    return Every(interval=interval, anchor=EPOCH if anchor is None else anchor, start=start, end=end)


def rrule(
    rule: str, *, tz: str | ZoneInfo = "UTC", start: datetime | None = None, end: datetime | None = None
) -> RRule:
    """A rhythm by a calendar rule of RFC 5545, as in rrule("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9", tz="Europe/Berlin").

    `start` is its DTSTART (1970-01-01 00:00 in the zone unless given): intervals count from it, and it gives what the
    rule leaves open, such as the hour. FREQ is DAILY or longer. Raises `ConfigError` as `cron` does.
    """
    return RRule(rule=rule, tz=wall.zone_name(tz), start=start, end=end)


def at(moment: datetime) -> At:
    """Once, at an aware datetime. Raises `ConfigError` for one without a zone."""
    return At(moment=moment)


def to_data(rule: Rule) -> dict[str, Any]:
    """A rule as plain data, fit for JSON."""
    data: dict[str, Any] = msgspec.to_builtins(rule)
    return data


def from_data(data: object) -> Rule:
    """The rule that `to_data` described. Raises `DecodeError`."""
    try:
        rule: Rule = msgspec.convert(data, Rule)
        return rule
    except Exception as error:
        raise DecodeError(f"expected the stored form of a schedule's rule; it cannot be read: {error}") from error


def _text(what: str, given: object) -> str:
    if isinstance(given, str) and 0 < len(given) <= TEXT:
        return " ".join(given.split())
    raise ConfigError(f"expected {what}, up to {TEXT} characters; {repr(given)[:80]} came")


def _shown(name: str, value: object) -> str:
    if name in ("expression", "rule"):
        return repr(value)
    return f"{name}={str(value) if isinstance(value, datetime | timedelta) else repr(value)}"


# Cron: the library reads the fields, the walk over local time and its days is here


SPAN_OF_ONE = re.compile(r"\b0*(\w+)-0*\1/0*[1-9]\d*\b", re.ASCII)
"""A span of one number with a step, which cronsim takes for `n/step`: from there to the end."""


class Fields(NamedTuple):
    """A cron expression that was read. `weekdays_near` holds the n of each `nW`; `elapsed`: hours are a wildcard.

    `kinds` keeps the days of each kind of month that was asked for: of 28, by their first weekday and their length.
    """

    sim: CronSim
    weekdays_near: frozenset[int]
    seconds: list[int]
    minutes: list[int]
    hours: list[int]
    elapsed: bool
    kinds: dict[tuple[int, int], list[int]]

    def match(self, local: datetime) -> datetime | None:
        """The first matching local time from `local` on; None if there is none before the end of years."""
        today = local.date()
        day = self.day(today)
        if day == today:
            if time := self.time(local.hour, local.minute, local.second):
                return local.replace(hour=time[0], minute=time[1], second=time[2])
            day = self.day(today + wall.DAY)
        first = time_of_day(self.hours[0], self.minutes[0], self.seconds[0])
        return datetime.combine(day, first) if day else None

    def time(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first matching time of a day from one on."""
        if hour in self.hours:
            if minute in self.minutes and second <= self.seconds[-1]:
                return hour, minute, self.seconds[bisect.bisect_left(self.seconds, second)]
            if minute < self.minutes[-1]:
                return hour, self.minutes[bisect.bisect_right(self.minutes, minute)], self.seconds[0]
        if hour < self.hours[-1]:
            return self.hours[bisect.bisect_right(self.hours, hour)], self.minutes[0], self.seconds[0]
        return None

    def day(self, day: date, until: int = wall.LAST.year) -> date | None:
        """The first matching day from one on, up to the end of the year `until`."""
        year, month, first = day.year, day.month, day.day
        while year <= until:
            if month in self.sim.months:
                days = self.days(year, month)
                if days and days[-1] >= first:
                    return date(year, month, days[bisect.bisect_left(days, first)])
            year, month, first = (year, month + 1, 1) if month < 12 else (year + 1, 1, 1)
        return None

    def days(self, year: int, month: int) -> list[int]:
        """The matching days of a month, were it one of the months that match."""
        kind = calendar.monthrange(year, month)
        if kind not in self.kinds:
            self.kinds[kind] = [n for n in range(1, kind[1] + 1) if self.on(date(year, month, n))]
        return self.kinds[kind]

    def on(self, day: date) -> bool:
        """Whether a day matches day of month and day of week."""
        of_month = self.sim.match_dom(day) or any(_nearest(day, number) for number in self.weekdays_near)
        of_week = self.sim.match_dow(day)
        return of_month and of_week if self.sim.day_and else of_month or of_week


@lru_cache(maxsize=1024)
def fields(expression: str) -> Fields:
    """Reads a cron expression. Raises `ConfigError`."""
    parts = ALIASES.get(expression.lower(), expression).upper().split()
    if len(parts) not in (5, 6):
        raise _no_cron(expression, f"it has {len(parts)} of the five or six fields")
    parts = [SPAN_OF_ONE.sub(r"\1", part) for part in parts]
    terms = parts[-3].split(",")
    near = [term for term in terms if re.fullmatch(r"([1-9]|[12][0-9]|3[01])W", term)]
    rest = [term for term in terms if term not in near]
    parts[-3] = ",".join(rest) or "1"
    try:
        sim = CronSim(" ".join(parts), datetime(2000, 1, 1))  # noqa: DTZ001  # it never walks
    except CronSimError as error:
        raise _no_cron(expression, str(error)) from None
    if not rest:
        sim.days.clear()
    hours = sorted(sim.hours)
    elapsed = parts[-4].startswith("*") or len(hours) == 24
    numbers = frozenset(int(term[:-1]) for term in near)
    found = Fields(sim, numbers, sorted(sim.seconds), sorted(sim.minutes), hours, elapsed, {})
    if found.day(date(2000, 1, 1), 2400) is None:  # the calendar repeats after 400 years
        raise _no_cron(expression, "no day ever matches")
    return found


def _no_cron(expression: str, why: str) -> ConfigError:
    return ConfigError(
        "expected a cron expression '[second] minute hour day-of-month month day-of-week', such as "
        f"'*/5 9-17 * * MON-FRI', or one of {', '.join(ALIASES)}; {expression!r} came: {why[:1].lower()}{why[1:]}"
    )


def _nearest(day: date, number: int) -> bool:
    """Whether `day` is the weekday nearest to the day `number` of its month; in that month, as Quartz has it."""
    last = calendar.monthrange(day.year, day.month)[1]
    if number > last or day.weekday() > 4:
        return False
    weekday = day.replace(day=number).weekday()
    shift = {5: -1 if number > 1 else 2, 6: 1 if number < last else -2}.get(weekday, 0)
    return day.day == number + shift


# Calendar rules: the library reads and walks them, from a start near to what is asked


FREQUENCIES = {
    "YEARLY": calendars.YEARLY,
    "MONTHLY": calendars.MONTHLY,
    "WEEKLY": calendars.WEEKLY,
    "DAILY": calendars.DAILY,
}
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

MOST = 1_000
"""The most that INTERVAL may be."""

COUNTED = 10_000
"""The most that COUNT may be: all of them are walked once."""


class Recurrence(NamedTuple):
    """A calendar rule that was read, without its end; `until` is a local time."""

    rule: calendars.rrule
    begin: datetime
    frequency: str
    interval: int
    until: datetime

    def match(self, local: datetime) -> datetime | None:
        """The first local time of the rule from `local` on."""
        found = self.near(local).after(max(local, self.begin), inc=True)
        return found if found and found <= self.until else None

    def near(self, local: datetime) -> calendars.rrule:
        """The same rule from the begin of one of its own periods shortly before `local` on."""
        if local <= self.begin:
            return self.rule
        years, months = local.year - self.begin.year, local.month - self.begin.month
        first = self.begin.replace(day=1, hour=0, minute=0, second=0)
        if self.frequency == "YEARLY":
            start = first.replace(month=1, year=first.year + self._whole(years))
        elif self.frequency == "MONTHLY":
            year, month = divmod(first.year * 12 + first.month - 1 + self._whole(years * 12 + months), 12)
            start = first.replace(year=year, month=month + 1)
        else:
            week = self.frequency == "WEEKLY"
            back = (self.begin.weekday() - self.rule._wkst) % 7 if week else 0  # type: ignore[attr-defined]
            first = self.begin.replace(hour=0, minute=0, second=0) - back * wall.DAY
            start = first + self._whole((local - first).days // (7 if week else 1)) * (7 if week else 1) * wall.DAY
        return self.rule.replace(dtstart=start)

    def _whole(self, periods: int) -> int:
        """So many periods, rounded down to what the interval reaches."""
        return periods - periods % self.interval


@lru_cache(maxsize=1024)
def recurrence(rule: str, begin: datetime, tz: str) -> Recurrence:
    """Reads a calendar rule that begins at a local time. Raises `ConfigError`."""
    parts = _parts(rule)
    if parts.get("FREQ") not in FREQUENCIES:
        raise _no_rule(rule, "FREQ has to be YEARLY, MONTHLY, WEEKLY or DAILY. For shorter ones take cron or every")
    frequency = parts["FREQ"]
    count, until, interval = parts.pop("COUNT", None), parts.pop("UNTIL", None), parts.get("INTERVAL", "1")
    if count and until:
        raise _no_rule(rule, "COUNT and UNTIL exclude each other")
    for what, number, most in (("INTERVAL", interval, MOST), ("COUNT", count or "1", COUNTED)):
        if not (number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= most):
            raise _no_rule(rule, f"{what} has to be a whole number from 1 to {most:,}")
    text = ";".join(f"{name}={value}" for name, value in _complete(parts, begin).items())
    try:
        read = calendars.rrulestr(text, dtstart=begin)
        assert isinstance(read, calendars.rrule)
        found = Recurrence(read, begin, frequency, int(interval), wall.LAST.replace(tzinfo=None))
        far = datetime(9590 if interval == "1" else 7000, 1, 1)  # noqa: DTZ001  # the calendar repeats after 400 years
        possible = found.near(far).after(far)
        last = _until(until, tz) if until else None
    except Exception as error:
        raise _no_rule(rule, str(error)) from None
    if not possible:
        raise _no_rule(rule, "no day ever matches")
    if count:
        *_, last = (tick for _, tick in zip(range(int(count)), read, strict=False))
    return found._replace(until=last) if last else found


def _parts(rule: str) -> dict[str, str]:
    """NAME=VALUE;… as a dictionary."""
    pairs = [part.partition("=") for part in rule.upper().strip(";").split(";")]
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names) or not all(value for _, _, value in pairs):
        raise _no_rule(rule, "it has to be NAME=VALUE pairs, each name once, with ';' between; DTSTART is start=…")
    return {name: value for name, _, value in pairs}


def _complete(parts: dict[str, str], begin: datetime) -> dict[str, str]:
    """The parts with those that the begin gives, so that the rule says the same from any other."""
    days = [name for name in ("BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY", "BYEASTER") if name in parts]
    frequency = parts["FREQ"]
    given: dict[str, object] = {"BYHOUR": begin.hour, "BYMINUTE": begin.minute, "BYSECOND": begin.second}
    if not days and frequency == "YEARLY":
        given |= {"BYMONTH": begin.month, "BYMONTHDAY": begin.day}
    elif not days and frequency == "MONTHLY":
        given |= {"BYMONTHDAY": begin.day}
    elif not days and frequency == "WEEKLY":
        given |= {"BYDAY": WEEKDAYS[begin.weekday()]}
    return {name: str(value) for name, value in given.items()} | parts


def _until(text: str, tz: str) -> datetime:
    """UNTIL as a local time: with a Z it is UTC, a date alone includes its day."""
    form = r"(\d{8})(?:T(\d{6})(Z?))?"
    if not (match := re.fullmatch(form, text)):
        raise ValueError("UNTIL has to look like 20301231, 20301231T090000 or 20301231T080000Z")
    local = datetime.strptime(match[1] + (match[2] or "235959"), "%Y%m%d%H%M%S")  # noqa: DTZ007
    return local.replace(tzinfo=UTC).astimezone(ZoneInfo(tz)).replace(tzinfo=None) if match[3] else local


def _no_rule(rule: str, why: str) -> ConfigError:
    return ConfigError(
        f"expected a calendar rule (RFC 5545) such as 'FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9'; {rule!r} came: {why}"
    )
