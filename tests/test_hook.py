"""Hooks, as users write them: jobs come, run and end."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.worker.rig import PATIENCE
from windlass import App, Cancel, Hook, Job, Retry, Secret, Snooze, current
from windlass.model import Claim, Outcome


class Diary(Hook):
    """What was enqueued, and how attempts ended; it fails each time."""

    def __init__(self) -> None:
        self.enqueues: list[Job[Any]] = []
        self.ends: list[str] = []
        self.shown: list[str] = []

    def enqueued(self, job: Job[Any]) -> None:
        self.enqueues.append(job)
        raise RuntimeError("enqueued")

    def settled(self, claim: Claim, outcome: Outcome) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.ends.append(f"{claim.task} {outcome.ending}")
        self.shown.append(f"{claim!r} {outcome!r}")
        raise SystemExit


def make_app(url: str, diary: Hook) -> App:
    app = App(url, hooks=[Hook(), diary])

    @app.task(name="work", retry=Retry(attempts=2, backoff=0))
    async def work(n: int = 0) -> int:
        if n < 0:
            raise ValueError("below zero")
        return n

    @app.task(name="moody")
    def moody() -> None:
        if current().fence == 1:
            raise Snooze(0)
        raise Cancel

    @app.task(name="commits")
    async def commits() -> None:
        async with current().transaction():
            pass

    @app.task(name="hidden")
    def hidden(word: Annotated[str, Secret()]) -> int:
        return len(word)

    @app.task(name="leaves", executor="process", retry=1)
    def leaves() -> None:
        raise KeyError("gone")

    return app


async def work_until(app: App, there: Callable[[], bool], *, before: Callable[[], Awaitable[Any]]) -> None:
    """Run a worker until that is so."""
    async with app.worker(concurrency=4), asyncio.timeout(PATIENCE):
        await before()
        while not there():
            await asyncio.sleep(0.01)
    await app.aclose()


def test_a_hook_hears_of_each_end_that_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary()
    app = make_app(f"sqlite:///{tmp_path}/windlass.db", diary)
    task = app.tasks

    async def before() -> None:
        calls = [task["work"].bind(1), task["work"].bind(-1), task["moody"].bind(), task["commits"].bind()]
        await app.aenqueue_many([*calls, task["hidden"].bind("sesame")])

    asyncio.run(work_until(app, lambda: len(diary.ends) == 7, before=before))
    assert sorted(diary.ends) == [
        "commits succeeded",
        "hidden succeeded",
        "moody cancelled",
        "moody snoozed",
        "work failed",
        "work retry",
        "work succeeded",
    ]
    assert "sesame" not in "".join(diary.shown)
    assert "Diary.settled failed" in caplog.text


def test_a_hook_hears_how_a_process_child_ended_its_job() -> None:
    diary = Diary()
    app = make_app("sqlite:///:memory:", diary)
    asyncio.run(work_until(app, lambda: bool(diary.ends), before=lambda: app.tasks["leaves"].aenqueue()))
    assert diary.ends == ["leaves failed"]


def test_a_refused_end_is_not_told(tmp_path: Path) -> None:
    diary, url = Diary(), f"sqlite:///{tmp_path}/windlass.db"
    app = make_app(url, diary)

    @app.task(name="robbed")
    async def robbed() -> None:
        ran.set()
        with sqlite3.connect(f"{tmp_path}/windlass.db") as other:
            other.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (current().job.id,))  # type: ignore[union-attr]

    ran = asyncio.Event()

    async def before() -> None:
        await robbed.aenqueue()
        await ran.wait()
        await app.tasks["work"].aenqueue(1)

    asyncio.run(work_until(app, lambda: "work succeeded" in diary.ends, before=before))
    assert "robbed succeeded" not in diary.ends


def test_a_slow_hook_delays_no_job() -> None:
    class Slow(Hook):
        def settled(self, claim: Claim, outcome: Outcome) -> None:
            assert free.wait(PATIENCE)
            ends.append(claim.id)

    async def before() -> None:
        for n in range(3):
            assert await (await app.tasks["work"].aenqueue(n)).aresult(PATIENCE) == n
        free.set()

    free, ends = threading.Event(), []  # type: ignore[var-annotated]
    app = make_app("sqlite:///:memory:", Slow())
    asyncio.run(work_until(app, lambda: True, before=before))
    assert len(ends) == 3  # the worker has waited for its hooks


def test_a_hook_hears_of_new_jobs_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary()
    app = make_app(f"sqlite:///{tmp_path}/windlass.db", diary)
    work = app.tasks["work"]
    first = work.using(unique="one").enqueue(1)
    assert not work.using(unique="one").enqueue(1).new
    many = app.enqueue_many([work.bind(2), work.using(unique="one").bind(3), work.bind(4)])
    asyncio.run(work.aenqueue(5))
    with sqlite3.connect(f"{tmp_path}/windlass.db", isolation_level=None) as mine:
        mine.execute("BEGIN")
        undone = work.using(tx=mine).enqueue(6)
        mine.execute("ROLLBACK")
    assert [job.args["n"] for job in diary.enqueues] == [1, 2, 4, 5, 6]
    assert [first, many[0], many[2]] == diary.enqueues[:3]
    assert undone == diary.enqueues[-1]
    assert {job.task for job in diary.enqueues} == {"work"}
    assert "Diary.enqueued failed" in caplog.text
    app.close()
