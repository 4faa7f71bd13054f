"""What `-c auto` measures, and what it does with a real worker. The rule itself: test_climb.py."""

import asyncio
import json
import logging
import urllib.request
from types import ModuleType

import pytest

from tests.servers import free_port
from tests.worker.rig import Rig, until
from windlass import App
from windlass.worker.adaptive import Adaptive
from windlass.worker.climb import START, Ended, Sample
from windlass.worker.meter import Meter


def test_a_worker_takes_more_jobs_at_a_time_while_that_is_good(rig: Rig, tasks: ModuleType) -> None:
    health = f"127.0.0.1:{free_port()}"

    def slots() -> int:
        with urllib.request.urlopen(f"http://{health}/readyz", timeout=10) as answer:
            return int(json.load(answer)["slots"])

    tasks.app.enqueue_many([tasks.nap.bind(0.1) for _ in range(1_000)])
    with rig.worker("-p", "1", "-c", "auto", "--health", health):
        until(lambda: rig.effects("napped"), "jobs run")
        until(lambda: slots() > START, "more slots than at the start")
        until(lambda: most_at_once(rig) > START, "the jobs to go with them")
    assert "up to " in rig.text(), "it says what the ceiling is"


def test_in_the_users_own_process() -> None:
    """No job ends before the first ones have begun, so nothing is learnt until then."""

    async def main() -> None:
        app = App("sqlite:///:memory:")
        go, begun = asyncio.Event(), []

        @app.task
        async def waits(n: int) -> int:
            begun.append(n)
            await go.wait()
            return n

        jobs = [await waits.aenqueue(n) for n in range(3 * START)]
        async with app.worker(concurrency="auto"):
            async with asyncio.timeout(60):
                while len(begun) < START:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert len(begun) == START
            go.set()
            assert [await job.aresult(timeout=60) for job in jobs] == [*range(3 * START)]
        await app.aclose()

    asyncio.run(main())


def most_at_once(rig: Rig) -> int:
    """The most jobs that were seen to run together."""
    most = running = 0
    for effect in rig.effects("nap"):
        running += 1 if effect.text.startswith("nap ") else -1
        most = max(most, running)
    return most


def test_only_time_in_which_there_are_more_jobs_than_slots_counts() -> None:
    meter = Meter(100.0)
    meter.asked(100.0, is_full=True)
    meter.began(100.0)
    meter.began(101.0)
    meter.ended(103.0, "a", 3.0, good=True)
    meter.asked(103.0, is_full=False)
    meter.ended(109.0, "b", 8.0, good=False)
    sample = meter.take(110.0, cpu=0.5, late=0.25, pressed=False)
    assert (sample.seconds, sample.full, sample.running) == (10.0, 3.0, 1 + 2 * 2.0)
    assert sample.tasks == {"a": Ended(1, 1, 3.0), "b": Ended(1, 0, 8.0)}
    again = meter.take(112.0, cpu=0.0, late=0.0, pressed=False)
    assert (again.seconds, again.full, again.running, again.tasks) == (2.0, 0.0, 0.0, {})


def full(limit: int, **more: bool) -> Sample:
    """A second of jobs that take 0.1 s each."""
    ended = {"a": Ended(limit * 10, limit * 10, limit * 1.0)}
    return Sample(seconds=1.0, full=1.0, running=float(limit), tasks=ended, **more)


def test_what_it_found_and_why_it_went_down_is_told(caplog: pytest.LogCaptureFixture) -> None:
    adaptive = Adaptive(ceiling=40, processes=1)
    with caplog.at_level(logging.INFO, "windlass.worker"):
        for _ in range(120):
            adaptive.take(full(adaptive.limit))
        assert adaptive.limit >= 34
        assert len(caplog.records) == 1, "once, and not at each step"
        assert f"after {START}:" in caplog.text
        caplog.clear()
        adaptive.take(full(adaptive.limit, pressed=True))
        assert "memory is short" in caplog.text
        assert adaptive.limit <= 20


def test_slots_that_a_predecessor_still_has_teach_nothing() -> None:
    adaptive = Adaptive(ceiling=40, processes=1)
    adaptive.given = START - 1
    for _ in range(20):
        adaptive.take(full(adaptive.given))
    assert adaptive.limit == START


def test_a_successor_goes_on_where_its_predecessor_was() -> None:
    old, new = Adaptive(ceiling=40, processes=1), Adaptive(ceiling=40, processes=1)
    for _ in range(5):
        old.take(full(old.limit))
    assert old.limit > START
    new.inherit(old.limit, old.calm)
    assert (new.limit, new.calm) == (old.limit, old.calm)
    assert set(new.calm) == {"a"}


def test_a_ceiling_below_the_first_limit() -> None:
    assert Adaptive(ceiling=2, processes=1).limit == 2
