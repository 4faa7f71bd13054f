"""Queues at run time: pause, resume, how full they are."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.worker.rig import PATIENCE, empty_store
from windlass import App, ConfigError, QueueDraining, QueueFull, Task
from windlass.description import WhenFull
from windlass.model import Quota
from windlass.worker.queues import Queues


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    app = App(empty_store(request.param, tmp_path))
    yield app
    app.close()


@pytest.fixture
def plain(tmp_path: Path) -> App:
    return App(f"sqlite:///{tmp_path}/windlass.db")


def test_what_is_paused_is_not_begun_and_goes_on_after(app: App) -> None:
    @app.task(name="mail", queue="mail", aliases=["post"])
    async def mail(n: int) -> int:
        return n

    @app.task(name="other")
    async def other() -> str:
        return "done"

    async def main() -> None:
        await app.queues.apause("mail", reason="the relay is down")
        await app.queues.apause(task=other)
        jobs = [await mail.aenqueue(1), await mail.using(queue="elsewhere").aenqueue(2), await other.aenqueue()]
        async with app.worker(concurrency=2):
            assert await jobs[1].aresult(PATIENCE) == 2  # a queue that no code of this app names
            assert await mail.using(queue="elsewhere").aenqueue(3)
            for job in (jobs[0], jobs[2]):
                await job.arefresh()
                assert job.state == "ready"
            held = await app.queues.apaused()
            assert [(one.kind, one.name, one.reason, one.until) for one in held] == [
                ("queue", "mail", "the relay is down", None),
                ("task", "other", "", None),
            ]
            assert await app.queues.aresume("mail")
            assert await jobs[0].aresult(PATIENCE) == 1
            assert await app.queues.aresume(task="other")
            assert await jobs[2].aresult(PATIENCE) == "done"
            assert not await app.queues.aresume("mail")
        await app.aclose()

    asyncio.run(main())


def test_a_running_worker_stops_claiming(plain: App) -> None:
    started = asyncio.Event()
    go = asyncio.Event()

    @plain.task(name="work")
    async def work() -> None:
        started.set()
        await go.wait()

    async def main() -> None:
        async with plain.worker(concurrency=4) as runner:
            first = await work.aenqueue()
            await started.wait()
            await plain.queues.apause(task="work")
            while "work" in runner._lanes["async"]:
                await asyncio.sleep(0.02)
            second = await work.aenqueue()
            go.set()
            await first.aresult(PATIENCE)
            await second.arefresh()
            assert second.state == "ready"
            await plain.queues.aresume(task="work")
            await second.aresult(PATIENCE)

    asyncio.run(main())


def test_queues_and_their_numbers(app: App) -> None:
    @app.task(name="work", queue="a")
    async def work() -> None: ...

    async def main() -> None:
        done = await work.aenqueue()
        async with app.worker():
            await done.aresult(PATIENCE)
        await work.aenqueue()
        await work.using(delay=60).aenqueue()
        await work.using(queue="b").aenqueue()
        await app.queues.apause("c")
        a, b, c = await app.queues.alist()
        assert (a.name, a.ready, a.scheduled, a.running, a.depth) == ("a", 1, 1, 0, 2)
        assert a.coming > a.going > 0
        assert a.empty_in is None
        assert (b.depth, b.going, b.paused) == (1, 0.0, None)
        assert c.paused
        assert (c.depth, c.empty_in, c.paused.kind) == (0, 0.0, "queue")
        await app.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "neither came"),
        (("a", "b"), "both came"),
        (("a b",), "a queue of 1 to 128"),
        ((None, "a b"), "a task of 1 to 128"),
    ],
)
def test_mistakes_are_told(plain: App, given: Any, words: str) -> None:
    queue, task = (*given, None, None)[:2]
    with pytest.raises(ConfigError, match=words):
        plain.queues.pause(queue, task=task)


def test_shares_without_paused_queues() -> None:
    assert Queues().quotas(4) is None
    assert Queues().quotas(4, {"a"}, {"a", "b", "c"}) == (Quota(queue="b", share=2), Quota(queue="c", share=2))
    assert Queues().quotas(4, {"a"}, {"a"}) == ()
    assert Queues("a,b").quotas(4, {"a"}) == (Quota(queue="b", share=4),)
    weighted = Queues("a:3,b:1,c:1")
    assert weighted.quotas(4, {"a"}) == (Quota(queue="b", share=2), Quota(queue="c", share=2))
    shares = [[quota.share for quota in weighted.quotas(5) or ()] for _ in range(2)]
    assert [sum(one) for one in zip(*shares, strict=True)] == [6, 2, 2]


async def until_refused(call: Task[[], str]) -> None:
    """Enqueue as long as this process does not know that the queue is drained."""
    while True:
        await (await call.aenqueue()).acancel()
        await asyncio.sleep(0.05)


def test_a_drained_queue_takes_no_more_jobs_and_runs_what_it_has(app: App) -> None:
    @app.task(name="step", queue="mail")
    async def step() -> None: ...

    @app.task(name="work", queue="mail")
    async def work() -> str:
        await step.aenqueue()  # of its own queue: a part of its work
        with pytest.raises(QueueDraining):
            await step.using(queue="shut").aenqueue()
        return "done"

    async def main() -> None:
        job = await work.aenqueue()
        await app.queues.adrain("mail", reason="it moves to another host")
        await app.queues.adrain("shut")
        with pytest.raises(QueueDraining, match="mail takes no more jobs, it is being drained: it moves to") as caught:
            await until_refused(work.using(delay=600))
        assert caught.value.queue == "mail"
        await work.using(queue="other", delay=600).aenqueue()
        with pytest.raises(QueueDraining):
            await app.aenqueue_many([work.using(queue="other").bind(), work.bind()])
        assert [(one.name, one.reason) for one in await app.queues.adraining()] == [
            ("mail", "it moves to another host"),
            ("shut", ""),
        ]
        assert await app.queues.apaused() == []
        async with app.worker():
            assert await job.aresult(PATIENCE) == "done"
            while await app.jobs.acount(task="step", state="succeeded") < 1:
                await asyncio.sleep(0.02)
        found = {one.name: one for one in await app.queues.alist()}
        assert found["mail"].draining
        assert (found["mail"].depth, found["mail"].paused, found["other"].draining) == (0, None, None)
        assert await app.queues.aresume("mail")
        assert not await app.queues.aresume("mail")
        while True:
            with contextlib.suppress(QueueDraining):
                await work.aenqueue()
                break
            await asyncio.sleep(0.05)
        await app.aclose()

    asyncio.run(main())


def test_a_transaction_sees_a_drain(plain: App, tmp_path: Path) -> None:
    @plain.task(name="mail", queue="mail")
    def mail() -> None: ...

    plain.queues.drain("mail")
    connection = sqlite3.connect(tmp_path / "windlass.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(QueueDraining):
        mail.using(tx=connection).enqueue()
    connection.execute("ROLLBACK")
    connection.close()
    with pytest.raises(QueueDraining):
        mail.enqueue()
    plain.close()


# Back-pressure


def test_a_full_queue_rejects(app: App) -> None:
    app.queue("mail", max_length=3, when_full="reject")

    @app.task(name="mail", queue="mail")
    async def mail() -> None: ...

    async def main() -> None:
        await app.aenqueue_many([mail.bind(), mail.using(delay=60).bind()])
        with pytest.raises(QueueFull, match="queue mail is full: 2 jobs wait in it, its max_length is 3, and 2 jobs"):
            await app.aenqueue_many([mail.bind(), mail.bind()])
        await mail.using(queue="other").aenqueue()
        await mail.aenqueue()
        with pytest.raises(QueueFull) as caught:
            await mail.aenqueue()
        assert (caught.value.queue, caught.value.depth, caught.value.stored) == ("mail", 3, ())
        assert await app.jobs.acount(queue="mail") == 3
        assert await app.jobs.acancel(queue="mail") == 3
        while not (await app.jobs.acount(queue="mail", state="ready")):
            with contextlib.suppress(QueueFull):
                await mail.aenqueue()
            await asyncio.sleep(0.02)
        await app.aclose()

    asyncio.run(main())


def test_a_full_queue_blocks_until_there_is_room(app: App) -> None:
    app.queue("mail", max_length=4)
    deepest = 0

    @app.task(name="mail", queue="mail")
    async def mail(n: int) -> int:
        nonlocal deepest
        deepest = max(deepest, await app.jobs.acount(queue="mail", state="ready"))
        return n

    async def main() -> None:
        async with app.worker(concurrency=1):
            many = await app.aenqueue_many(mail.bind(n) for n in range(10))
            alone = await asyncio.gather(*[mail.aenqueue(n) for n in range(10, 14)])
            assert [await job.aresult(PATIENCE) for job in (*many, *alone)] == list(range(14))
        await app.aclose()

    asyncio.run(main())
    assert 1 <= deepest <= 4


def test_a_full_queue_drops_the_oldest(app: App) -> None:
    app.queue("mail", max_length=3, when_full="drop_oldest", expires_in=600)

    @app.task(name="mail", queue="mail")
    async def mail(n: int) -> None: ...

    @app.task(name="after")
    async def after() -> None: ...

    async def main() -> None:
        first, *rest = await app.aenqueue_many(mail.using(priority=n, on_final=after).bind(n) for n in range(3))
        new = await mail.using(delay=60, expires_in=5).aenqueue(3)
        assert [(await job.arefresh()).state for job in (first, *rest, new)] == [
            "cancelled",
            "ready",
            "ready",
            "scheduled",
        ]
        assert first.reason == "dropped to make room: queue mail was full (max_length 3, drop_oldest)"
        assert await app.jobs.acount(task="after") == 1
        assert new.record.expires_at
        assert new.record.expires_at - new.record.enqueued_at == pytest.approx(5, abs=1)
        assert rest[0].record.expires_at == pytest.approx(rest[0].record.run_at + 600, abs=1)
        await app.aenqueue_many([mail.bind(4), mail.bind(5)])
        with pytest.raises(QueueFull):
            await app.aenqueue_many([mail.bind(6), mail.bind(7), mail.bind(8)])
        assert [await app.jobs.acount(queue="mail", state=state) for state in ("ready", "scheduled")] == [2, 1]
        await asyncio.gather(*[mail.aenqueue(n) for n in range(20)])
        await mail.aenqueue(9)
        assert 1 <= await app.jobs.acount(queue="mail", state="ready") <= 2
        await app.aclose()

    asyncio.run(main())


def test_a_full_queue_sheds_the_lowest(app: App) -> None:
    app.queue("mail", max_length=3, when_full="shed_lowest")

    @app.task(name="mail", queue="mail")
    async def mail() -> None: ...

    async def main() -> None:
        low, mid, high = [await mail.using(priority=n).aenqueue() for n in (-5, 0, 5)]
        new = await mail.using(priority=1).aenqueue()
        assert [(await job.arefresh()).state for job in (low, mid, high, new)] == [
            "cancelled",
            "ready",
            "ready",
            "ready",
        ]
        for priority in (0, -9):
            with pytest.raises(QueueFull, match="lower priority"):
                await mail.using(priority=priority).aenqueue()
        with pytest.raises(QueueFull):
            await app.aenqueue_many([mail.using(priority=1).bind(), mail.using(priority=9).bind()])
        assert await app.jobs.acount(queue="mail", state="ready") == 3
        await app.aenqueue_many([mail.using(priority=9).bind(), mail.using(priority=8).bind()])
        assert [job.priority for job in await app.jobs.afind(queue="mail", state="ready")] == [9, 8, 5]
        await app.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("when_full", ["drop_oldest", "shed_lowest", "reject"])
def test_what_is_there_already_needs_no_room(app: App, when_full: WhenFull) -> None:
    """A full queue takes again what it has, by id or unique key, and drops nothing for that."""
    app.queue("mail", max_length=3, when_full=when_full)

    @app.task(name="mail", queue="mail")
    async def mail(n: int = 0) -> None: ...

    async def main() -> None:
        jobs = [await mail.using(priority=-1).aenqueue(), await mail.using(id="one").aenqueue()]
        jobs.append(await mail.using(unique="two").aenqueue())
        again = await app.aenqueue_many([mail.using(id="one").bind(), mail.using(unique="two").bind(2)])
        assert [(job.new, job.id) for job in again] == [(False, jobs[1].id), (False, jobs[2].id)]
        assert await app.jobs.acount(queue="mail", state="ready") == 3
        if when_full != "reject":
            bulk = await app.aenqueue_many([mail.using(unique="two").bind(), mail.bind(3)])
            assert [job.new for job in bulk] == [False, True]
            assert (await jobs[0].arefresh()).state == "cancelled"
            assert await app.jobs.acount(queue="mail", state="ready") == 3
        await app.aclose()

    asyncio.run(main())


def test_waiting_has_an_end(plain: App) -> None:
    plain.queue("mail", max_length=2, max_wait=0.1)

    @plain.task(name="mail", queue="mail")
    def mail() -> None: ...

    with pytest.raises(QueueFull, match="full: 2 jobs") as caught:
        plain.enqueue_many([mail.bind(), mail.bind(), mail.bind()])
    assert len(caught.value.stored) == 2
    assert plain.jobs.count() == 2
    with pytest.raises(QueueFull, match="and a job came"):
        mail.enqueue()
    plain.jobs.cancel(queue="mail")
    while not plain.jobs.count(state="ready"):
        with contextlib.suppress(QueueFull):
            mail.enqueue()
    plain.close()


def test_a_transaction_never_waits(plain: App, tmp_path: Path) -> None:
    plain.queue("mail", max_length=1)

    @plain.task(name="mail", queue="mail")
    def mail() -> None: ...

    mail.enqueue()
    connection = sqlite3.connect(tmp_path / "windlass.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(QueueFull):
        mail.using(tx=connection).enqueue()
    connection.execute("ROLLBACK")
    connection.close()

    async def inside() -> None:
        with pytest.raises(RuntimeError, match="await aenqueue"):
            mail.enqueue()

    asyncio.run(inside())
    plain.close()


def test_producers_in_threads_share_the_room(plain: App) -> None:
    plain.queue("mail", max_length=20, when_full="reject")

    @plain.task(name="mail", queue="mail")
    def mail() -> None: ...

    def produce(_: int) -> bool:
        try:
            return mail.enqueue().new
        except QueueFull:
            return False

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(produce, range(60)))
    assert 1 <= taken == plain.jobs.count() <= 20
    while taken < 20:
        taken += produce(0)
    assert not produce(0)
    assert plain.jobs.count() == 20
    plain.close()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_length": 0}, "for max_length; 0 came"),
        ({"max_length": 1, "when_full": "drop"}, "'drop_oldest', 'shed_lowest'; 'drop' came"),
        ({"max_length": 1, "when_full": "shed_lowest", "aging": 5}, "nothing there is the lowest"),
        ({"max_length": 1, "when_full": "drop_oldest", "max_wait": 5}, "does not wait"),
        ({"expires_in": 0}, "for expires_in"),
        ({"when_full": "reject"}, "need a max_length"),
        ({"max_wait": 3}, "need a max_length"),
        ({"max_length": 1, "when_full": "reject", "max_wait": 3}, "does not wait"),
    ],
)
def test_mistakes_in_bounds_are_told(plain: App, given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plain.queue("mail", **given)
