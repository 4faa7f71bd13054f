"""The last minute from sums by minute, read again and again: nothing is made up or counts twice, little is kept."""

import random

import pytest

from windlass.model import EMPTY, Line, State, Tally
from windlass.web.chart import Point
from windlass.web.minute import LONG, STEP, Minute
from windlass.worker.tallies import rhythm

BEGAN = 1_800_000_030.0


def row(now: float, done: int, queue: str = "mail", **more: int) -> Tally:
    """So many jobs of the minute that it is; they waited a quarter of a second or less."""
    waits = (*EMPTY[:4], done, *EMPTY[5:])
    return Tally(minute=int(now // 60), queue=queue, task="t", succeeded=done, waits=waits, runs=waits, **more)


def line(queue: str, count: int, state: State = State.READY) -> Line:
    return Line(queue=queue, task="t", state=state, count=count)


def jobs(points: list[Point], seconds: float = STEP) -> float:
    """How many the points come to, if each is of so many seconds."""
    return sum((one.succeeded or 0) * seconds / 60 for one in points)


def test_at_first_only_the_average_is_known() -> None:
    minute = Minute()
    early = Tally(minute=int(BEGAN // 60) - 2, queue="mail", task="t", succeeded=9_000)
    last = Tally(minute=int(BEGAN // 60) - 1, queue="mail", task="t", succeeded=600, failed=60)
    minute.add(BEGAN, [early, last, row(BEGAN, 300)], [line("mail", 7), line("mail", 5, State.RUNNING)], 1)
    points = minute.points(BEGAN)
    assert [one.at for one in points] == [*range(int(BEGAN) - LONG, int(BEGAN) + 1, STEP)]
    *told, late = points
    since, until = minute.before(BEGAN) or (0.0, 0.0)
    assert (since, BEGAN - until) == (1_799_999_940, 2.5)
    assert {round(one.succeeded or 0, 6) for one in told} == {round(900 * 60 / (until - since), 6)}
    assert {round(one.failed or 0, 6) for one in told} == {round(60 * 60 / (until - since), 6)}
    assert (late.succeeded, late.failed, late.wait_p95) == (None, None, None), "nobody told of that yet"
    assert [one.depth for one in points] == [None] * 12 + [7]
    assert jobs(minute.points(BEGAN, "post")) == 0
    assert minute.before(BEGAN + LONG) is None


def test_an_empty_store_has_an_empty_minute() -> None:
    minute = Minute()
    minute.add(BEGAN, [], [], 0)
    points = minute.points(BEGAN)
    assert [one.succeeded for one in points] == [0.0] * 12 + [None]
    assert {one.wait_p50 for one in points} == {None}


def test_workers_tell_often_but_not_too_often_in_all() -> None:
    assert [rhythm(workers) for workers in (0, 1, 24, 48, 96, 1_000)] == [3, 3, 3, 6, 12, 12]


@pytest.mark.parametrize("workers", [1, 7, 60])
def test_a_steady_pace_is_seen_as_such(workers: int) -> None:
    """Each of some workers ends 10 jobs a second, and tells of them every few seconds."""
    random.seed(workers)
    minute, told, due = Minute(), [0.0] * workers, [random.uniform(0, 3) for _ in range(workers)]
    sums: dict[int, int] = {}
    every = max(3.0, workers / 8)
    for tick in range(1_800):
        at = tick / 10
        for n in range(workers):
            if at >= due[n]:
                key = int((BEGAN + at) // 60)
                sums[key] = sums.get(key, 0) + round(10 * (at - told[n]))
                told[n], due[n] = at, at + random.uniform(0.8, 1.2) * every
        if tick % 16 == 0:
            now = BEGAN + at
            minute.add(now, [row(key * 60, done) for key, done in sums.items() if key * 60 > now - 180], [], workers)
    points = [one.succeeded for one in minute.points(BEGAN + 179) if one.succeeded is not None]
    assert len(points) >= 8
    assert all(0.5 * 600 * workers < one < 1.6 * 600 * workers for one in points), points
    assert sum(points) / len(points) == pytest.approx(600 * workers, rel=0.1)


def test_a_burst_shows_where_it_was_and_all_of_it() -> None:
    minute = Minute()
    for second in range(0, 50, 2):
        now = BEGAN + second
        done = 240 if second >= 20 else 0
        rows = [row(BEGAN, done)] + ([row(BEGAN, 4, "post")] if second >= 40 else [])
        minute.add(now, rows, [line("mail", 0 if done else 240)], 1)
    points = minute.points(now)
    assert jobs(points) == pytest.approx(244)
    assert jobs(minute.points(now, "mail")) == pytest.approx(240)
    at = [one.at - BEGAN for one in points if one.succeeded]
    assert (at[0], at[-1]) == (10, 35), "a worker tells late, but not so late"
    assert [one.depth for one in points if one.depth is not None] == [240] * 4 + [0] * 6
    assert {round(one.wait_p95, 4) for one in points if one.wait_p95 is not None} == {0.2425}


def test_the_turn_of_the_minute_and_what_is_told_late() -> None:
    minute, now = Minute(), BEGAN
    sums = {now: 100.0}
    while now < BEGAN + 60:
        minute.add(now, [row(at, int(done)) for at, done in sums.items()], [], 1)
        now += 2
        at = BEGAN if now < BEGAN + 34 else BEGAN + 30  # of the minute before, four seconds into the next
        sums[at] = sums.get(at, 0) + 20
    points = minute.points(now - 2)
    known = [round(one.succeeded or 0) for one in points if one.at > BEGAN + 5 and one.succeeded is not None]
    assert set(known) == {600}


def test_whoever_comes_back_begins_anew() -> None:
    minute = Minute()
    minute.add(BEGAN, [row(BEGAN, 500)], [], 1)
    minute.add(BEGAN + 2, [row(BEGAN, 520)], [], 1)
    minute.add(BEGAN + 90, [row(BEGAN, 5_000), row(BEGAN + 90, 60)], [], 1)
    assert minute.before(BEGAN + 90) == (BEGAN + 30, BEGAN + 87.5)
    assert max(one.succeeded or 0 for one in minute.points(BEGAN + 90)) == pytest.approx(60 * 60 / 57.5)


def test_another_store_or_another_time_begins_anew() -> None:
    for later, done in ((2.0, 5), (-600.0, 500)):
        minute = Minute()
        minute.add(BEGAN, [row(BEGAN, 500)], [], 1)
        minute.add(BEGAN + later, [row(BEGAN + later, done)], [], 1)
        assert minute.before(BEGAN + later) is not None
        assert all((one.succeeded or 0) >= 0 for one in minute.points(BEGAN + later))
        assert jobs(minute.points(BEGAN + later)) <= done


def test_little_is_kept() -> None:
    minute = Minute()
    for tick in range(3_000):
        now = BEGAN + tick / 10
        rows = [row(now, tick + n, f"q{n}") for n in range(3)]
        minute.add(now, [*rows, row(now - 60, 9_999, f"gone{int(now)}")], [line("q1", tick)], 1)
    assert len(minute._steps) <= LONG / STEP + 2
    assert len(minute._depths) <= LONG / STEP + 2
    assert len(minute._known) <= LONG + 5
    assert len(minute._read) == 4
