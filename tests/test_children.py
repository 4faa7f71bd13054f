"""Jobs that enqueue jobs and wait for them: with one slot, again after an error, and when they shall end."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from types import CoroutineType
from typing import Any

import pytest

from windlass import App, Hook, JobCancelled, JobFailed, ResultTimeout, Retry, Snooze, State, Task, current, limit
from windlass.context import Context
from windlass.lineage import child_id
from windlass.model import Ending, Outcome, Verb
from windlass.vault import make_key

KEYS = [make_key("k1"), make_key("unique")]
PATIENCE = 60.0
again = Retry(attempts=3, backoff=0)


def make_app(**settings: Any) -> App:
    return App("sqlite:///:memory:", **settings)


def me() -> str:
    """The id of the running job."""
    job = current().job
    assert job
    return job.id


async def result(app: App, task: Task[..., Any], *args: Any, concurrency: int = 1) -> Any:
    """What a job of that task returns."""
    try:
        async with app.worker(concurrency=concurrency):
            return await (await task.aenqueue(*args)).aresult(PATIENCE)
    finally:
        await app.aclose()


def test_a_tree_of_jobs_grows_in_one_slot() -> None:
    app = make_app()
    at_once, most = 0, 0

    @app.task
    async def leaf(n: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return n

    @app.task
    def branch(n: int) -> int:
        jobs = [*app.enqueue_many([leaf.bind(n), leaf.bind(n)]), leaf.enqueue(n)]
        return sum(job.result() for job in jobs)

    @app.task
    async def tree(n: int) -> int:
        jobs = await asyncio.gather(*(branch.aenqueue(n) for _ in range(n)))
        with pytest.raises(ResultTimeout):
            await jobs[-1].aresult(0)
        assert {(await app.jobs.aget(job.id)).id.rpartition(".")[0] for job in jobs} == {me()}
        return sum(await asyncio.gather(*(job.aresult() for job in jobs)))

    assert asyncio.run(result(app, tree, 4)) == 4 * 4 * 3
    assert most == 1, "never more jobs run than there are slots"


def test_a_gate_is_free_while_who_passed_it_waits() -> None:
    app = make_app()
    one = limit(1, name="one")
    inside: list[int] = []

    @app.task(gates=one)
    async def leaf(n: int) -> int:
        inside.append(n)
        assert inside == [n], "nobody else is behind the gate"
        await asyncio.sleep(0)
        inside.remove(n)
        return n

    @app.task(gates=one)
    def tree(n: int) -> int:
        jobs = [leaf.enqueue(at) for at in range(n)]
        total = sum(job.result() for job in jobs)
        inside.append(-n)
        assert inside == [-n]
        inside.remove(-n)
        return total

    @app.task(gates=one)
    async def forest() -> int:
        jobs = [await tree.aenqueue(n) for n in (2, 3)]
        return sum(await asyncio.gather(*(job.aresult() for job in jobs)))

    assert asyncio.run(result(app, forest, concurrency=3)) == 4


@pytest.mark.parametrize("keys", [(), KEYS], ids=["plain", "sealed"])
def test_a_parent_that_runs_again_repeats_only_what_failed(keys: list[str]) -> None:
    class Noting(Hook):
        def after(self, context: Context, outcome: Outcome) -> None:
            if context.job and context.job.task.endswith("blocking") and outcome.ending is Ending.RETRY:
                child.enqueue(77)

    app = make_app(keys=keys, hooks=[Noting()])
    ran: Counter[int] = Counter()

    @app.task(retry=Retry(attempts=1))
    async def child(n: int) -> int:
        ran[n] += 1
        if n == 2 and ran[n] == 1:
            raise ValueError("not the first time")
        return n

    @app.task(retry=again)
    async def parent() -> list[int]:
        first = 0 if current().attempt == 1 else 5  # what it has not asked for before is new, whatever its place
        bulk = await app.aenqueue_many([child.bind(n) for n in (first, 1, 2)])
        jobs = [*bulk, await child.aenqueue(3), await child.using(id=f"own-{current().attempt}").aenqueue(4)]
        return [await job.aresult() for job in jobs]

    @app.task(retry=again)
    def blocking() -> list[int]:
        jobs = [child.enqueue(n) for n in (11, 12, 12)]
        results = [job.result() for job in jobs]
        if current().attempt < 3:
            raise ValueError("after the children")
        return results

    assert asyncio.run(result(app, parent)) == [5, 1, 2, 3, 4]
    assert ran == {0: 1, 1: 1, 2: 2, 3: 1, 4: 2, 5: 1}
    ran.clear()
    assert asyncio.run(result(app, blocking)) == [11, 12, 12]
    assert ran == {11: 1, 12: 2, 77: 2}, "what hooks enqueue is new each time"


def test_what_snoozes_makes_new_jobs_each_time() -> None:
    app = make_app()
    ran: Counter[str] = Counter()

    @app.task
    async def child() -> None:
        ran[me()] += 1

    @app.task(retry=again)
    async def parent() -> str:
        await (await child.aenqueue()).aresult()
        if len(ran) < 3:
            raise Snooze(0)
        if current().attempt == 1:
            raise ValueError("this run is repeated")
        return me()

    id = asyncio.run(result(app, parent))
    assert ran == {child_id(id, epoch, 0): 1 for epoch in (0, 1, 2)}


def test_a_job_of_the_same_id_that_was_deleted_has_left_no_children() -> None:
    app = make_app()
    ran: list[int] = []

    @app.task
    async def child(n: int) -> int:
        ran.append(n)
        return n

    @app.task
    async def parent() -> list[int]:
        return [await (await child.aenqueue(n)).aresult() for n in range(2)]

    async def twice() -> list[Any]:
        results = []
        async with app.worker(concurrency=1):
            for _ in range(2):
                job = await parent.using(id="daily").aenqueue()
                results.append(await job.aresult(PATIENCE))
                await job.adelete()
        await app.aclose()
        return results

    assert asyncio.run(twice()) == [[0, 1], [0, 1]]
    assert ran == [0, 1, 0, 1]


def test_children_whose_ids_are_taken_are_stored_in_a_transaction_too(tmp_path: Path) -> None:
    """A job of the same id has left some, and between them are many that retention has dropped."""
    app = App(f"sqlite:///{tmp_path}/windlass.db")
    ids: list[list[str]] = []

    @app.task
    async def child(n: int) -> None: ...

    @app.task
    def parent(many: int) -> int:
        with contextlib.closing(sqlite3.connect(f"{tmp_path}/windlass.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            jobs = app.enqueue_many([child.using(delay=3600).bind(n) for n in range(many)], tx=db)
            db.execute("COMMIT")
        ids.append([job.id for job in jobs])
        return sum(job.new for job in jobs)

    async def main() -> None:
        async with app.worker(concurrency=1):
            for many in (130, 125):
                job = await parent.using(id="daily").aenqueue(many)
                assert await job.aresult(PATIENCE) == many
                await job.adelete()
                if many == 130:
                    await app.jobs.act(ids[0][:120], Verb.DELETE)
        assert set(ids[0]) & set(ids[1]) == set(ids[0][:120])
        assert await app.jobs.acount(task=child) == 10 + 125
        await app.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["cancel", "timeout", "interrupt"])
def test_a_job_that_waits_can_be_ended(how: str) -> None:
    app = make_app(grace=0.0)
    waits = threading.Semaphore(0)
    timeout = 0.2 if how == "timeout" else None

    @app.task
    async def never() -> None:
        await asyncio.sleep(600)

    @app.task(timeout=timeout, retry=Retry(attempts=1))
    def in_thread() -> None:
        job = never.using(id="one", delay=600).enqueue()
        waits.release()
        with contextlib.suppress(Exception):
            job.result()

    @app.task(timeout=timeout, retry=Retry(attempts=1))
    async def on_loop() -> None:
        job = await never.using(id="two", delay=600).aenqueue()
        waits.release()
        await asyncio.gather(job.aresult(), job.aresult())

    async def main() -> list[str]:
        jobs = [await in_thread.aenqueue(), await on_loop.aenqueue()]
        async with app.worker(concurrency=1):
            for _ in jobs:
                await asyncio.to_thread(waits.acquire, timeout=PATIENCE)
            await asyncio.sleep(0.1)
            if how != "interrupt":
                if how == "cancel":
                    await asyncio.gather(*(job.acancel() for job in jobs))
                for job in jobs:
                    with pytest.raises(JobCancelled if how == "cancel" else JobFailed):
                        await job.aresult(PATIENCE)
        states = [(await job.arefresh()).state for job in jobs]
        await app.aclose()
        return states

    wanted = {"cancel": State.CANCELLED, "timeout": State.FAILED, "interrupt": State.READY}[how]
    assert asyncio.run(main()) == [wanted] * 2


def test_a_wait_that_is_cancelled_as_it_begins_gives_the_slot_back() -> None:
    """In an event loop of a thread's own: the worker has let the slot go, and the thread has not heard of it yet."""
    app = make_app()
    asked = threading.Event()
    running: list[str] = []
    homes: list[asyncio.AbstractEventLoop] = []

    @app.task
    async def other() -> None:
        running.append("other")
        await asyncio.to_thread(asked.wait, 0.5)
        running.remove("other")

    async def ask(job: Any) -> None:
        held = threading.Event()
        homes[0].call_soon_threadsafe(held.wait, PATIENCE)
        asking = asyncio.create_task(job.aresult())
        while "__aenter__" not in coroutines(asking):
            await asyncio.sleep(0.01)
        held.set()
        time.sleep(0.3)  # this loop stands still meanwhile
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    @app.task
    def parent() -> list[str]:
        asyncio.run(ask(other.enqueue()))
        found = running.copy()
        asked.set()
        return found

    async def main() -> Any:
        homes.append(asyncio.get_running_loop())
        return await result(app, parent)

    assert asyncio.run(main()) == [], "with one slot, nothing else runs while it does"


def coroutines(task: "asyncio.Task[Any]") -> list[str]:
    """The names of what a task waits in."""
    names: list[str] = []
    at: Any = task.get_coro()
    while isinstance(at, CoroutineType):
        names.append(at.__name__)
        at = at.cr_await
    return names


def test_ids_of_children() -> None:
    numbers = [0, 1, 9, 10, 11, 99, 100, 12345]
    ids = [child_id("p", 0, number) for number in numbers]
    assert ids[:4] == ["p.0-a0", "p.0-a1", "p.0-a9", "p.0-b10"]
    assert sorted(ids) == ids
    id, depth = "x" * 36, 0
    while len(new := child_id(id, 0, 0)) > len(id):
        id, depth = new, depth + 1
    assert depth == 10
    assert len(new) < 88
