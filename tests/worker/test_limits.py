"""Processes that are replaced in time, and jobs that take more than there is."""

import asyncio
import errno
import subprocess
import sys
import threading
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.worker.rig import Rig, runs, until
from windlass import JobFailed, State
from windlass.worker.seat import Seat, Spec
from windlass.worker.supervisor import QUICK_DEATH, pause_after


@pytest.mark.every_store
def test_poison_fails_at_its_third_run_and_takes_nobody_along(rig: Rig, tasks: ModuleType) -> None:
    fine = [task.enqueue(n) for n in range(20) for task in (tasks.on_loop, tasks.in_thread, tasks.in_process)]
    poison = [
        tasks.hogs.using(priority=1).enqueue(400),
        tasks.dies.using(priority=1).enqueue("kill"),
        tasks.hogs.enqueue(400),
    ]
    with rig.worker("-p", "2", "-c", "4", "--max-memory", "100M"):
        for job in poison:
            with pytest.raises(JobFailed, match=r"killed by SIGKILL|more memory than it can have") as error:
                job.result(timeout=60)
            assert "lost run 3 of 3" in str(error.value)
        for job in fine:
            job.result(timeout=60)
    for job in poison:
        counted = [attempt for attempt in job.refresh().attempts if attempt.failure]
        assert len(counted) == 2, (
            "the first loss was in company; one more may be, when another ends its runner meanwhile"
        )
    assert {(job.refresh().state, job.attempt) for job in fine} == {(State.SUCCEEDED, 1)}
    last = poison[0].attempts[-1].failure
    assert last.type == "MemoryError"
    assert "in hogs" in last.traceback


@pytest.mark.every_store
def test_runners_and_children_are_replaced_after_their_jobs(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1", "-c", "4", "--max-jobs", "10"):
        long = tasks.nap.enqueue(4)
        until(lambda: rig.effects("nap 4"), "the long job runs")
        mine = rig.effects("nap 4")[0].pid
        until(
            lambda: tasks.in_thread.enqueue(1).result(timeout=60) and rig.effects("in_thread")[-1].pid != mine,
            "a new runner",
        )
        naps = [tasks.nap.enqueue(0.3) for _ in range(12)]
        more = [tasks.in_process.enqueue(n) for n in range(25)]
        for job in [*naps, *more, long]:
            job.result(timeout=60)
    every = Counter(effect.job for effect in rig.effects("nap ")) + Counter(effect.job for effect in rig.effects("in_"))
    assert set(every.values()) == {1}, "no job ran twice"
    assert "has run 1" in rig.text()
    assert "died" not in rig.text()
    assert max(Counter(effect.pid for effect in rig.effects("in_process")).values()) == 10
    steps = sorted([(one.at, 1) for one in rig.effects("nap ")] + [(one.at, -1) for one in rig.effects("napped")])
    running = [sum(step for _, step in steps[: at + 1]) for at in range(len(steps))]
    assert max(running) == 4, "the old runner's job counts"


@pytest.mark.parametrize("how", ["keeps", "keeps_in_process"])
def test_a_process_that_keeps_much_memory_is_replaced_between_jobs(rig: Rig, tasks: ModuleType, how: str) -> None:
    keep = getattr(tasks, how)
    with rig.worker("-p", "1", "-c", "1", "--max-memory", "100M") as worker:
        first = keep.enqueue(90).result(timeout=60)
        until(lambda: keep.enqueue(0).result(timeout=60) != first, "another process takes over")
        until(lambda: first not in [one.pid for one in rig.runners(worker) if runs(one)], "the first is gone")
    assert "max_memory is 100 MB" in rig.text()
    assert "died" not in rig.text()


def test_a_replaced_runner_that_does_not_close_keeps_neither_its_slots_nor_itself(rig: Rig, tasks: ModuleType) -> None:
    rig.environment["HANGS"] = "1"
    with rig.worker("-p", "1", "-c", "1", "--max-jobs", "1"):
        tasks.nap.enqueue(5).result(timeout=60)
        first = rig.effects("nap 5")[0].pid
        assert tasks.on_loop.enqueue(1).result(timeout=60) == 2, "its successor has the slot"
        assert rig.effects("on_loop")[0].pid != first
        until(lambda: not psutil.pid_exists(first), "it is gone")
    assert "tests.worker.sample:app did not close within 10 s" in rig.text()
    assert "died" not in rig.text()
    assert "blocked" not in rig.text()


def test_a_runner_that_is_spent_at_once_is_not_one_that_cannot_start() -> None:
    seat: Any = SimpleNamespace(expected=False, spent=asyncio.Event())
    assert pause_after(seat, 1.0, pause_after(seat, 1.0, 0.0)) == 0.4
    assert pause_after(seat, QUICK_DEATH + 1, 0.4) == 0.0
    seat.spent.set()
    assert pause_after(seat, 1.0, 0.4) == 0.0


@pytest.mark.parametrize("what", ["process", "thread"])
def test_a_full_table_of_processes_or_threads_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def no_process(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EAGAIN, "no more")

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("no more")

    async def start() -> None:
        with pytest.raises(OSError, match="no more"):
            await Seat.start(Spec(app="tests.worker.sample:app", concurrency=1))
        await asyncio.sleep(0)

    with monkeypatch.context() as full, asyncio.Runner() as runner:
        full.setattr(
            *((subprocess, "Popen", no_process) if what == "process" else (threading.Thread, "start", no_thread))
        )
        runner.run(start())
        before = psutil.Process().num_fds()
        for _ in range(3):
            runner.run(start())
        assert psutil.Process().num_fds() == before
    assert not [one for one in psutil.Process().children() if "windlass.worker.process" in one.cmdline()]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process child")
def test_what_a_child_has_mapped_and_does_not_use_is_not_held_against_its_jobs(rig: Rig, tasks: ModuleType) -> None:
    rig.environment["IDLE_THREADS"] = "40"
    with rig.worker("-p", "1", "-c", "1", "--max-memory", "100M"):
        tasks.keeps_in_process.enqueue(20).result(timeout=60)
        with pytest.raises(JobFailed, match="MemoryError"):
            tasks.keeps_in_process.using(retry=1).enqueue(500).result(timeout=60)
