"""PostgreSQL: with a long past, a long future and many jobs of an unknown task, a call touches no more than before."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests import servers
from tests.store.postgres_world import PostgresWorld
from tests.store.test_gates import behind, declare
from tests.store.world import Crew, ends, new, wants
from windlass.model import Ending, Filter, State
from windlass.store.postgres.link import AsyncLink, Rows
from windlass.store.postgres.statements import Call

MANY = 200_000
DAY = 86_400_000_000
ONCE = ("enlist", "join_worker", ".save(")
"""Calls that must not be made twice."""

BACKLOG = """
INSERT INTO {table} (id, line, queue, task, priority, rank, state, run_at, args, attempt, fence, runner, seq,
    enqueued_at, started_at, finished_at)
SELECT format('%s-{kind}-7000-8000-%s', lpad(to_hex(n), 8, '0'), lpad(to_hex(n), 12, '0')), 'default/{task}',
    'default', '{task}', 0, {at} + n, '{state}', {at} + n, '[[],{{}}]', {run}, {run},
    CASE WHEN {run} = 1 THEN 'gone' END, {run}, {at}, CASE WHEN {run} = 1 THEN {at} END,
    CASE WHEN {run} = 1 THEN {at} + n END
FROM generate_series(1, {count}) n
"""


class Meter:
    """The blocks that the calls of a store touch. Each call is made twice, first under EXPLAIN: nearly all may be
    repeated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks = 0
        rows = AsyncLink.rows

        async def metered(link: AsyncLink, first: Call, then: Callable[[], Call] | None = None, **more: Any) -> Rows:
            if any(name in first.sql for name in ONCE):
                return await rows(link, first, then, **more)
            explained = await rows(link, Call(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {first.sql}", first.params))
            self.note(explained[0][0])
            return await rows(link, first, then, **more)

        monkeypatch.setattr(AsyncLink, "rows", metered)

    def note(self, explained: Any) -> None:
        plan = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
        self.blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    def take(self) -> int:
        """The blocks since this was last asked."""
        taken, self.blocks = self.blocks, 0
        return taken


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    with monkeypatch.context() as patch:
        yield Meter(patch)


def most(before: int) -> int:
    """What a call may touch that touched `before` of an empty store. Indexes are a level deeper now, and
    what is planned anew, because statistics came in, reads catalogs; a walk along the backlog takes 2,000 and more."""
    return before + 1_000


def add(world: PostgresWorld, table: str, kind: str, state: str, task: str, at: int, run: int) -> None:
    """Many jobs, through the schema of the store."""
    text = BACKLOG.format(table=table, kind=kind, state=state, task=task, at=at, run=run, count=MANY)
    world.direct.execute(text.encode())


async def fill(world: PostgresWorld) -> None:
    """The backlog."""
    now = round((await world.now()) * 1e6)
    add(world, "history", "0001", "succeeded", "work", now - DAY, 1)
    add(world, "live", "0002", "scheduled", "work", now + DAY, 0)
    add(world, "live", "0003", "ready", "strange", now - DAY, 0)
    world.direct.execute("INSERT INTO lines VALUES ('default/strange', 0, %s, %s)", (now - DAY, now))
    for table in ("live", "history"):
        world.direct.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))


async def life(world: PostgresWorld, meter: Meter) -> dict[str, int]:
    """The fewest blocks of three times that each kind of call touches: a plan that is made anew reads catalogs."""
    crew = await world.crew()
    times = [await one_life(world, crew, meter) for _ in range(3)]
    return {name: min(one[name] for one in times) for name in times[0]}


