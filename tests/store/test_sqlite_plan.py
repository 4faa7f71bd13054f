"""SQLite: with as many finished and scheduled jobs as you like, a claim walks along indexes, no further than before."""

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.world import Crew, SQLiteWorld, ends, new, wants
from windlass.model import Ending, Filter, State, Verb
from windlass.store.contract import BATCH

pytestmark = pytest.mark.xdist_group("backlog")
MANY = 300_000
CLAIMING = (
    "idle exchange",
    "put",
    "claim",
    "repeat",
    "settle and claim",
    "retry, promote and claim",
    "release",
    "lift",
)
"""Calls on a job's way: their plans are looked at one by one. Of the others it is enough that they are short."""

STRANGE = 50_000
STEP = 10
"""VM instructions between two calls of the counter."""

COPIES = """
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {count})
INSERT INTO jobs (id, line, queue, task, priority, rank, state, run_at, args, attempt, fence, runner, seq,
    enqueued_at, started_at, finished_at)
SELECT printf('%08x-{kind}-7000-8000-%012x', n, n), '{queue}/{task}', '{queue}', '{task}', 0, {at} + n, '{state}',
    {at} + n, '[[],{{}}]', {run}, {run}, CASE WHEN {run} THEN 'gone' END, {run}, {at}, {at},
    CASE WHEN {run} THEN {at} + n END
FROM n
"""


class Meter:
    """What the connections of a store do: statements as they ran, and VM instructions."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.steps = 0

    def watch(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        connection.set_trace_callback(self.statements.append)
        connection.set_progress_handler(self._count, STEP)
        return connection

    def _count(self) -> int:
        self.steps += STEP
        return 0

    def reset(self) -> None:
        self.statements.clear()
        self.steps = 0


def fill(path: Path, now: float) -> None:
    """The backlog, through the schema of the store."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -200000")
    db.execute("BEGIN")
    past, future = int((now - 86_400) * 1e6), int((now + 86_400) * 1e6)
    known = {"queue": "default", "task": "work"}
    db.execute(COPIES.format(count=MANY, kind="0001", state="succeeded", at=past, run=1, **known))
    db.execute(COPIES.format(count=MANY, kind="0002", state="scheduled", at=future, run=0, **known))
    db.execute(
        COPIES.format(count=STRANGE, kind="0003", state="ready", at=past, run=0, queue="default", task="strange")
    )
    db.execute("COMMIT")
    db.close()


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the database of a store that has a long past and a long future."""
    folder = tmp_path_factory.mktemp("backlog")
    world = SQLiteWorld(folder)

    async def make() -> float:
        await world.open()
        await world.close()
        return await world.now()

    fill(folder / "jobs.db", asyncio.run(make()))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter()
    connect = sqlite3.connect

    def metered(*args: Any, **more: Any) -> sqlite3.Connection:
        return meter.watch(connect(*args, **more))

    monkeypatch.setattr(sqlite3, "connect", metered)
    return meter


async def life(world: SQLiteWorld, meter: Meter) -> dict[str, tuple[int, list[str]]]:
    """What each kind of call costs in VM instructions, and its statements."""
    found: dict[str, tuple[int, list[str]]] = {}

    def note(name: str) -> None:
        found[name] = (meter.steps, list(meter.statements))
        meter.reset()

    crew = await world.crew()
    meter.reset()
    await crew.exchange(demand=wants(10))
    note("idle exchange")
    jobs = [new(queue=f"q{n % 3}", priority=n % 2) for n in range(30)]
    await world.put(*jobs)
    note("put")
    claims = await crew.claim(10)
    assert len(claims) == 10
    note("claim")
    await crew.again(demand=wants(10))
    note("repeat")
    await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims[:5]), demand=wants(5))
    note("settle and claim")
    await crew.exchange(*(ends(claim, Ending.RETRY, delay=0) for claim in claims[5:]), demand=wants(5))
    note("retry, promote and claim")
    await crew.beat()
    note("beat")
    await crew.beat(seq=crew.seq)
    note("reconcile")
    await world.store.reap()
    note("reap")
    await world.put(new(priority=-100, ahead=-1))
    meter.reset()
    assert await world.store.lift() == 1
    note("lift")
    await world.store.prune({State.SUCCEEDED: 1e9, State.FAILED: 1e9, State.CANCELLED: 1e9})
    note("prune")
    await life_of_operators(world, note, crew, jobs[0].id)
    return found


async def life_of_operators(world: SQLiteWorld, note: Any, crew: Crew, id: str) -> None:
    await world.store.act([id], Verb.CANCEL)
    note("cancel")
    await world.store.get([id])
    note("get")
    await world.store.find(Filter(state=State.SUCCEEDED), 20)
    note("find what is over")
    await world.store.find(Filter(state=State.SCHEDULED), 20)
    note("find what is to come")
    await world.store.find(Filter(state=State.READY), 20)
    note("find what is ready")
    await world.store.find(Filter(), 20)
    note("find all")
    await crew.release()
    note("release")


async def test_calls_cost_the_same_however_long_the_backlog(backlog: Path, tmp_path: Path, meter: Meter) -> None:
    small, large = SQLiteWorld(tmp_path), SQLiteWorld(backlog)
    await small.open()
    await large.open()
    before, after = await life(small, meter), await life(large, meter)
    plans = sqlite3.connect(backlog / "jobs.db")
    for name, (steps, statements) in after.items():
        most = before[name][0] + (500 if name in CLAIMING else 3_000)
        assert steps <= most, f"{name}: {before[name][0]} VM steps when empty, {steps} now"
        for statement in statements if name in CLAIMING else ():
            check_plan(plans, name, statement)
    plans.close()
    await small.close()
    await large.close()


def check_plan(db: sqlite3.Connection, name: str, statement: str) -> None:
    """No statement may walk the table of jobs, or an index of it from its start."""
    if not re.match(r"(SELECT|UPDATE|DELETE|INSERT|WITH)", statement.strip()):
        return
    for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {statement}"):
        assert not re.match(r"SCAN (jobs|attempts|tags|marks)\b", detail), f"{name}: {detail}\n{statement}"


async def test_a_million_due_at_once_cost_a_batch_each_time(backlog: Path, meter: Meter) -> None:
    world = SQLiteWorld(backlog)
    await world.open()
    crew = await world.crew()
    await world.advance(2 * 86_400)
    costs: list[int] = []
    for _ in range(3):
        meter.reset()
        answer = await crew.exchange(demand=wants(10))
        assert (len(answer.claimed), answer.next_due) == (10, 0)
        costs.append(meter.steps)
    assert max(costs) < 200 * BATCH, "promoting costs about 120 VM steps a job"
    (line,) = [line for line in await world.store.stats() if line.state is State.READY and line.task == "work"]
    assert 3 * BATCH - 30 <= line.count <= 3 * BATCH + 30
    await world.close()


async def test_the_check_sees_a_bad_plan(tmp_path: Path, meter: Meter) -> None:
    world = SQLiteWorld(tmp_path)
    await world.open()
    db = sqlite3.connect(tmp_path / "jobs.db")
    with pytest.raises(AssertionError, match="SCAN jobs"):
        check_plan(db, "bad", "SELECT id FROM jobs WHERE attempt > 3")
    db.close()
    await world.close()
