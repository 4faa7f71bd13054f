"""Statistics: what was told comes back summed up, whatever the step, and does not grow."""

import random

import pytest
from msgspec.structs import replace

from tests.store.model import Chronicle
from tests.store.world import World
from windlass.errors import ConfigError
from windlass.model import EMPTY, Depth, State, Tally
from windlass.store.contract import OTHER, STEPS

HOUR, DAY = 3_600.0, 86_400.0


def some(rng: random.Random, minute: int) -> Tally:
    """A row of a few of the numbers; the rest are zeros, as in life."""
    waits, runs = list(EMPTY), list(EMPTY)
    waits[rng.randrange(len(EMPTY))] = runs[rng.randrange(len(EMPTY))] = rng.randrange(9)
    counts = dict.fromkeys(rng.sample(["started", "succeeded", "failed", "cancelled", "retried", "lost"], 2), 3)
    return Tally(
        minute=minute,
        queue=rng.choice("xy"),
        task=rng.choice("ab"),
        waited=rng.randrange(100) / 4,
        ran=rng.randrange(100) / 4,
        waits=tuple(waits),
        runs=tuple(runs),
        **counts,
    )


def mark(rng: random.Random, minute: int) -> Depth:
    return Depth(
        minute=minute, queue=rng.choice("xy"), ready=rng.randrange(9), running=rng.randrange(9), oldest=rng.randrange(9)
    )


async def test_a_series_is_the_sum_of_what_was_told(world: World) -> None:
    """By the minute for a day and by the hour before, through the drops of retention; and not of a time to come."""
    rng, model = random.Random(7), Chronicle()
    started = await world.now()
    for pause in (0.0, 30.0, 20 * HOUR, 2 * DAY, 27 * DAY, 50.0):
        await world.advance(pause)
        now = await world.now()
        ages = (-7, 0, 1, 1, 2, 40, 61, 1_000, 1_439, 1_490, 1_530, 9_999, 50_000)
        minutes = [int(now // 60) - age for age in ages]
        rows, depths = [some(rng, minute) for minute in minutes], [mark(rng, minute) for minute in minutes[:6]]
        await world.store.tally(rows, depths)
        model.tally(rows, depths, now)
        while await world.store.prune(dict.fromkeys(State, 0.0)):
            pass
        for since, step in ((now - 120, 60), (now - 1.5 * DAY, 300), (now - 26 * HOUR, 5_400), (started, 86_400)):
            for queue in (None, "x"):
                given = (since, now + 90, step)
                assert list(await world.store.series(*given, queue)) == model.series(*given, now, queue)
                assert list(await world.store.depths(*given, queue)) == model.depths(*given, now, queue)
    assert await world.store.series(now - 90 * DAY, now - 31 * DAY, 86_400) == []


async def test_no_minute_has_more_lines_than_a_store_keeps_apart(world: World) -> None:
    minute = int(await world.now() // 60)
    rows = [Tally(minute=minute, queue=f"q{n % 7}", task=f"t{n}", started=1, waited=0.5) for n in range(700)]
    for part in (rows[:300], rows[300:], rows[:300]):
        await world.store.tally(part, [Depth(minute=minute, queue=row.task, ready=3) for row in part])
    for step in (60, 3_600):
        found = await world.store.series(minute * 60, minute * 60 + 1, step)
        assert 100 < len(found) < 600
        assert sum(row.started for row in found) == 1_000
        assert sum(row.waited for row in found) == 500
        (rest,) = (row for row in found if row.queue == OTHER)
        assert rest == Tally(minute=found[0].minute, queue=OTHER, task=OTHER, started=rest.started, waited=rest.waited)
        deep = await world.store.depths(minute * 60, minute * 60 + 1, step)
        assert 100 < len(deep) < 600
        assert replace(deep[0], queue="", minute=0) == Depth(minute=0, queue="", ready=3)


async def test_a_series_is_of_whole_minutes_and_not_too_many(world: World) -> None:
    for read in (world.store.series, world.store.depths):
        for step in (0, 30, 90, -60, 60.0, True):
            with pytest.raises(ConfigError, match="whole minutes"):
                await read(0.0, 600.0, step)  # type: ignore[arg-type]
        assert await read(0.0, STEPS * 60.0, 60) == []
        for until in (STEPS * 60.0 + 1, float("inf"), float("nan")):
            with pytest.raises(ConfigError, match="expected"):
                await read(0.0, until, 60)
