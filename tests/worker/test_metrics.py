"""`/metrics`: what a worker tells Prometheus of jobs of every outcome, and of a store that is gone."""

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections.abc import Sequence
from types import ModuleType

from prometheus_client.parser import text_string_to_metric_families

from tests.servers import free_port
from tests.worker.rig import ROOT, Rig, closing, until
from windlass import App, metrics
from windlass.clock import FakeClock
from windlass.errors import StoreUnavailable
from windlass.model import Line, Shelf, State, Tally, WorkerInfo
from windlass.overview import Overview
from windlass.store.contract import OTHER
from windlass.worker.counts import OUTCOMES

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> tuple[set[str], Values]:
    """The names of the families, and every sample, as a library reads them."""
    families = list(text_string_to_metric_families(text))
    kinds = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    samples = [sample for one in families for sample in one.samples]
    return kinds, {(one.name, tuple(sorted(one.labels.items()))): one.value for one in samples}


def value(values: Values, name: str, **labels: str) -> float:
    return values.get((name, tuple(sorted(labels.items()))), 0.0)


def test_a_worker_tells_what_became_of_its_jobs(rig: Rig, tasks: ModuleType) -> None:
    port = free_port()

    def read() -> tuple[set[str], Values]:
        time.sleep(0.2)  # a runner tells every two seconds
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert answer.headers["content-type"] == metrics.KIND
            return parsed(answer.read().decode())

    def outcome(task: str, outcome: str) -> float:
        name = f"tests.worker.sample.{task}"
        return value(read()[1], "windlass_jobs_total", queue="default", task=name, outcome=outcome)

    worker = rig.start("-p", "1", "-c", "4", "--health", f"127.0.0.1:{port}")
    until(lambda: rig.effects("lifespan opened"), "the runner is ready")
    for task, given in ((tasks.on_loop, 1), (tasks.fails, 1), (tasks.raises, "cancel"), (tasks.raises, "fail")):
        task.enqueue(given)
    until(lambda: outcome("raises", "failed") and outcome("fails", "succeeded"), "the runner's word")
    assert [outcome("on_loop", "succeeded"), outcome("fails", "succeeded")] == [1, 1]
    assert [outcome("fails", "retried"), outcome("raises", "cancelled")] == [1, 1]
    task = "tests.worker.sample.nap"
    tasks.nap.enqueue(3)
    until(lambda: value(read()[1], "windlass_jobs_started_total", queue="default", task=task), "it is told to run")
    until(lambda: value(read()[1], "windlass_queue_jobs", queue="default", state="running") == 1, "it is seen to run")
    os.kill(rig.runners(worker)[0].pid, signal.SIGKILL)
    until(lambda: outcome("nap", "succeeded"), "it runs again")
    names, values = read()
    ran = {key: found for key, found in values.items() if key[0] == "windlass_job_run_seconds_count"}
    assert sum(ran.values()) == 6
    assert value(values, "windlass_job_wait_seconds_count", queue="default", task=task) == 2
    lost = [found for (name, labels), found in values.items() if ("outcome", "lost") in labels]
    assert sum(lost) == 1, "of its task, or of (other) if the runner died before it could tell"
    assert value(values, "windlass_worker_runner_deaths_total") == 1
    assert value(values, "windlass_workers") == value(values, "windlass_store_up") == 1
    assert value(values, "windlass_process_resident_memory_bytes", process="runner-0") > 1 << 20
    assert value(values, "windlass_store_call_seconds_count", method="exchange") > 5
    assert names == {one.name for one in metrics.ALL}, "what is exposed is what metrics.ALL names"
    rig.stop(worker)
    written, told = closing(tasks.app, written_of(tasks.app)), ("started", *OUTCOMES.values())
    assert [sum(getattr(row, name) for row in written) for name in told] == [7, 3, 1, 1, 1, 1]


async def written_of(app: App) -> Sequence[Tally]:
    """What the store was told."""
    store = await app.connect()
    return await store.series(time.time() - 3_600, time.time() + 60, 60)


class Away:
    """A store that answers, then hangs, then is gone."""

    def __init__(self) -> None:
        self.reads = 0
        self.fails = False
        self.open = asyncio.Event()
        self.open.set()

    async def stats(self) -> list[Line]:
        self.reads += 1
        await self.open.wait()
        if self.fails:
            raise StoreUnavailable("gone")
        return [Line(queue=f"q{n:03}", task="t", state=State.READY, count=n, oldest=n) for n in range(1, 301)]

    async def workers(self) -> list[WorkerInfo]:
        return []

    async def load(self, kind: str, *, due: float) -> object:
        return Shelf(now=0.0, docs=())


def test_a_store_that_hangs_or_is_gone_keeps_nobody_waiting() -> None:
    async def main() -> None:
        store, clock = Away(), FakeClock()

        async def connect() -> Away:
            return store

        async def found() -> Values:
            return parsed(metrics.text(await overview.found()).decode())[1]

        overview = Overview(connect, clock)  # type: ignore[arg-type]
        first = await found()
        assert value(first, "windlass_store_up") == 1
        depths = [key for key in first if key[0] == "windlass_queue_jobs"]
        assert len(depths) == metrics.MOST + 1, "no more queues than are told apart"
        rest = {"queue": OTHER, "state": "ready"}
        assert value(first, "windlass_queue_jobs", **rest) == sum(range(1, 101))
        await asyncio.gather(*(found() for _ in range(50)))
        assert store.reads == 1, "asked once, however often it is scraped"
        store.open.clear()
        clock.advance(3)
        assert value(await found(), "windlass_store_age_seconds") == 3, "the look before has to do"
        clock.advance(11)
        assert await found() == {("windlass_store_up", ()): 0}, "it hangs, and nothing is told of it"
        store.fails = True
        store.open.set()
        await asyncio.sleep(0.01)
        clock.advance(3)
        assert await found() == {("windlass_store_up", ()): 0}
        assert store.reads == 2 + 1, "it is asked again"
        store.fails = False
        clock.advance(100)
        assert value(await found(), "windlass_store_up") == 1

    asyncio.run(main())


def test_the_documentation_names_every_series() -> None:
    table = re.findall(
        r"^\| `(\w+)(?:\{([\w,]+)\})?` \| (\w+) \| (.*) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    assert table == [(one.name, ",".join(one.labels), one.kind, one.help) for one in metrics.ALL]
