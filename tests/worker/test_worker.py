"""Real workers on a real store: what people rely on, killed and blocked on purpose."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from tests.worker.rig import Rig, runs, until
from windlass import App, JobCancelled, JobFailed, Retry, State


@pytest.mark.every_store
def test_every_lane_runs_and_returns(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "2", "-c", "4"):
        jobs = [(tasks.on_loop.enqueue(n), n * 2) for n in range(20)]
        jobs += [(tasks.in_thread.enqueue(n), n * 3) for n in range(20)]
        jobs += [(tasks.in_process.enqueue(n), n * 4) for n in range(20)]
        assert [job.result(timeout=60) for job, _ in jobs] == [wanted for _, wanted in jobs]
    ran = Counter((effect.job, effect.fence) for effect in rig.effects() if effect.job != "-")
    assert all(count == 1 for count in ran.values())
    children = {effect.pid for effect in rig.effects("in_process")}
    assert len(children) <= 8, "children are warm and reused"


def test_a_child_is_reused(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1", "-c", "1"):
        for job in [tasks.in_process.enqueue(n) for n in range(30)]:
            job.result(timeout=60)
    assert len({effect.pid for effect in rig.effects("in_process")}) == 1


def test_lifespan_is_opened_and_closed_once_per_runner(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "2"):
        assert "of" in tasks.reports.enqueue().result(timeout=60)
    assert len(rig.effects("lifespan opened")) == len(rig.effects("lifespan closed")) == 2


@pytest.mark.every_store
def test_retries_until_it_works_and_keeps_every_error(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1"):
        job = tasks.fails.enqueue(2)
        assert job.result(timeout=60) == "after 2"
        job.refresh()
        assert [attempt.failure.message for attempt in job.attempts] == ["attempt 1", "attempt 2"]
        assert "ValueError" in job.attempts[0].failure.traceback
        assert job.attempt == 3


@pytest.mark.every_store
def test_fails_for_good_after_its_attempts(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1"):
        with pytest.raises(JobFailed, match="attempt 3") as error:
            tasks.fails.enqueue(9).result(timeout=60)
        assert error.value.type == "ValueError"


@pytest.mark.every_store
def test_snooze_charges_nothing(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1"):
        assert tasks.snoozes.enqueue().result(timeout=60) == 1


@pytest.mark.parametrize(
    ("what", "kind"),
    [("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("broken", "Hostile"), ("huge", "ValueError"),
     ("fail", "Fail"), ("group", "ExceptionGroup"), ("stray", "RuntimeError")],
)  # fmt: skip
def test_hostile_ends_fail_the_job_and_not_the_worker(rig: Rig, tasks: ModuleType, what: str, kind: str) -> None:
    with rig.worker("-p", "1") as worker:
        with pytest.raises(JobFailed) as error:
            tasks.raises.enqueue(what).result(timeout=60)
        assert error.value.type.endswith(kind)
        assert len(str(error.value)) < 100_000
        pids = {one.pid for one in rig.runners(worker)}
        assert tasks.on_loop.enqueue(1).result(timeout=60) == 2
        assert {one.pid for one in rig.runners(worker)} == pids


def test_cancel_raised_by_the_task(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1"), pytest.raises(JobCancelled, match="not needed"):
        tasks.raises.enqueue("cancel").result(timeout=60)


@pytest.mark.every_store
@pytest.mark.parametrize("how", ["nap", "doze", "sleep_in_process"])
def test_timeout_on_every_lane(rig: Rig, tasks: ModuleType, how: str) -> None:
    with rig.worker("-p", "1"):
        job = getattr(tasks, how).using(timeout=0.3).enqueue(50)
        with pytest.raises(JobFailed, match="timeout") as error:
            job.result(timeout=60)
        assert error.value.type == "TimeoutError"
        assert job.refresh().attempt == 3
    assert not rig.effects("ped") + rig.effects("dozed") + rig.effects("slept")


def test_threads_that_ignore_their_timeout_cost_their_runner_and_nobody_else(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1"):
        neighbour = tasks.nap.enqueue(12)
        until(lambda: rig.effects("nap 12"), "the neighbour runs")
        deaf = tasks.deaf.using(timeout=0.5, retry=Retry(attempts=1))
        for job in [deaf.enqueue(600), deaf.enqueue(601)]:
            with pytest.raises(JobFailed, match="timeout"):
                job.result(timeout=60)
        assert len(rig.effects("deaf")) == 2, "each ran once"
        neighbour.result(timeout=60)
        assert neighbour.refresh().attempt == 1, "the neighbour was not charged"
    assert "will be replaced" in rig.text()


@pytest.mark.every_store
@pytest.mark.parametrize("how", ["nap", "doze", "sleep_in_process"])
def test_cancel_a_running_job_on_every_lane(rig: Rig, tasks: ModuleType, how: str) -> None:
    with rig.worker("-p", "1"):
        job = getattr(tasks, how).enqueue(500)
        until(lambda: rig.effects("500"), "the job runs")
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result(timeout=60)
    assert len(rig.effects("500")) == 1


@pytest.mark.every_store
@pytest.mark.parametrize("how", ["kill", "segfault", "exit"])
def test_a_job_that_kills_its_process_fails_at_the_third_loss(rig: Rig, tasks: ModuleType, how: str) -> None:
    with rig.worker("-p", "1", "-c", "4"):
        innocent = tasks.nap.enqueue(3)
        until(lambda: rig.effects("nap"), "the innocent job runs")
        job = tasks.dies.enqueue(how)
        with pytest.raises(JobFailed, match="died"):
            job.result(timeout=60)
        innocent.result(timeout=60)
        assert innocent.refresh().attempt == 1
    assert len(rig.effects(f"dies {how}")) == 3


def test_a_parent_whose_process_dies_finds_its_children(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1", "-c", "1"):
        parent = tasks.family.enqueue(7)
        assert parent.result(timeout=60) == [14, 21]
    assert len(rig.effects("family")) == 4, "killed, alone until it had to wait, killed again, alone to its end"
    assert len(rig.effects("on_loop 7")) == len(rig.effects("in_thread 7")) == 1


@pytest.mark.every_store
def test_kill_9_of_a_runner_gives_its_jobs_back_at_once(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "2", "-c", "2") as worker:
        jobs = [tasks.nap.enqueue(2) for _ in range(4)]
        until(lambda: len(rig.effects("nap 2")) == 4, "all four run")
        victim = rig.effects("nap 2")[0].pid
        os.kill(victim, signal.SIGKILL)
        for job in jobs:
            job.result(timeout=60)
        assert len(rig.runners(worker)) == 2
    assert len(rig.effects("napped")) == 4
    assert max(job.refresh().attempt for job in jobs) == 1, "a loss is not a failed attempt"


@pytest.mark.every_store
def test_kill_9_of_a_whole_worker_waits_for_the_lease_and_no_longer(rig: Rig, tasks: ModuleType) -> None:
    rig = Rig(rig.log.parent, rig.url, lease=2)
    first = rig.start("-p", "1")
    job = tasks.nap.enqueue(1)
    until(lambda: rig.effects("nap"), "the job runs")
    runners = rig.runners(first)
    first.kill()
    first.wait()
    until(lambda: not any(map(runs, runners)), "the runner dies with its supervisor")
    assert not rig.effects("napped")
    with rig.worker("-p", "1"):
        job.result(timeout=60)
    assert [effect.fence for effect in rig.effects("nap 1")] == [1, 2]
    assert rig.told(tasks.app) == [], "what it told of itself is gone with it"
    rig.close()


HELD = """
import os, sys, time
if "windlass.worker.process" in sys.orig_argv:
    parent = os.getppid()
    open("held", "w").write(str(os.getpid()))
    while os.getppid() == parent:
        time.sleep(0.01)
