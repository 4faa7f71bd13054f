"""Queues at run time: pause, resume, how full they are."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.worker.rig import PATIENCE, empty_store
from windlass import App, ConfigError
from windlass.model import Quota
from windlass.worker.queues import Queues


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> App:
    return App(empty_store(request.param, tmp_path))


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
