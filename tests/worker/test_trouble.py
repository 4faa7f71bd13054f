"""Trouble that a neighbour, a foreign program or a signal makes: it stays with the one who made it."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
import time
from types import FrameType, ModuleType

import psutil
import pytest
from uuid_utils import uuid7

from tests.worker.rig import Rig, until
from windlass import JobFailed, State
from windlass.clock import SystemClock
from windlass.model import NewJob
from windlass.store.sqlite.store import SQLiteStore


def test_overtime_that_ends_in_the_last_call_is_charged_to_nobody_else(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1", "-c", "4"):
        neighbour = tasks.nap.using(timeout=60, retry=1).enqueue(9)
        until(lambda: rig.effects("nap 9"), "the neighbour runs")
        late = tasks.deaf.using(timeout=0.5, retry=1).enqueue(4)
        with pytest.raises(JobFailed, match="timeout"):
            late.result(timeout=60)
        neighbour.result(timeout=60)
        assert (neighbour.refresh().attempt, neighbour.attempts) == (1, ())


def test_a_long_id_is_charged_for_its_overtime(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1", "-c", "4"):
        job = tasks.deaf.using(timeout=0.5, retry=1, id="x" * 128).enqueue(600)
        with pytest.raises(JobFailed, match="timeout"):
            job.result(timeout=60)
    assert len(rig.effects("deaf")) == 1


def test_a_snooze_without_end_is_a_long_wait(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "1") as worker:
        job = tasks.snoozes_for_ever.enqueue()
        until(lambda: job.refresh().state == State.SCHEDULED, "the job is put off")
        pids = [one.pid for one in rig.runners(worker)]
        assert tasks.on_loop.enqueue(1).result(timeout=60) == 2
        assert [one.pid for one in rig.runners(worker)] == pids
    assert len(rig.effects("snoozes for ever")) == 1


@pytest.mark.parametrize("how", ["reports_oddly", "reports_oddly_in_process"])
def test_odd_progress_hurts_nobody(rig: Rig, tasks: ModuleType, how: str) -> None:
    with rig.worker("-p", "1"):
        job = getattr(tasks, how).enqueue()
        assert job.result(timeout=60) == 5
        assert job.refresh().record.lost == 0


def test_a_foreign_writer_and_a_dead_worker_cost_a_healthy_one_nothing(rig: Rig, tasks: ModuleType) -> None:
    rig = Rig(rig.log.parent, lease=2)
    dead = rig.start("-p", "1")
    until(lambda: rig.effects("lifespan opened"), "the first worker is there")
    with rig.worker("-p", "1"):
        until(lambda: len(rig.effects("lifespan opened")) == 2, "the second worker is there")
        healthy = rig.effects("lifespan opened")[1].pid
        job = tasks.nap.enqueue(6)
        until(lambda: rig.effects("nap 6"), "the job runs")
        os.kill(dead.pid, signal.SIGSTOP)  # its runner, should it have the job, goes on
        foreign = sqlite3.connect(rig.url.removeprefix("sqlite:///"), isolation_level=None, timeout=60)
        foreign.execute("BEGIN IMMEDIATE")
        time.sleep(4)
        foreign.execute("ROLLBACK")
        foreign.close()
        os.kill(dead.pid, signal.SIGCONT)
        job.result(timeout=60)
        assert psutil.pid_exists(healthy), "only the frozen worker's runner may have been replaced"
    assert len(rig.effects("napped")) == 1
    rig.stop(dead)
    rig.close()


class Interrupted(Exception):
    """Comes out of a signal handler, as a web server's timeout does."""


def test_a_signal_during_an_enqueue_leaves_nothing_open(rig: Rig) -> None:
    path = rig.url.removeprefix("sqlite:///")
    store = SQLiteStore(rig.url, SystemClock())
    asyncio.run(store.open())
    foreign = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    def one() -> list[NewJob]:
        return [NewJob(id=str(uuid7()), task="a.b", args=b"{}")]

    signal.signal(signal.SIGALRM, interrupt)
    for wait in (0.10, 0.11, 0.12, 0.13):  # while SQLite sleeps between two tries to get the lock
        foreign.execute("BEGIN IMMEDIATE")
        letting_go = threading.Timer(wait - 0.01, foreign.execute, ("ROLLBACK",))
        letting_go.start()
        signal.setitimer(signal.ITIMER_REAL, wait)
        with contextlib.suppress(Interrupted):
            store.put_now(one(), 10)
            time.sleep(wait)
        letting_go.join()
        assert store.put_now(one(), 10)[0].new
        foreign.execute("BEGIN IMMEDIATE")
        foreign.execute("ROLLBACK")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    foreign.close()
    asyncio.run(store.close())
