"""Transactional completion: a task's writes and its success are one commit, whatever is killed in between."""

import asyncio
import sys
import uuid
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.proxy import Proxy
from tests.servers import postgres_url
from tests.worker.rig import Rig, until
from windlass import App, ConfigError, JobFailed, State, current
from windlass.errors import Evicted
from windlass.model import Claim, Demand, Ending, Lane, RunnerInfo, WorkerInfo
from windlass.store.postgres import statements
from windlass.vault import Vault
from windlass.worker.completion import Transactions
from windlass.worker.pipeline import Running, perform, perform_blocking

LANES = ["book_in_thread", "book_in_process", "book_on_loop", "book_on_loop_in_process"]
HERE = ["book_in_thread", "book_on_loop"]
AT = "tests.ledger:app"


class Ledger:
    """A store with a table of the user's beside it, and workers."""

    def __init__(self, rig: Rig, module: ModuleType) -> None:
        self.rig = rig
        self.tasks = module
        self.app: App = module.app

    def task(self, lane: str) -> Any:
        return getattr(self.tasks, lane)

    def rows(self, job: str | None = None) -> int:
        where = "" if job is None else f" WHERE job = '{job}'"
        return int(self.tasks.look(f"SELECT count(*) FROM {self.tasks.TABLE}{where}")[0][0])


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    rig, name = Rig(tmp_path), f"t{uuid.uuid4().hex[:12]}"
    if request.param == "postgresql":
        rig.url = f"{postgres_url()}?schema={name}"
    for key, value in (("WINDLASS_URL", rig.url), ("LEDGER", f"ledger_{name}")):
        monkeypatch.setenv(key, value)
        rig.environment[key] = value
    sys.modules.pop("tests.ledger", None)
    ledger = Ledger(rig, import_module("tests.ledger"))
    ledger.tasks.look(f"CREATE TABLE {ledger.tasks.TABLE} (job text, n integer)")
    yield ledger
    rig.close()
    ledger.app.close()
    if request.param == "postgresql":
        ledger.tasks.look(f"DROP TABLE {ledger.tasks.TABLE}; DROP SCHEMA IF EXISTS {name} CASCADE")


# What is written, and when


