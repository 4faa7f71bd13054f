"""Very many schedules: how late they fire, how soon an edit counts, what a worker keeps.

python -m benchmarks.schedules, on the store that WINDLASS_URL names, which must be empty, else on a SQLite file of its
own. Lateness is from a tick to the moment at which its job was stored, once the worker has caught up.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import psutil

from windlass import App, schedule
from windlass.call import Call
from windlass.model import Doc
from windlass.schedule import Course, Plan
from windlass.store.contract import SCHEDULE, Store
from windlass.timing import EPOCH, every

ROOT = Path(__file__).parent.parent
APP = "tests.faults.tick_app:app"


async def fill(store: Store, count: int, rate: float) -> None:
    """Schedules that fire evenly, so many a second together."""
    period = count / rate
    now = (await store.load(SCHEDULE, names=())).now
    plans = []
    for number in range(count):
        anchor = EPOCH + timedelta(seconds=round(number / rate, 3))
        course = Course(
            plan=Plan(rule=every(seconds=period, anchor=anchor), call=Call(task="tick", args=b"{}")), cursor=now
        )
        name = f"s{number}"
        body, due = schedule.write(course), schedule.due_of(name, course)
        plans.append(Doc(kind=SCHEDULE, name=name, version=0, body=body, due=due))
    for at in range(0, count, 500):
        await store.save(plans[at : at + 500])


async def caught_up(app: App) -> None:
    """Wait until the worker has fired what was due when it came."""
    store = await app.connect()
    calm = 0
    while calm < 10:
        await asyncio.sleep(0.2)
        calm = 0 if len((await store.load(SCHEDULE, due=-1.0)).docs) else calm + 1
    await app.aclose()


def lateness(app: App, since: float) -> list[float]:
    """Seconds from the tick to the job, of jobs made since."""
    found: list[float] = []
    after: str | None = None
    while True:
        page = app.jobs.find(task="tick", limit=1_000, after=after)
        for job in page:
            made = job.enqueued_at.timestamp()
            if job.tick and made >= since:
                found.append(made - job.tick.timestamp())
        after = page.after
        if after is None:
            return sorted(found)


def edit(app: App, name: str) -> float:
    """Seconds from an edit, to fire each second, to its first job."""
    began = time.time()
    app.schedules.update(name, rule=every(seconds=1, anchor=EPOCH + timedelta(seconds=began % 1)))
    while time.time() < began + 30:
        fired = app.schedules.get(name)
        if fired.fired:
            job = app.jobs.get(fired.jobs[-1])
            app.schedules.pause(name)
            assert job.tick
            return job.enqueued_at.timestamp() - job.tick.timestamp()
        time.sleep(0.05)
    raise TimeoutError("the edited schedule did not fire")


def main() -> None:
    """Fill, run one worker, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=200.0, help="fires a second, of all together")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("WINDLASS_URL", f"sqlite:///{folder}/windlass.db")
        app = App()

        async def start() -> None:
            await fill(await app.connect(), given.schedules, given.rate)
            await app.aclose()

        asyncio.run(start())
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        worker = subprocess.Popen(
            [sys.executable, "-m", "windlass", "worker", APP, "-p", "1", "-c", "50"], cwd=ROOT, env=environment
        )
        try:
            asyncio.run(caught_up(app))
            began, before = time.time(), psutil.Process(worker.pid).memory_info().rss
            time.sleep(given.seconds)
            after = psutil.Process(worker.pid).memory_info().rss
            late = lateness(app, began)
            edits = sorted(edit(app, f"s{number}") for number in range(20))
        finally:
            worker.terminate()
            worker.wait()
        app.close()
    ms = [
        seconds * 1e3 for seconds in (late[len(late) // 2], late[int(len(late) * 0.99)], late[-1], edits[10], edits[-1])
    ]
    print(
        f"{given.schedules:,} schedules, {len(late) / given.seconds:,.0f} fires/s: late p50 {ms[0]:,.0f} ms, "
        f"p99 {ms[1]:,.0f} ms, max {ms[2]:,.0f} ms; edits late p50 {ms[3]:,.0f} ms, max {ms[4]:,.0f} ms; "
        f"the supervisor has {before / 2**20:,.0f} MB, and {after / 2**20:,.0f} MB after {given.seconds:g} s"
    )


if __name__ == "__main__":
    main()
