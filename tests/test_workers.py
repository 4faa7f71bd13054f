"""`app.workers`: who works and what that takes, and a worker inside of this process that somebody drains."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.rig import PATIENCE, empty_store
from windlass import App, WorkerNotFound, WorkerTooOld, workers
from windlass.model import Doc, WorkerInfo
from windlass.store.contract import PAUSE, REPORT
from windlass.worker import reports
from windlass.worker.duties import Duties
from windlass.worker.runner import Runner
from windlass.workers import told_in


def test_shares_of_processors_are_taken_between_two_looks() -> None:
    gauge, pids = reports.Gauge(), {reports.OWN: (os.getppid(),), "runner": (os.getpid(),)}
    first = gauge.read(pids, stopping=False)
    assert (first.total.cpu, first.runners["runner"].cpu) == (None, None)
    began = time.process_time()
    while time.process_time() < began + 0.2:
        pass
    second = gauge.read(pids, stopping=True)
    share = second.runners["runner"].cpu
    assert share
    assert (set(second.runners), second.stopping) == ({"runner"}, True)
    assert second.total.cpu is not None
    assert second.total.cpu >= share
    assert second.total.memory > second.runners["runner"].memory > 1 << 20


def test_that_a_worker_stops_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "TELL_EVERY", 3_600.0)

    async def main() -> None:
        app, stopping, pids = App("sqlite:///:memory:"), asyncio.Event(), {reports.OWN: (os.getpid(),)}
        store = await app.connect()
        task = asyncio.create_task(reports.Reports(store, lambda: "w", lambda: pids, stopping).run())
        async with asyncio.timeout(PATIENCE):
            for stops in (False, True):
                while "w" not in (told := (await told_in(store)).reports) or told["w"].stopping is not stops:
                    await asyncio.sleep(0.01)
                stopping.set()
        task.cancel()
        await app.aclose()

    asyncio.run(main())


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    app = App("sqlite:///:memory:" if request.param == "memory" else empty_store(request.param, tmp_path))
    yield app
    app.close()


def test_a_worker_inside_of_this_process_is_drained_and_leaves(app: App, caplog: pytest.LogCaptureFixture) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    @app.task(name="slow")
    async def slow() -> str:
        began.set()
        await go.wait()
        return "done"

    async def main() -> None:
        with pytest.raises(WorkerNotFound, match="there is no worker nobody"):
            await app.workers.adrain("nobody")
        async with asyncio.timeout(PATIENCE), app.worker(concurrency=1):
            job, later = await slow.aenqueue(), await slow.aenqueue()
            await began.wait()
            while not (one := (await app.workers.alist())[0]).usage.memory:
                await asyncio.sleep(0.02)
            assert (one.draining, one.runners[0].running) == (False, 1)
            assert one.runners[0].usage.memory <= one.usage.memory
            assert one.runners[0].pid == os.getpid()
            await app.workers.adrain(one.id)
            assert (await app.workers.alist())[0].draining
            while "somebody has asked the worker in this process to end" not in caplog.text:
                await asyncio.sleep(0.02)
            go.set()
            while await app.workers.alist():
                await asyncio.sleep(0.02)
            assert await job.aresult(PATIENCE) == "done"
            await later.arefresh()
            assert later.state == "ready", "it claims nothing more"
            store = await app.connect()
            while [*(await store.load(REPORT)).docs, *(await store.load(PAUSE)).docs]:
                await asyncio.sleep(0.02)  # it leaves first, and then drops these
            old = [Doc(kind=kind, name="worker:gone", version=0, body=b"{}", due=1.0) for kind in (REPORT, PAUSE)]
            await store.save(old)
            await app.queues.apause("mail")
            await Duties(store, {}).forget()
            assert [doc.name for kind in (REPORT, PAUSE) for doc in (await store.load(kind)).docs] == ["queue:mail"]
        await app.aclose()

    asyncio.run(main())


def test_a_worker_that_would_not_hear_of_its_drain_is_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        store = await app.connect()
        for id in ("old-1111", "new-2222"):
            await store.enlist(WorkerInfo(id=id, host="web-1", pid=41, version="0", lease=60))
        await app.workers.adrain("old-1111")
        assert [one.draining for one in await app.workers.alist()] == [True, False], "it may not have spoken yet"
        monkeypatch.setattr(workers, "SPEAKS_WITHIN", -1.0)
        with pytest.raises(WorkerTooOld, match=r"older version\. Send SIGTERM to its process, 41 on web-1"):
            await app.workers.adrain("old-1111")
        await store.save([Doc(kind=REPORT, name="new-2222", version=0, body=b"{}")])
        await app.workers.adrain("new-2222")
        await app.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("app", ["memory", "sqlite"], indirect=True)
def test_a_worker_inside_of_this_process_is_drained_under_the_id_that_it_took_after_an_eviction(app: App) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), app.worker(concurrency=1):
            [first] = await app.workers.alist()
            await (await app.connect()).retire(first.id)
            while not (there := await app.workers.alist()):
                await asyncio.sleep(0.02)
            await app.workers.adrain(there[0].id)
            while await app.workers.alist():
                await asyncio.sleep(0.02)
        await app.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("app", ["sqlite"], indirect=True)
def test_a_worker_inside_of_this_process_leaves_also_when_its_runner_broke(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Runner) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(Runner, "run", broken)
    left = asyncio.Event()

    async def drain() -> None:
        async with asyncio.timeout(PATIENCE), app.worker(concurrency=1):
            await app.workers.adrain((await app.workers.alist())[0].id)
            while await app.workers.alist():
                await asyncio.sleep(0.02)
            left.set()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="a bug of ours"):
            await drain()
        assert left.is_set(), "before its time was over"
        await app.aclose()

    asyncio.run(main())