def test_writes_and_success_are_one_commit_on_every_lane(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", "-c", "8", app=AT):
        jobs = [ledger.task(lane).enqueue(n) for n in range(10) for lane in LANES]
        assert [job.result(timeout=60) for job in jobs] == [n for n in range(10) for _ in LANES]
        others = [ledger.task(lane).enqueue(1, "late") for lane in LANES]
        until(lambda: all(job.refresh().state == "succeeded" for job in others), "the jobs with another result")
        assert [job.record.result for job in others] == [b'"late"'] * len(LANES)
    assert [ledger.rows(job.id) for job in jobs] == [1] * len(jobs)
    assert [job.attempts for job in jobs if job.refresh().attempts or job.attempt != 1] == []
    assert "was dropped" not in ledger.rig.text()


@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_effects_happen_once_when_the_process_is_killed(ledger: Ledger, where: str) -> None:
    with ledger.rig.worker("-p", "1", "-c", "4", app=AT):
        for lane in LANES if where == "inside" else LANES[:2]:
            job = ledger.task(lane).enqueue(7, where)
            assert job.result(timeout=60) == 7
            assert ledger.rows(job.id) == 1
            assert job.refresh().record.fence == (1 if where == "after" else 2)


def test_an_error_in_the_block_rolls_back_and_goes_its_usual_way(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", "-c", "8", app=AT):
        jobs = {
            (lane, how): ledger.task(lane).enqueue(1, how)
            for lane in LANES
            for how in ("raise", "snooze", "unstorable", "fail")
        }
        for (_, how), job in jobs.items():
            if how == "fail":
                with pytest.raises(JobFailed, match="never"):
                    job.result(timeout=60)
            else:
                assert job.result(timeout=60) == 1
    assert [ledger.rows(job.id) for job in jobs.values()] == [1, 1, 1, 0] * len(LANES)
    assert [job.refresh().attempt for job in jobs.values()] == [2, 1, 2, 1] * len(LANES)
    assert "not this time" in str(jobs[LANES[0], "raise"].attempts[0].failure)


def test_what_comes_after_the_block_changes_nothing(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", app=AT):
        for lane in LANES:
            assert ledger.task(lane).enqueue(3, "raise after").result(timeout=60) == 3
            assert ledger.task(lane).enqueue(4, "return more").result(timeout=60) == 4
    assert ledger.rig.text().count("raised after its transaction had settled it") == len(LANES)
    assert ledger.rig.text().count("returned a value after its transaction") == len(LANES)
    assert ledger.rows() == 2 * len(LANES)


def test_a_timeout_inside_the_block_rolls_back(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", app=AT):
        for lane in ("book_on_loop", "book_on_loop_in_process"):
            job = ledger.task(lane).using(timeout=0.5, retry=1).enqueue(1, "wait")
            with pytest.raises(JobFailed, match="timeout"):
                job.result(timeout=60)
            assert ledger.task(lane).enqueue(2).result(timeout=60) == 2, "nothing is left locked"
            assert ledger.rows(job.id) == 0


def test_jobs_enqueued_in_the_block_are_part_of_it(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", app=AT):
        assert ledger.tasks.chains.enqueue(5).result(timeout=60) == "chained"
        until(lambda: ledger.app.jobs.count(state="succeeded") == 2, "the second job")
    assert ledger.app.jobs.count(task=ledger.tasks.next_step) == 1, "the first one was rolled back"


def test_misuse_is_refused(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", app=AT):
        ledger.tasks.misuse.enqueue("twice").result(timeout=60)
        ledger.tasks.misuse.enqueue("again").result(timeout=60)
        with pytest.raises(JobFailed, match="commit"):
            ledger.tasks.misuse.enqueue("commit").result(timeout=60)
        with pytest.raises(JobFailed, match="async with"):
            ledger.tasks.blocks_the_loop.enqueue().result(timeout=60)
    assert "this job is settled already" in ledger.rig.text()
    assert "this transaction was used before" in ledger.rig.text()


# In a transaction of another library

BORROWED = [
    ("book_with", "engine"),
    ("book_with", "sessionmaker"),
    ("book_with", "django"),
    ("book_with_async", "engine"),
    ("book_with_async", "sessionmaker"),
]


def test_in_transactions_of_other_libraries(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", "-c", "4", app=AT):
        jobs = [ledger.task(task).enqueue(n, kind) for n in range(3) for task, kind in BORROWED]
        assert [job.result(timeout=60) for job in jobs] == [n for n in range(3) for _ in BORROWED]
        raised = [ledger.task(task).enqueue(1, kind, "raise") for task, kind in BORROWED]
        assert [job.result(timeout=60) for job in raised] == [1] * len(BORROWED)
    assert [ledger.rows(job.id) for job in (*jobs, *raised)] == [1] * 4 * len(BORROWED)
    assert [job.refresh().attempt for job in (*jobs, *raised)] == [1] * 3 * len(BORROWED) + [2] * len(BORROWED)


def test_transactions_of_others_that_do_not_fit(ledger: Ledger) -> None:
    with ledger.rig.worker("-p", "1", app=AT):
        for kind, says in (("int", "sessionmaker"), ("async", "async with"), ("elsewhere", "Outbox")):
            with pytest.raises(JobFailed, match=says):
                ledger.tasks.misuse_with.enqueue(kind).result(timeout=60)


# Whose job it is


async def claimed(app: App, runner: str) -> Claim:
    store = await app.connect()
    await store.enlist(WorkerInfo(id=f"w-{runner}", host="h", pid=1, version="0", lease=60.0))
    await store.join(RunnerInfo(id=runner, worker=f"w-{runner}", pid=2))
    lane = Lane(slots=1, tasks=frozenset(app.tasks), suspects=frozenset(app.tasks))
    return (await store.exchange(runner, 1, (), Demand(slots=1, lanes=(lane,)))).claimed[0]


@pytest.mark.parametrize("lane", HERE)
def test_an_attempt_whose_job_was_taken_over_writes_nothing(ledger: Ledger, lane: str) -> None:
    task, url = ledger.task(lane), ledger.app.config.url

    async def attempt(claim: Claim, runner: str) -> Running:
        transactions = Transactions(url, runner, Vault())
        context = Running(claim, transactions=transactions)
        if lane == "book_in_thread":
            outcome = await asyncio.to_thread(perform_blocking, task, claim, context)
        else:
            outcome = await perform(task, claim, context)
        transactions.close()
        context.ended = outcome  # type: ignore[attr-defined]
        return context

    async def scene() -> None:
        store = await ledger.app.connect()
        await task.aenqueue(1)
        old = await claimed(ledger.app, "r1")
        await store.release(["r1"], Ending.LOST)
        new = await claimed(ledger.app, "r2")
        late = await attempt(old, "r1")
        assert late.superseded
        assert late.ended.ending is Ending.INTERRUPTED  # type: ignore[attr-defined]
        assert not await store.settle("r1", late.ended)  # type: ignore[attr-defined]
        assert ledger.rows() == 0
        right = await attempt(new, "r2")
        assert ledger.rows() == 1
        assert (await store.get([old.id]))[0].state is State.SUCCEEDED
        again = await attempt(new, "r2")
        assert again.superseded, "as after a commit whose answer was lost: what it wrote stands once"
        assert ledger.rows() == 1
        assert await store.settle("r2", right.ended), "its outcome may be repeated"  # type: ignore[attr-defined]
        await ledger.app.aclose()

    asyncio.run(scene())


def test_the_block_tells_that_the_job_was_taken_over(ledger: Ledger) -> None:
    url = ledger.app.config.url

    async def scene() -> None:
        store = await ledger.app.connect()
        await ledger.tasks.book_on_loop.aenqueue(1)
        claim = await claimed(ledger.app, "r1")
        await store.release(["r1"], Ending.LOST)
        transactions = Transactions(url, "r1", Vault())
        context = Running(claim, transactions=transactions)
        context.shape, context.limit = ledger.tasks.book_on_loop.shape, 1000
        with pytest.raises(Evicted, match="rolled back"):
            async with context.transaction():
                pass
        transactions.close()
        await ledger.app.aclose()

    asyncio.run(scene())


@pytest.mark.parametrize("ledger", ["postgresql"], indirect=True)
def test_a_runner_that_is_cut_off_before_its_commit_holds_its_job_no_longer_than_a_lease(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "COMMIT_WITHIN", 0.5)
    there = urlsplit(ledger.app.config.url)

    async def scene() -> None:
        store = await ledger.app.connect()
        await ledger.tasks.book_on_loop.aenqueue(1)
        claim = await claimed(ledger.app, "r1")
        with Proxy(there.port or 5432) as proxy:
            proxy.wanted, proxy.silent = b"COMMIT", True
            through = there._replace(netloc=f"{there.username}@127.0.0.1:{proxy.port}").geturl()
            transactions = Transactions(through, "r1", Vault())
            context = Running(claim, transactions=transactions)
            context.shape, context.limit = ledger.tasks.book_on_loop.shape, 1000
            ending = asyncio.create_task(write(context))
            done, _ = await asyncio.wait({ending}, timeout=60)
            assert done, "the server still waits for the commit"
            assert isinstance(ending.exception(), psycopg.errors.IdleInTransactionSessionTimeout)
            transactions.close()
        await store.release(["r1"], Ending.LOST)
        assert (await store.get([claim.id]))[0].state is State.READY
        assert ledger.rows() == 0
        await ledger.app.aclose()

    async def write(context: Running) -> None:
        async with context.transaction() as db:
            await db.execute(f"INSERT INTO {ledger.tasks.TABLE} VALUES ('cut off', 1)")
            watched = await db.execute(
                "SELECT current_setting('tcp_keepalives_idle'), current_setting('tcp_user_timeout')"
            )
            assert await watched.fetchone() == ("10", "10000")

    asyncio.run(scene())


# In the user's own process


def test_an_embedded_worker(ledger: Ledger) -> None:
    async def scene() -> None:
        async with ledger.app.worker(concurrency=20):
            jobs = [await ledger.task(lane).aenqueue(n) for n in range(10) for lane in LANES]
            assert [await job.aresult(timeout=60) for job in jobs] == [n for n in range(10) for _ in LANES]
        await ledger.app.aclose()

    asyncio.run(scene())
    assert ledger.rows() == 40


# Where there is none


def test_outside_of_a_job() -> None:
    with pytest.raises(ConfigError, match="running job"):
        current().transaction()


@pytest.mark.parametrize("url", ["redis://localhost:1", "sqlite:///:memory:"])
def test_on_a_store_without_transactions(url: str) -> None:
    claim = Claim(
        id="j", fence=1, seq=1, task="t", queue="q", args=b"{}", options=None, priority=0, attempt=0, lost=0,
        enqueued_at=0, run_at=0,
    )  # fmt: skip
    context = Running(claim, transactions=Transactions(url, "r", Vault()))
    with pytest.raises(ConfigError, match=r"fence|in memory"):
        context.transaction()
