"""Real workers fire what their code declares."""

import asyncio
import os
import signal

import psutil
import pytest

from tests.worker.rig import Rig, until
from windlass import App, Job, every

CODE = "tests.worker.clock_app:app"


def ran(app: App, name: str) -> list[Job[object]]:
    return [job for job in app.jobs.find(task="clock.tick", state="succeeded", limit=1_000) if job.schedule == name]


@pytest.mark.every_store
def test_each_tick_is_one_job_though_workers_are_killed(rig: Rig) -> None:
    app = App(rig.url)
    workers = [rig.start("-p", "1", app=CODE) for _ in range(2)]
    until(lambda: len(ran(app, "old")) >= 2, "the schedule to fire")
    for worker in workers:
        for process in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
            os.kill(process.pid, signal.SIGKILL)
        worker.wait()
    rig.environment["CODE"] = "new"
    seen = app.schedules.get("old").fired
    rig.start("-p", "1", app=CODE)
    until(lambda: len(ran(app, "new")) >= 2, "the schedule of the new code to fire")
    assert [one.name for one in app.schedules.list()] == ["new"], "what the code does not declare any more is gone"
    ticks = sorted(job.tick for job in ran(app, "old") if job.tick)
    assert len(ticks) >= seen
    assert len(set(ticks)) == len(ticks)
    assert (ticks[-1] - ticks[0]).total_seconds() == len(ticks) - 1, "none was left out"
    job = ran(app, "new")[0]
    assert job.result() == ["new", job.tick.isoformat().replace("+00:00", "Z") if job.tick else None]
    app.close()


def test_a_worker_inside_another_process_fires_too() -> None:
    app = App("sqlite:///:memory:")
    seen = asyncio.Event()

    @app.schedule(every(seconds=1))
    @app.task(name="here")
    async def here() -> None:
        seen.set()

    async def main() -> None:
        async with app.worker(concurrency=2):
            await asyncio.wait_for(seen.wait(), 60)

    asyncio.run(main())
    assert seen.is_set()