"""


def test_a_runner_whose_supervisor_died_while_it_started_does_not_even_import_the_app(rig: Rig, tmp_path: Path) -> None:
    """The kernel tells of the end of a parent only those who had asked before it."""
    (tmp_path / "sitecustomize.py").write_text(HELD)
    (tmp_path / "late.py").write_text("open('imported', 'w'); import windlass; app = windlass.App()")
    rig.environment["PYTHONPATH"] += f":{tmp_path}"
    worker = rig.start("-p", "1", app="late:app", cwd=tmp_path)
    until(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text(), "the runner is about to start")
    runner = psutil.Process(int((tmp_path / "held").read_text()))
    worker.kill()
    worker.wait()
    until(lambda: not runs(runner), "the runner ends too")
    assert not (tmp_path / "imported").exists()


@pytest.mark.every_store
def test_sigterm_hands_unfinished_jobs_back_uncharged(rig: Rig, tasks: ModuleType) -> None:
    worker = rig.start("-p", "2", "-c", "2")
    slow = [tasks.nap.enqueue(600), tasks.doze.enqueue(600), tasks.sleep_in_process.enqueue(600)]
    short = tasks.nap.enqueue(1)
    until(lambda: len(rig.effects("00")) == 3 and rig.effects("nap 1"), "all run")
    assert rig.stop(worker) == 0
    assert short.refresh().state == State.SUCCEEDED, "what ends within the grace ends"
    for job in slow:
        job.refresh()
        assert (job.state, job.attempt) == (State.READY, 0)


def test_a_second_signal_does_not_wait(rig: Rig, tasks: ModuleType) -> None:
    worker = rig.start("-p", "1")
    job = tasks.deaf.enqueue(600)
    until(lambda: rig.effects("deaf"), "the job runs")
    worker.send_signal(signal.SIGTERM)  # not SIGINT: what a shell starts in the background ignores that
    time.sleep(1)  # two that come before the first was heard are one to the kernel
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert job.refresh().state == State.READY


@pytest.mark.every_store
def test_an_unknown_task_waits_for_a_worker_that_knows_it(rig: Rig, tasks: ModuleType) -> None:
    app = App(rig.url)

    @app.task(name="tests.worker.other.newer")
    def newer() -> str:
        return "old"

    job = newer.enqueue()
    with rig.worker("-p", "1"):
        assert tasks.on_loop.enqueue(4).result(timeout=60) == 8
        assert job.refresh().state == State.READY
    with rig.worker("-p", "1", app="tests.worker.other:app"):
        assert job.result(timeout=60) == "new"
    app.close()


@pytest.mark.parametrize("how", ["blocks_sleep", "blocks_spin", "blocks_in_c"])
def test_a_blocked_loop_runs_once_and_is_named(rig: Rig, tasks: ModuleType, how: str) -> None:
    rig = Rig(rig.log.parent, rig.url, lease=2)
    with rig.worker("-p", "2", "-c", "1"):
        job = getattr(tasks, how).enqueue(6)
        until(lambda: rig.effects(how), "the job blocks")
        others = [tasks.in_thread.enqueue(n) for n in range(10)]
        for other in others:
            other.result(timeout=60)
        assert not rig.effects("blocked"), "the others did not wait for it"
        job.result(timeout=60)
    assert len(rig.effects(how)) == 1
    assert "has been blocked" in rig.text()
    assert "tests/worker/sample.py:" in rig.text()
    rig.close()


@pytest.mark.every_store
def test_priority_and_strict_queues(rig: Rig, tasks: ModuleType) -> None:
    low = [tasks.on_loop.using(queue="low", priority=50).enqueue(n) for n in range(3)]
    high = [tasks.on_loop.using(queue="high", priority=p).enqueue(p) for p in (0, -5, 9)]
    with rig.worker("-p", "1", "-c", "1", "-q", "high,low"):
        for job in low + high:
            job.result(timeout=60)
    order = [effect.job for effect in rig.effects("on_loop")]
    assert order == [high[2].id, high[0].id, high[1].id, *(job.id for job in low)]


@pytest.mark.every_store
def test_a_frozen_worker_comes_back_to_nothing(rig: Rig, tasks: ModuleType) -> None:
    rig = Rig(rig.log.parent, rig.url, lease=2)
    frozen = rig.start("-p", "1", "-c", "1")
    job = tasks.nap.enqueue(3)
    until(lambda: rig.effects("nap"), "the job runs")
    everyone = [frozen.pid, *(one.pid for one in rig.runners(frozen))]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    with rig.worker("-p", "1", "-c", "1"):
        until(lambda: len(rig.effects("nap 3")) == 2, "another worker takes the job over")
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):  # the thawed supervisor ends its runner at once
                os.kill(pid, signal.SIGCONT)
        job.result(timeout=60)
        assert job.refresh().attempt == 1
        until(lambda: len(rig.effects("lifespan opened")) >= 3, "the frozen worker starts over")
    assert rig.stop(frozen) == 0
    assert "starting over" in rig.text() or "ending runner" in rig.text() or "not registered" in rig.text()
    assert len(rig.effects("napped")) == 1, "the first attempt was ended before it could finish"
    rig.close()


@pytest.mark.every_store
def test_expired_jobs_do_not_start(rig: Rig, tasks: ModuleType) -> None:
    job = tasks.on_loop.using(expires_in=0.05).enqueue(1)
    later = tasks.on_loop.using(expires_in=60).enqueue(2)
    until(lambda: job.enqueued_at.timestamp() + 0.1 < time.time(), "the job expires")
    with rig.worker("-p", "1"):
        assert later.result(timeout=60) == 4
        with pytest.raises(JobCancelled, match="expired"):
            job.result(timeout=60)
    assert [effect.job for effect in rig.effects("on_loop")] == [later.id]


def test_an_alias_runs_jobs_of_the_old_name(rig: Rig, tasks: ModuleType) -> None:
    app = App(rig.url)

    @app.task(name="tests.worker.other.older")
    def older() -> str:
        return "old"

    job = older.enqueue()
    with rig.worker("-p", "1", app="tests.worker.other:app"):
        assert job.result(timeout=60) == "new"
    app.close()


@pytest.mark.every_store
@pytest.mark.parametrize("url", ["sqlite:///:memory:", "file"])
def test_a_worker_in_this_process(rig: Rig, url: str) -> None:
    async def main() -> None:
        app = App(rig.url if url == "file" else url)

        @app.task
        async def double(n: int) -> int:
            return n * 2

        @app.task
        def triple(n: int) -> int:
            return n * 3

        @app.task
        async def endless() -> None:
            await asyncio.sleep(3600)

        async with app.worker(concurrency=10):
            jobs = [await double.aenqueue(n) for n in range(50)]
            more = [await triple.aenqueue(n) for n in range(50)]
            assert [await job.aresult(timeout=30) for job in jobs] == [n * 2 for n in range(50)]
            assert [await job.aresult(timeout=30) for job in more] == [n * 3 for n in range(50)]
            unwanted = await endless.aenqueue()
            while (await unwanted.arefresh()).state != State.RUNNING:
                await asyncio.sleep(0.01)
            await unwanted.acancel()
            with pytest.raises(JobCancelled):
                await unwanted.aresult(timeout=30)
        await app.aclose()

    asyncio.run(main())


@pytest.mark.every_store
def test_progress_is_stored_while_the_job_runs(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1"):
        job = tasks.reports.enqueue()
        until(lambda: job.refresh().progress, "progress is there")
        job.result(timeout=60)
        assert job.refresh().progress.done == 3


@pytest.mark.parametrize("lane", ["async", "thread", "process"])
def test_hooks_see_every_attempt_and_cannot_hurt_it(rig: Rig, tasks: ModuleType, lane: str) -> None:
    with rig.worker("-p", "1"):
        getattr(tasks, f"hooked_{lane}").enqueue().result(timeout=60)
    assert [effect.text for effect in rig.effects("hook")] == ["hook before", "hook after succeeded"]


def test_a_stray_exit_in_the_background_ends_nothing(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1") as worker:
        until(lambda: rig.effects("lifespan opened"), "the runner is there")
        before = [one.pid for one in rig.runners(worker)]
        with contextlib.suppress(JobFailed):
            tasks.leaves_a_bomb.enqueue().result(timeout=60)
        assert tasks.on_loop.enqueue(1).result(timeout=60) == 2
        assert [one.pid for one in rig.runners(worker)] == before


def test_a_deaf_thread_does_not_keep_others_from_their_timeouts(rig: Rig) -> None:
    async def main() -> None:
        app = App("sqlite:///:memory:")

        @app.task(timeout=0.1, retry=1)
        def deaf() -> None:
            released.wait(60)

        @app.task(timeout=0.2, retry=1)
        async def slow() -> None:
            await asyncio.sleep(3600)

        async with app.worker(concurrency=4):
            ignored = await deaf.aenqueue()
            while (await ignored.arefresh()).state != State.RUNNING:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            with pytest.raises(JobFailed, match="timeout"):
                await (await slow.aenqueue()).aresult(timeout=30)
            released.set()
            with pytest.raises(JobFailed, match="timeout"):
                await ignored.aresult(timeout=30)
        await app.aclose()

    released = threading.Event()
    asyncio.run(main())
