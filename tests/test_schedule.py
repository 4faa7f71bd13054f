"""Which ticks fire at a moment, whatever happened in between: pure, on random moments."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass import cron, every, rrule
from windlass.call import Call
from windlass.schedule import Course, Fire, Plan, due_of, late_by, look, newest_ticks, read, ticks_between, write
from windlass.timing import Rule

BEGIN = datetime(2026, 3, 28, 12, 0, tzinfo=UTC).timestamp()
RULES: list[Rule] = [
    every(seconds=7),
    cron("*/5 * * * *"),
    cron("30 2 * * *", tz="Europe/Berlin"),
    cron("*/20 * 3 * * MON"),
    rrule("FREQ=DAILY;BYHOUR=9,17;BYMINUTE=0"),
]
CALL = Call(task="work", args=b"[]")
rules = st.sampled_from(RULES)
waits = st.lists(st.one_of(st.floats(0.001, 30), st.floats(0.001, 40_000)), min_size=1, max_size=30)


def course(rule: Rule, **given: object) -> Course:
    return Course(plan=msgspec.convert({"rule": rule, "call": CALL, **given}, Plan), cursor=BEGIN)


@settings(deadline=None)
@given(rules, st.floats(0, 60_000), st.integers(1, 20))
def test_the_newest_ticks_are_those_of_a_plain_walk(rule: Rule, span: float, most: int) -> None:
    assert newest_ticks(rule, BEGIN, BEGIN + span, most) == list(ticks_between(rule, BEGIN, BEGIN + span))[-most:]


def test_the_newest_ticks_of_a_year_of_seconds_are_found_at_once() -> None:
    year = 366 * 86_400.0
    assert newest_ticks(every(seconds=1), BEGIN, BEGIN + year, 3) == [BEGIN + year - 2, BEGIN + year - 1, BEGIN + year]
    assert len(newest_ticks(cron("* * 0 1 1 *"), BEGIN, BEGIN + year, 1_000)) == 1_000  # each second of one hour a year


@settings(deadline=None)
@given(rules, waits, st.sampled_from([0.0, 3.0, 900.0]))
def test_all_fires_each_tick_once_and_never_early(rule: Rule, gaps: list[float], jitter: float) -> None:
    now, at, fired = BEGIN, course(rule, catch_up="all", most=1_000, jitter=jitter), list[float]()
    for gap in gaps:
        now += min(gap, 6_000)  # fewer than `most` ticks
        fire = look("s", at, now, busy=False)
        assert fire.due is not None
        assert fire.due > now
        assert all(tick + late_by("s", at.plan, tick) <= now for tick in fire.ticks)
        fired += fire.ticks
        at = read(write(fire.course))
    ticks = ticks_between(rule, BEGIN, now)
    assert fired == [tick for tick in ticks if tick + late_by("s", at.plan, tick) <= now]


@settings(deadline=None)
@given(rules, waits)
def test_latest_fires_the_newest_missed_tick_only(rule: Rule, gaps: list[float]) -> None:
    now, at = BEGIN, course(rule)
    for gap in gaps:
        fire = look("s", at, now + gap, busy=False)
        assert list(fire.ticks) == list(ticks_between(rule, now, now + gap))[-1:]
        now, at = now + gap, fire.course


def day_down(catch_up: str, **given: object) -> Fire:
    """An hourly schedule after a day in which nobody fired."""
    return look("s", course(every(hours=1), catch_up=catch_up, **given), BEGIN + 86_400 + 1_800, busy=False)


def test_after_a_day_without_workers() -> None:
    assert len(day_down("skip").ticks) == 0
    assert day_down("latest").ticks == (BEGIN + 86_400,)
    assert day_down("all", most=5).ticks == tuple(BEGIN + 3_600 * hour for hour in range(20, 25))
    assert len(day_down("all").ticks) == 24
    for catch_up in ("skip", "latest", "all"):
        assert day_down(catch_up).due == BEGIN + 25 * 3_600


def test_a_tick_that_is_a_little_late_is_not_missed() -> None:
    at = course(cron("0 5 * * *"), catch_up="skip")
    tick = next(ticks_between(at.plan.rule, BEGIN, BEGIN + 86_400))
    assert look("s", at, tick + 59, busy=False).ticks == (tick,)
    late = look("s", at, tick + 61, busy=False)
    assert (late.ticks, late.course.cursor) == ((), tick)


def test_runs_are_counted() -> None:
    at = course(every(seconds=10), catch_up="all", runs=3)
    first = look("s", at, BEGIN + 25, busy=False)
    last = look("s", first.course, BEGIN + 65, busy=False)
    assert (first.ticks, last.ticks, last.due) == ((BEGIN + 10, BEGIN + 20), (BEGIN + 30,), None)
    assert look("s", last.course, BEGIN + 99, busy=False).ticks == ()


@pytest.mark.parametrize("catch_up", ["latest", "all"])
def test_skip_drops_what_comes_while_a_job_is_under_way(catch_up: str) -> None:
    at = course(every(seconds=30), overlap="skip", catch_up=catch_up)
    busy = look("s", at, BEGIN + 95, busy=True)
    assert (busy.ticks, busy.course.waiting, busy.due) == ((), None, BEGIN + 120)
    assert look("s", busy.course, BEGIN + 121, busy=False).ticks == (BEGIN + 120,)


@pytest.mark.parametrize("overlap", ["queue", "cancel"])
def test_one_tick_waits_for_the_job_under_way(overlap: str) -> None:
    at = course(every(seconds=30), overlap=overlap, catch_up="all")
    first = look("s", at, BEGIN + 31, busy=True)
    assert (first.ticks, first.cancel, first.due) == ((), overlap == "cancel", BEGIN + 32)
    second = look("s", first.course, BEGIN + 61, busy=True)
    assert second.course.waiting == BEGIN + 60
    free = look("s", second.course, BEGIN + 62, busy=False)
    assert (free.ticks, free.cancel, free.course.waiting, free.due) == ((BEGIN + 60,), False, None, BEGIN + 90)


def test_a_paused_schedule_is_never_due() -> None:
    at = msgspec.structs.replace(course(every(seconds=1)), paused=True)
    assert due_of("s", at) is None
    assert look("s", at, BEGIN + 9, busy=False) == Fire((), at, None)
