"""Queues in which waiting makes up for priority, as users see them."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.budget import stores
from tests.store.world import worker_info
from tests.worker.rig import PATIENCE, empty_store
from windlass import App, every
from windlass.jobs import Job
from windlass.model import NewJob, Placed
from windlass.vault import make_key
from windlass.view import job_data
from windlass.web.job import copy_of

BEFORE, AFTER, TOOK = 40, 5, 0.1
"""Jobs of high priority that come before one of low priority, and after it; seconds that each runs."""

KINDS = pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])


@pytest.mark.parametrize("kind", stores("test_a_low_one_runs_before_what_came_later_once_it_has_waited"))
def test_a_low_one_runs_before_what_came_later_once_it_has_waited(kind: str, tmp_path: Path) -> None:
    """Although high ones stand there all the time: those that came before it still go first, those that came after it
    do not. Another that has not waited yet stays behind."""
    app = App(empty_store(kind, tmp_path))
    app.queue("mail", aging=3)
    app.queue("slow", aging=3600)
    began: list[str] = []

    @app.task(name="send")
    async def send(word: str) -> None:
        began.append(word)
        await asyncio.sleep(TOOK)

    async def enqueue(queue: str, word: str, priority: int, count: int = 1) -> list[Job[Any]]:
        return await app.aenqueue_many(
            [send.using(queue=queue, priority=priority).bind(f"{word} {queue}") for _ in range(count)]
        )

    async def main() -> None:
        jobs = []
        for queue in ("mail", "slow"):
            jobs += await enqueue(queue, "before", 100, BEFORE)
            jobs += await enqueue(queue, "low", -100)
            jobs += await enqueue(queue, "middle", 0)
            jobs += await enqueue(queue, "after", 100, AFTER)
        async with app.worker(concurrency=1, queues="mail"):
            await asyncio.gather(*(job.aresult(PATIENCE) for job in jobs if job.queue == "mail"))
        async with app.worker(concurrency=4, queues="slow"):
            await asyncio.gather(*(job.aresult(PATIENCE) for job in jobs if job.queue == "slow"))
        await app.aclose()

    asyncio.run(main())
    high = ["before"] * BEFORE, ["after"] * AFTER
    seen = [word.split()[0] for word in began]
    aged, slow = seen[: BEFORE + AFTER + 2], seen[BEFORE + AFTER + 2 :]
    assert aged == [*high[0], "low", "middle", *high[1]]
    assert slow == [*high[0], *high[1], "middle", "low"]


@KINDS
def test_a_job_shows_the_priority_that_was_asked_for(kind: str, tmp_path: Path) -> None:
    """Whatever the store has it at, also of jobs that schedules and the ends of others make."""
    app = App(empty_store(kind, tmp_path))
    app.queue("mail", aging=1)

    @app.task(name="send", queue="mail")
    async def send() -> None: ...

    @app.task(name="turns", queue="mail", fair_key="{n}")
    async def turns(n: int) -> None: ...

    @app.task(name="first")
    async def first() -> None: ...

    low = send.using(priority=-100)
    jobs = [send.using(priority=n).enqueue() for n in (-100, 0, 100)] + [turns.using(priority=7).enqueue(1)]
    assert [job.refresh().priority for job in jobs] == [-100, 0, 100, 7]
    assert [(job.record.priority, job.record.ahead) for job in jobs] == [(-1, -1), (-1, -0.5), (0, 0), (7, 0)]
    app.schedules.create("nightly", every(days=1), low)
    assert app.schedules.get("nightly").priority == -100
    followed = first.using(on_success=low).enqueue()

    async def main() -> list[Job[Any]]:
        store = await app.connect()
        tick = await app.schedules.atrigger("nightly")
        assert await store.lift() == 3
        await asyncio.gather(*[job.arefresh() for job in (*jobs, tick)])
        async with app.worker(concurrency=1, queues="default"):
            await followed.aresult(PATIENCE)
        made = [job for job in await app.jobs.afind(queue="mail", limit=10) if job.id.startswith(followed.id)]
        assert [(job.priority, job.record.ahead) for job in made] == [(-100, -1)]
        await app.aclose()
        return [*jobs, tick]

    found = asyncio.run(main())
    assert [job.priority for job in found] == [-100, 0, 100, 7, -100]
    assert [job_data(job.record)["priority"] for job in found] == [-100, 0, 100, 7, -100]
    assert [(job.record.priority, job.record.ahead) for job in found] == [(0, 0), (0, 0), (0, 0), (7, 0), (0, 0)]
    app.close()


@pytest.mark.parametrize("kind", stores("test_what_waits_stands_just_below_what_has_no_priority"))
def test_what_waits_stands_just_below_what_has_no_priority(kind: str, tmp_path: Path) -> None:
    """In a worker that serves other queues too: it neither starves behind those that are less important."""
    app = App(empty_store(kind, tmp_path))
    app.queue("mail", aging=3600)
    began: list[str] = []

    @app.task(name="run")
    async def run(word: str) -> None:
        began.append(word)

    async def main() -> None:
        given = [("low", "other", -50), ("mail", "mail", 0), ("plain", "other", 0), ("first", "mail", 100)]
        given += [("next", "other", -1), ("high", "other", 1)]
        calls = [run.using(queue=queue, priority=priority).bind(word) for word, queue, priority in given]
        jobs = [(await app.aenqueue_many([call]))[0] for call in calls]
        async with app.worker(concurrency=1):
            await asyncio.gather(*(job.aresult(PATIENCE) for job in jobs))
        await app.aclose()

    asyncio.run(main())
    assert began == ["high", "plain", "first", "next", "mail", "low"]


@KINDS
def test_what_is_in_strict_order_does_not_age(kind: str, tmp_path: Path) -> None:
    """It stands with the highest, so it neither starves nor changes its order when its queue is described anew."""
    app = App(empty_store(kind, tmp_path))
    app.queue("mail", aging=60)

    @app.task(name="book", queue="mail", ordered_by="{account}")
    async def book(account: str) -> None: ...

    job = book.enqueue("a").refresh()
    assert (job.priority, job.record.priority, job.record.ahead) == (0, 0, 0)
    assert app.jobs.move("plain", queue="mail") == 1
    assert app.jobs.move("mail", queue="plain") == 1
    assert (job.refresh().record.priority, job.record.ahead, job.record.options) == (0, 0, None)
    app.close()


def test_jobs_age_once_they_are_moved_to_where_they_are(tmp_path: Path) -> None:
    """When a queue is given `aging` that had none. What was lifted has its own priority again where nothing ages."""
    url = empty_store("sqlite", tmp_path)
    before, app = App(url), App(url)
    app.queue("mail", aging=2)
    app.queue("slow", aging=3600)

    @before.task(name="send", queue="mail", priority=-5)
    async def send() -> None: ...

    job = send.enqueue()
    moved = app.jobs.get(job.id)
    assert app.jobs.move("mail", queue="mail") == 1
    assert (moved.refresh().priority, moved.record.priority, moved.record.ahead) == (-5, -1, -1.05)

    async def lift() -> int:
        return await (await app.connect()).lift()

    assert asyncio.run(lift()) == 1
    assert (moved.refresh().priority, moved.record.priority, moved.record.ahead) == (-5, 0, 0)
    assert app.jobs.move("mail", queue="mail") == 0, "it has waited"
    assert app.jobs.move("slow", queue="mail") == 1
    assert (moved.refresh().priority, moved.record.priority, moved.record.ahead) == (-5, -1, -1890)
    assert app.jobs.move("mail", queue="slow") == 1
    assert asyncio.run(lift()) == 1
    assert app.jobs.reprioritise(-6, queue="mail") == 1
    assert (moved.refresh().priority, moved.record.priority, moved.record.ahead) == (-6, -1, -1.06)
    assert app.jobs.reprioritise(-5, queue="mail") == 1
    assert asyncio.run(lift()) == 1
    assert app.jobs.move("plain", queue="mail") == 1
    assert (moved.refresh().priority, moved.record.priority, moved.record.options) == (-5, -5, None)
    before.close()
    app.close()


def test_what_is_made_of_another_keeps_the_priority_that_was_asked_for(tmp_path: Path) -> None:
    """A copy with other arguments, whether the queue ages that it comes into or not; an event that is put off."""
    path = tmp_path / "jobs.db"
    app = App(f"sqlite:///{path}", keys=[make_key("k"), make_key("unique")])
    app.queue("mail", aging=60)

    @app.task(name="send", queue="mail")
    async def send(n: int) -> None: ...

    old, plain = send.using(priority=-100).enqueue(1), send.using(queue="plain", priority=5, meta={"a": 1}).enqueue(1)
    for job, place in ((old.refresh(), (-1, -60)), (plain.refresh(), (5, 0))):
        new = copy_of(app, send, job, f"{job.id}.edit-1", b'{"n": 2}')
        (copied,) = asyncio.run(put(app, new))
        copy = app.jobs.get(copied.id)
        assert (copy.priority, copy.args, copy.meta) == (job.priority, {"n": 2}, job.meta)
        assert (copy.record.priority, copy.record.ahead) == place
    app.on("a", debounce=5)(send.using(priority=-7))
    with closing(sqlite3.connect(path, isolation_level=None)) as caller:
        caller.execute("BEGIN")
        (later,) = app.publish("a", 1, tx=caller)
        caller.execute("COMMIT")
    assert (later.refresh().priority, later.record.priority, later.record.ahead) == (-7, -1, -32.1)
    app.close()


async def put(app: App, *jobs: NewJob) -> list[Placed]:
    """Put jobs into the store of an app."""
    return await (await app.connect()).put(jobs)


def test_a_worker_takes_over_from_the_dead_while_it_lifts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lifting may take long."""
    app = App("sqlite:///:memory:")
    app.queue("mail", aging=1)

    @app.task(name="send", queue="mail")
    async def send() -> None: ...

    async def main() -> None:
        store = await app.connect()
        lifting = asyncio.Event()

        async def lift() -> int:
            lifting.set()
            await asyncio.Event().wait()
            return 0

        monkeypatch.setattr(store, "lift", lift)
        async with app.worker(queues="other"):
            await send.aenqueue()
            await asyncio.wait_for(lifting.wait(), PATIENCE)
            await store.enlist(worker_info("dead", 0.1))
            async with asyncio.timeout(PATIENCE):
                while "dead" in (alive := {worker.id for worker in await store.workers()}):
                    await asyncio.sleep(0.02)
            assert len(alive) == 1, "the one that lifts"
        await app.aclose()

    asyncio.run(main())
