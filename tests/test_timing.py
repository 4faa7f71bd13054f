"""When schedules are due: every answer against a slow walk that shares nothing with the code but the written rules."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass import at, cron, every, rrule, wall
from windlass.errors import ConfigError, DecodeError
from windlass.timing import Rule, fields, from_data, to_data

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/St_Johns",
    "America/Santiago",
    "Antarctica/Troll",
    "Pacific/Chatham",
    "UTC",
)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def utc(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=UTC)  # type: ignore[misc, arg-type]


def local(*numbers: int) -> datetime:
    return utc(*numbers).replace(tzinfo=None)


def ticks(rule: Rule, after: datetime, end: datetime) -> list[datetime]:
    """All ticks in (after, end], in UTC."""
    found = []
    while (tick := rule.next_after(after)) is not None and tick.astimezone(UTC) <= end:
        assert tick.utcoffset() is not None
        after = tick.astimezone(UTC)
        found.append(after)
    return found


# The oracle: its own reading of the fields, and a walk over all minutes that a wall shows


@cache
def numbers(field: str, low: int, high: int) -> set[int]:
    found = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        begin = low if first == "*" else int(first)
        end = int(last) if last else high if first == "*" or step else begin
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def matches(expression: str, shown: datetime) -> bool:
    minute, hour, day, month, weekday = expression.split()
    if shown.minute not in numbers(minute, 0, 59) or shown.hour not in numbers(hour, 0, 23):
        return False
    if shown.month not in numbers(month, 1, 12):
        return False
    of_month, of_week = (
        shown.day in numbers(day, 1, 31),
        shown.isoweekday() % 7 in {n % 7 for n in numbers(weekday, 0, 7)},
    )
    return of_month and of_week if "*" in (day[0], weekday[0]) else of_month or of_week


@cache
def walk(zone: str, begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Each minute of UTC, and what the wall shows."""
    minutes = (begin + MINUTE * n for n in range((end - begin) // MINUTE + 1))
    return [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for moment in minutes]


def expected(expression: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """The ticks in (begin, end] by the written rules."""
    hour, found, latest = expression.split()[1], [], None
    for moment, shown in walk(zone, begin - DAY * 2, end):
        if hour[0] == "*" or len(numbers(hour, 0, 23)) == 24:
            due = matches(expression, shown)
        else:
            news = [shown] if latest is None else list(until(latest, shown))  # what is new on the wall, or was skipped
            due = any(matches(expression, one) for one in news)
        latest = shown if latest is None else max(latest, shown)
        if due and moment > begin:
            found.append(moment)
    return found


def until(latest: datetime, shown: datetime) -> Iterator[datetime]:
    while latest < shown:
        latest += MINUTE
        yield latest


CHANGES = {
    "Europe/Berlin": (utc(2026, 3, 29), utc(2026, 10, 25)),
    "America/New_York": (utc(2026, 3, 8), utc(2026, 11, 1)),
    "Australia/Lord_Howe": (utc(2026, 4, 4), utc(2026, 10, 3)),
    "Asia/Kathmandu": (utc(1985, 12, 31),),
    "Africa/Casablanca": (utc(2026, 2, 15), utc(2026, 3, 22)),
    "Pacific/Apia": (utc(2011, 12, 30), utc(2011, 4, 2), utc(2011, 9, 24)),
    "America/St_Johns": (utc(2006, 4, 2), utc(2006, 10, 29)),
    "America/Santiago": (utc(2026, 4, 5), utc(2026, 9, 6)),
    "Antarctica/Troll": (utc(2026, 3, 29), utc(2026, 10, 25)),
    "Pacific/Chatham": (utc(2026, 4, 4), utc(2026, 9, 26)),
    "UTC": (utc(2028, 2, 28),),
}
"""Days around which the clocks change."""


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 7)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.lists(st.one_of(number.map(str), span, step), min_size=1, max_size=3).map(",".join)


HOURS = st.one_of(st.sampled_from(["*", "*/2", "1-3", "0", "2", "23", "0-23", "2-3", "*/5"]), field(0, 23))
EXPRESSIONS = st.tuples(
    st.one_of(st.sampled_from(["*", "0", "30", "*/15", "*/7"]), field(0, 59)),
    HOURS,
    st.one_of(st.just("*"), field(1, 28)),
    st.just("*"),
    st.one_of(st.just("*"), field(0, 7)),
).map(" ".join)


@given(zone=st.sampled_from(ZONES), expression=EXPRESSIONS, which=st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_cron_is_due_when_the_rules_say(zone: str, expression: str, which: int) -> None:
    change = CHANGES[zone][which % len(CHANGES[zone])]
    begin, end = change - DAY, change + DAY * 2
    assert ticks(cron(expression, tz=zone), begin, end) == expected(expression, zone, begin, end)


RULES: list[Rule] = [
    *(cron(text, tz=zone) for zone in ZONES for text in ("30 2 * * *", "*/20 * * * *", "0 0 29 2 *", "*/9 1 1-3 * *")),
    *(rrule("FREQ=WEEKLY;INTERVAL=2;BYDAY=SU;BYHOUR=0,2;BYMINUTE=30", tz=zone) for zone in ZONES),
    every(minutes=7, anchor=utc(2030, 1, 1)),
    every(seconds=1.5),
    at(utc(2026, 3, 29, 1)),
]


class Counted(tzinfo):
    """A zone that counts how often it is asked."""

    def __init__(self, name: str) -> None:
        self.zone, self.asked = ZoneInfo(name), 0

    def fromutc(self, moment: datetime) -> datetime:
        self.asked += 1
        return self.zone.fromutc(moment.replace(tzinfo=self.zone)).replace(tzinfo=self)

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        self.asked += 1
        return self.zone.utcoffset(moment)

    def dst(self, moment: datetime | None) -> timedelta | None:
        return self.zone.dst(moment)

    def tzname(self, moment: datetime | None) -> str | None:
        return self.zone.tzname(moment)


def test_a_wildcard_hour_in_forty_years_is_found_without_a_walk_through_all_days() -> None:
    zone = Counted("Europe/Berlin")
    leap_sundays = fields("0 * 29 2 */7")
    due = wall.shown_after(zone, utc(2088, 3, 1), leap_sundays.match)
    assert due == utc(2128, 2, 28, 23)  # 2100 is no leap year
    assert zone.asked < 100


@given(
    rule=st.sampled_from(RULES),
    moments=st.lists(st.datetimes(local(2000, 1, 1), local(2050, 1, 1)), min_size=2, max_size=5).map(sorted),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
)
@settings(max_examples=150, deadline=None)
def test_the_next_tick_lies_ahead_and_never_goes_back(rule: Rule, moments: list[datetime], zone: ZoneInfo) -> None:
    aware = [moment.replace(tzinfo=UTC).astimezone(zone) for moment in moments]
    found = [rule.next_after(moment) for moment in aware]
    for moment, tick in zip(aware, found, strict=True):
        if tick is not None:
            assert tick.astimezone(UTC) > moment.astimezone(UTC)
            assert rule.next_after(tick.astimezone(UTC) - timedelta(microseconds=1)) == tick  # none lies between
    for one, other in pairwise(tick.astimezone(UTC) if tick else datetime.max.replace(tzinfo=UTC) for tick in found):
        assert one <= other


def test_thousand_changes_of_the_clock() -> None:
    """Each change of these zones from 1990 to 2037: 30 minutes into a gap, and into what is shown twice."""
    seen = 0
    for zone in (
        *ZONES,
        "Europe/London",
        "America/Sao_Paulo",
        "Asia/Tehran",
        "Australia/Sydney",
        "America/Havana",
        "Asia/Amman",
        "Europe/Moscow",
        "Pacific/Auckland",
        "America/Los_Angeles",
    ):
        for change, before, after in offsets(ZoneInfo(zone)):
            shown = (change + max(before, after) - abs(after - before) / 2).replace(tzinfo=None)
            rule = cron(f"{shown.minute} {shown.hour} {shown.day} {shown.month} *", tz=zone)
            fired = ticks(rule, change - DAY * 2, change + DAY * 2)
            first = change if after > before else shown.replace(tzinfo=UTC) - before
            assert fired == [first.replace(second=0) if after < before else first], (zone, change)
            seen += 1
    assert seen >= 1_000


def offsets(zone: ZoneInfo) -> Iterator[tuple[datetime, timedelta, timedelta]]:
    """The changes of a zone in whole hours' steps, then minutes."""
    hour = utc(1990, 1, 1)
    known = hour.astimezone(zone).utcoffset()
    while hour.year < 2038:
        day = hour + DAY
        if day.astimezone(zone).utcoffset() != known:
            change = next(
                m for m in (hour + MINUTE * n for n in range(1, 1441)) if m.astimezone(zone).utcoffset() != known
            )
            after = change.astimezone(zone).utcoffset()
            assert known is not None
            assert after is not None
            yield change, known, after
            known, hour = after, change
        else:
            hour = day


DOCUMENTED = re.findall(
    r"^\| `([^`]+)` \| (\S+) \| (\S+) \| (.+?) \|$",
    (Path(__file__).parent.parent / "docs/design/schedules.md").read_text("utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("expression", "zone", "day", "shown"), DOCUMENTED)
def test_the_table_in_the_docs(expression: str, zone: str, day: str, shown: str) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    end = (begin.replace(tzinfo=None) + DAY).replace(tzinfo=ZoneInfo(zone))
    found = ticks(cron(expression, tz=zone), begin.astimezone(UTC) - MINUTE, end.astimezone(UTC) - MINUTE)
    assert [f"{tick.astimezone(ZoneInfo(zone)):%H:%M%z}" for tick in found] == re.findall(r"\d\d:\d\d[+-]\d{4}", shown)


def test_the_docs_have_a_table() -> None:
    assert len(DOCUMENTED) >= 8


@pytest.mark.parametrize(
    ("expression", "after", "first"),
    [
        ("*/10 * * * * *", utc(2026, 1, 1, 0, 0, 5), ["2026-01-01T00:00:10", "2026-01-01T00:00:20"]),
        ("30 15 9 * * *", utc(2026, 1, 1, 9, 15, 29), ["2026-01-01T09:15:30", "2026-01-02T09:15:30"]),
        ("0 9 L * *", utc(2028, 2, 1), ["2028-02-29T09:00:00", "2028-03-31T09:00:00"]),
        ("0 9 LW * *", utc(2026, 1, 1), ["2026-01-30T09:00:00", "2026-02-27T09:00:00"]),
        ("0 9 15W * *", utc(2026, 2, 1), ["2026-02-16T09:00:00", "2026-03-16T09:00:00"]),
        ("0 9 1W * *", utc(2026, 7, 31), ["2026-08-03T09:00:00", "2026-09-01T09:00:00"]),  # 1 August is a Saturday
        ("0 9 31W * *", utc(2026, 4, 1), ["2026-05-29T09:00:00", "2026-07-31T09:00:00"]),  # 31 May is a Sunday
        ("0 0 * * 1-1/2", utc(2026, 1, 1), ["2026-01-05T00:00:00", "2026-01-12T00:00:00"]),
        ("0 9 1W,20 * *", utc(2026, 8, 1), ["2026-08-03T09:00:00", "2026-08-20T09:00:00"]),
        ("0 9 * * MON#2", utc(2026, 1, 1), ["2026-01-12T09:00:00", "2026-02-09T09:00:00"]),
        ("0 9 * * 5L", utc(2026, 1, 1), ["2026-01-30T09:00:00", "2026-02-27T09:00:00"]),
        ("0 0 13 * FRI", utc(2026, 2, 10), ["2026-02-13T00:00:00", "2026-02-20T00:00:00"]),  # either
        ("0 0 */2 * FRI", utc(2026, 2, 10), ["2026-02-13T00:00:00", "2026-02-27T00:00:00"]),  # a star: both
        ("0 0 29 2 *", utc(2096, 2, 28, 12), ["2096-02-29T00:00:00", "2104-02-29T00:00:00"]),
        ("@daily", utc(2026, 12, 31, 12), ["2027-01-01T00:00:00", "2027-01-02T00:00:00"]),
        ("@Weekly", utc(2026, 1, 1), ["2026-01-04T00:00:00", "2026-01-11T00:00:00"]),
        ("*/5 9-17 * JAN MON-FRI", utc(2026, 1, 2, 17, 55), ["2026-01-05T09:00:00", "2026-01-05T09:05:00"]),
    ],
)
def test_what_cron_understands(expression: str, after: datetime, first: list[str]) -> None:
    rule = cron(expression)
    one = rule.next_after(after)
    assert one
    two = rule.next_after(one)
    assert two
    assert [f"{tick:%Y-%m-%dT%H:%M:%S}" for tick in (one, two)] == first


@given(expression=EXPRESSIONS, begin=st.datetimes(local(2000, 1, 1), local(2099, 1, 1)))
@settings(max_examples=100, deadline=None)
def test_in_utc_it_agrees_with_the_library(expression: str, begin: datetime) -> None:
    walker, moment = (
        CronSim(re.sub(r"\b(\d+)-\1/\d+", r"\1", expression), begin.replace(tzinfo=UTC)),
        begin.replace(tzinfo=UTC),
    )
    for _ in range(3):
        assert (moment := cron(expression).next_after(moment) or moment) == next(walker)


@given(
    text=st.tuples(
        st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY"]),
        st.sampled_from([1, 2, 3, 5, 13]),
        st.sampled_from(
            [
                "",
                ";BYDAY=MO,SA",
                ";BYMONTH=2,3,4,7",
                ";BYHOUR=1,13",
                ";WKST=SU",
                ";BYDAY=MO,TU,SU;BYSETPOS=-1",
                ";BYMONTHDAY=-1,15",
                ";WKST=SU;BYDAY=SU,WE",
            ]
        ),
    ).map(lambda parts: f"FREQ={parts[0]};INTERVAL={parts[1]}{parts[2]}"),
    begin=st.datetimes(local(2000, 1, 1), local(2004, 12, 31)).map(lambda moment: moment.replace(microsecond=0)),
    days=st.integers(0, 9_000),
)
@settings(max_examples=100, deadline=None)
def test_a_calendar_rule_says_what_a_walk_from_its_start_says(text: str, begin: datetime, days: int) -> None:
    walked = rrulestr(text, dtstart=begin)
    moment = (begin + days * DAY).replace(tzinfo=UTC)
    wanted: Any = walked.after(moment.replace(tzinfo=None))
    if wanted:
        assert rrule(text, start=begin.replace(tzinfo=UTC)).next_after(moment) == wanted.replace(tzinfo=UTC)
    else:
        with pytest.raises(ConfigError, match="no day ever matches"):
            rrule(text, start=begin.replace(tzinfo=UTC))


def test_calendar_rules_in_a_zone() -> None:
    rule = rrule("RRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=30", tz="America/New_York")
    assert ticks(rule, utc(2027, 3, 13, 12), utc(2027, 3, 16)) == [utc(2027, 3, 14, 7), utc(2027, 3, 15, 6, 30)]
    last = rrule("FREQ=WEEKLY;COUNT=3", start=utc(2026, 1, 1, 9))
    assert ticks(last, utc(2025, 1, 1), utc(2030, 1, 1)) == [utc(2026, 1, n, 9) for n in (1, 8, 15)]
    assert len(ticks(rrule("FREQ=DAILY;UNTIL=20260103"), utc(2025, 12, 31, 12), utc(2027, 1, 1))) == 3
    until = rrule("FREQ=DAILY;UNTIL=20260102T230000Z", tz="Europe/Berlin")  # midnight of 3 January in Berlin
    assert ticks(until, utc(2025, 12, 31, 23), utc(2027, 1, 1))[-1] == utc(2026, 1, 2, 23)


def test_intervals_are_elapsed_time() -> None:
    berlin = datetime(2026, 3, 28, 9, tzinfo=ZoneInfo("Europe/Berlin"))
    assert every(days=1, anchor=berlin).next_after(berlin) == utc(2026, 3, 29, 8)
    assert every(minutes=10).next_after(utc(2026, 1, 1, 0, 10)) == utc(2026, 1, 1, 0, 20)
    assert every(hours=1, anchor=utc(2030, 1, 1, 0, 7)).next_after(utc(2026, 1, 1)) == utc(2026, 1, 1, 0, 7)
    assert every(seconds=1.5, anchor=utc(2026, 1, 1)).next_after(utc(2026, 1, 1)) == utc(2026, 1, 1) + HOUR / 2400


def test_start_and_end_are_included() -> None:
    rule = cron("0 0 * * *", start=utc(2026, 1, 2), end=utc(2026, 1, 4))
    assert ticks(rule, utc(2000, 1, 1), utc(2030, 1, 1)) == [utc(2026, 1, n) for n in (2, 3, 4)]
    assert rule.next_after(utc(2026, 1, 3, 23, 59, 59)) == utc(2026, 1, 4)
    assert rule.next_after(utc(2026, 1, 4)) is None
    assert at(utc(2026, 1, 1)).next_after(utc(2026, 1, 1)) is None


@pytest.mark.parametrize("zone", ZONES)
def test_the_ends_of_time(zone: str) -> None:
    for rule in (cron("0 0 * * *", tz=zone), every(days=1), rrule("FREQ=DAILY", tz=zone)):
        assert rule.next_after(datetime.min.replace(tzinfo=UTC))
        assert rule.next_after(datetime.max.replace(tzinfo=UTC)) is None
        assert rule.next_after(datetime.max.replace(tzinfo=ZoneInfo("America/New_York"))) is None
    assert cron("0 0 * * *", tz=zone).next_after(utc(9998, 12, 31, 12)) is None


@pytest.mark.parametrize("rule", [*RULES, cron("@daily", start=utc(2026, 1, 1), end=utc(2027, 1, 1))], ids=repr)
def test_a_rule_is_data(rule: Rule) -> None:
    again = from_data(json.loads(json.dumps(to_data(rule))))
    assert (again, hash(again), repr(again)) == (rule, hash(rule), repr(rule))
    assert again.next_after(utc(2026, 1, 1)) == rule.next_after(utc(2026, 1, 1))


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"kind": "exec"},
        {"kind": "cron", "expression": 5},
        {"kind": "cron", "expression": "0 0 31 4 *"},
        {"kind": "every", "interval": "PT0S"},
        {"kind": "rrule", "rule": "FREQ=DAILY", "tz": "../etc/passwd"},
    ],
)
def test_data_that_is_no_rule(data: object) -> None:
    with pytest.raises(DecodeError, match="stored form"):
        from_data(data)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 31W 2 *",
        "@reboot",
        "0 0 * * MON#6",
        "0 0 0 * *",
        "0 0 * * FRI-MON",
        "*/0 * * * *",
        "a b c d e",
        "0 0 30W 2 *",
        "1,,2 * * * *",
        "0 0 L/2,3L * *",
        "x" * 1_000,
        "0 0 * 2 * " + "9",
    ],
)
def test_what_is_no_cron_expression(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a cron expression (?s:.)+came"):
        cron(expression)


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "DAILY",
        "FREQ=HOURLY",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;INTERVAL=0",
        "FREQ=DAILY;INTERVAL=99999",
        "FREQ=DAILY;COUNT=2;UNTIL=20300101",
        "FREQ=DAILY;UNTIL=soon",
        "FREQ=DAILY;FREQ=DAILY",
        "FREQ=DAILY;BYNOON=1",
        "FREQ=DAILY;BYHOUR=25",
        "DTSTART:20200101T000000\nRRULE:FREQ=DAILY",
    ],
)
def test_what_is_no_calendar_rule(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a (calendar )?rule (?s:.)+came"):
        rrule(rule, start=utc(2026, 1, 1))


def test_other_mistakes() -> None:
    with pytest.raises(ConfigError, match="did you mean 'Europe/Berlin'"):
        cron("@daily", tz="Europe/Berlim")
    with pytest.raises(ConfigError, match="an offset alone"):
        cron("@daily", tz=utc(2026, 1, 1).astimezone().tzinfo)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="end after the start"):
        cron("@daily", start=utc(2027, 1, 1), end=utc(2026, 1, 1))
    with pytest.raises(ConfigError, match="from 1 second"):
        every()
    with pytest.raises(ConfigError, match="from which COUNT counts"):
        rrule("FREQ=DAILY;COUNT=2")
    for call in (at, cron("@daily").next_after):
        with pytest.raises(ConfigError, match="a datetime with a zone"):
            call(local(2026, 1, 1))