async def one_life(world: PostgresWorld, crew: Crew, meter: Meter) -> dict[str, int]:
    found: dict[str, int] = {}
    meter.take()
    await crew.exchange(demand=wants(10))
    found["exchange"] = meter.take()
    await world.put(*(new(queue=f"q{n % 3}", priority=n % 2) for n in range(30)))
    found["put of 30"] = meter.take()
    await world.put(new())
    found["put of one"] = meter.take()
    claims = await crew.claim(10)
    assert len(claims) == 10
    found["claim"] = meter.take()
    await crew.again(demand=wants(10))
    found["repeat"] = meter.take()
    await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims[:5]), demand=wants(5))
    found["settle and claim"] = meter.take()
    await crew.exchange(*(ends(claim, Ending.RETRY, delay=0) for claim in claims[5:]), demand=wants(5))
    found["retry, promote and claim"] = meter.take()
    await crew.beat()
    if survey := world.store._surveying:  # type: ignore[attr-defined]
        await survey
    found["beat and survey"] = meter.take()
    await crew.beat(seq=crew.seq)
    found["reconcile"] = meter.take()
    await world.store.reap()
    found["reap"] = meter.take()
    await world.put(new(priority=-100, ahead=-1))
    meter.take()
    await world.store.lift()
    found["lift"] = meter.take()
    return found


async def counted(world: PostgresWorld, meter: Meter) -> int:
    """The blocks that a count of all jobs touches."""
    meter.take()
    await world.store.count(Filter(state=State.READY, task="strange"))
    return meter.take()


async def test_calls_touch_the_same_however_long_the_backlog(tmp_path: Path, meter: Meter) -> None:
    world = PostgresWorld(tmp_path)
    await world.open()
    before, empty = await life(world, meter), await counted(world, meter)
    await world.close()
    await world.open()
    await fill(world)
    after = await life(world, meter)
    for name, blocks in after.items():
        assert blocks <= most(before[name]), f"{name}: {before[name]} blocks when empty, {blocks} now"
    assert await counted(world, meter) > most(empty), "a walk along the backlog would have been seen"
    await world.close()


async def test_a_blocked_line_costs_the_same_however_long(tmp_path: Path, meter: Meter) -> None:
    world = PostgresWorld(tmp_path)
    await world.open()
    crew = await world.crew()

    async def turns(count: int) -> int:
        """The most blocks of a settle and claim."""
        blocks = []
        (claim,) = await crew.claim(1)
        for _ in range(count):
            meter.take()
            (claim,) = (await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(1))).claimed
            blocks.append(meter.take())
        await crew.exchange(ends(claim, Ending.SUCCEEDED))
        return max(blocks)

    await declare(world, limit=1)
    await world.put(*(new("strange") for _ in range(300)), *(behind("g") for _ in range(21)))
    world.direct.execute("ANALYZE live")  # as the server does by itself, now with few jobs
    before = await turns(20)  # with plans that are kept from now on
    await world.put(*(behind("g") for _ in range(3_000)))
    after = await turns(3)
    assert after <= most(before), f"{before} blocks with 21 jobs, {after} with 3,000"
    await world.close()


async def test_a_settle_reads_no_dead_rows(tmp_path: Path, meter: Meter) -> None:
    """Somebody's old snapshot keeps many from being vacuumed, and the statistics say that next to none are alive."""
    world = PostgresWorld(tmp_path)
    await world.open()
    before = await life(world, meter)
    await world.close()
    await world.open()
    with psycopg.connect(servers.postgres_url()) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT 1 FROM pg_class LIMIT 1")
        add(world, "live", "0003", "ready", "strange", round((await world.now()) * 1e6) - DAY, 0)
        world.direct.execute("DELETE FROM live")
        world.direct.execute("VACUUM ANALYZE live")
        after = await life(world, meter)
    for name in ("settle and claim", "retry, promote and claim"):
        assert after[name] <= most(before[name]), f"{name}: {before[name]} blocks when empty, {after[name]} now"
    await world.close()


async def test_a_beat_reads_no_dead_rows_of_jobs_that_are_to_be_lifted_later(tmp_path: Path, meter: Meter) -> None:
    """Somebody's old snapshot keeps them in the index."""
    world = PostgresWorld(tmp_path)
    await world.open()
    with psycopg.connect(servers.postgres_url()) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT 1 FROM pg_class LIMIT 1")
        add(world, "live", "0003", "ready", "strange", round((await world.now()) * 1e6) + DAY, 0)
        world.direct.execute("UPDATE live SET ahead = -1 WHERE rank % 10 = 0")
        world.direct.execute("DELETE FROM live")
        world.direct.execute("VACUUM ANALYZE live")
        for _ in range(2):
            meter.take()
            found = world.direct.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT lags(0)").fetchone()
            meter.note(found and found[0])
    assert meter.take() < 200
    await world.close()
