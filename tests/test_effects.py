"""The example of docs/effects.md: a ledger with a fence books once, and refuses an attempt that comes too late."""

import asyncio
import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.worker.rig import PATIENCE, ROOT, empty_store
from windlass.model import Ending

PAGE = (ROOT / "docs" / "effects.md").read_text("utf-8")


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def bank(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "bank.py").write_text(code)
    monkeypatch.setenv("WINDLASS_URL", empty_store(request.param, tmp_path))
    monkeypatch.setenv("LEDGER", f"{tmp_path}/ledger.db")
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("bank")
    sys.modules.pop("bank")


def rows(ledger: str) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(ledger)) as db:
        return db.execute("SELECT fence, cents FROM ledger").fetchall()


def test_an_attempt_that_comes_too_late_is_refused(
    bank: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first attempt stands still before it books; its job is given to another worker, which books; it goes on."""
    first = 1
    stands_still, goes_on = threading.Event(), threading.Event()
    answers: list[tuple[int, bool]] = []
    book: Callable[..., bool] = bank.book

    def count(cents: int) -> int:
        if bank.current().fence == first:
            stands_still.set()
            assert goes_on.wait(PATIENCE)
        return cents

    def seen(job: str, fence: int, account: str, cents: int) -> bool:
        answers.append((fence, book(job, fence, account, cents)))
        return answers[-1][1]

    monkeypatch.setattr(bank, "count", count)
    monkeypatch.setattr(bank, "book", seen)
    job = bank.pay.enqueue("alice", 500)

    async def both() -> None:
        store = await bank.app.connect()
        async with bank.app.worker(concurrency=1):
            assert await asyncio.to_thread(stands_still.wait, PATIENCE)
            (frozen,) = [runner.id for worker in await store.workers() for runner in worker.runners]
            await store.release([frozen], Ending.INTERRUPTED)  # as everybody does once its lease is over
            async with bank.app.worker(concurrency=1):
                assert await job.aresult(PATIENCE) == "500 booked at fence 2"
                goes_on.set()
                while len(answers) < 2:
                    await asyncio.sleep(0.01)
        await bank.app.aclose()

    asyncio.run(both())
    assert answers == [(2, True), (1, False)]
    assert rows(f"{tmp_path}/ledger.db") == [(2, 500)]
    assert bank.app.jobs.get(job.id).result() == "500 booked at fence 2"
    bank.app.close()


def test_an_attempt_may_book_again_and_a_later_one_takes_over(bank: ModuleType, tmp_path: Path) -> None:
    said = [bank.book("a", fence, "alice", cents) for fence, cents in ((1, 5), (1, 6), (3, 7), (2, 8), (1, 9), (3, 7))]
    assert said == [True, True, True, False, False, True]
    assert rows(f"{tmp_path}/ledger.db") == [(3, 7)]
