"""A store with one job in each state, filled through the contract, and the command line beside it."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result

from tests.worker.rig import empty_store
from windlass import audit
from windlass.cli import cli
from windlass.model import (
    Demand,
    Ending,
    Failure,
    Filter,
    JobRecord,
    Lane,
    NewJob,
    Outcome,
    Patch,
    Progress,
    RunnerInfo,
    Verb,
    WorkerInfo,
)
from windlass.store.contract import Store
from windlass.store.dispatch import make_store

T = TypeVar("T")
TASKS = frozenset({"shop.pay", "shop.mail"})
EVERYWHERE = {"tests.cli.test_jobs", "test_queues_mark_what_nobody_runs", "test_empty_queues", "test_workers"}
"""The modules and tests that run on every store; the rest need a file, or say nothing of a store."""

NOT_EVERYWHERE = {"test_delete_while_watched_says_so"}
"""Tests in those modules that reach into the SQLite store."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the command line on SQLite, or on every store."""
    if "shell" in metafunc.fixturenames:
        test = metafunc.function.__name__
        wide = EVERYWHERE & {metafunc.module.__name__, test} and test not in NOT_EVERYWHERE
        metafunc.parametrize("kind", ["sqlite", "postgres", "redis"] if wide else ["sqlite"])


class Shell:
    """`windlass …` on one store."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *args: str, code: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(cli, list(args), input=input, prog_name="windlass")
        assert result.exit_code == code, result.output
        return result

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self(*args, "--json", code=code).stdout)

    def store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            store = make_store(self.url)
            await store.open()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def jobs(self, **wanted: Any) -> list[JobRecord]:
        async def find(store: Store) -> list[JobRecord]:
            return list((await store.find(Filter(**wanted), 1000)).jobs)

        return self.store(find)

    def job(self, name: str) -> JobRecord:
        async def get(store: Store) -> JobRecord:
            return (await store.get([job_id(name)]))[0]

        return self.store(get)


@pytest.fixture
def shell(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The command line in an empty folder, and a store that exists and is empty."""
    for name in ("WINDLASS_URL", "WINDLASS_APP", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    url = empty_store(kind, tmp_path)
    monkeypatch.setenv("WINDLASS_URL", url)
    shell = Shell(url)

    async def nothing(_: Store) -> None:
        pass

    shell.store(nothing)
    return shell


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """The same with a worker and six jobs: ready, later, running, succeeded, failed, cancelled."""
    shell.store(fill)
    return shell


async def trail(store: Store) -> list[audit.Entry]:
    """The audit log, the oldest entry first."""
    return [*reversed((await audit.entries(store, 50))[0])]


def job_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def new(name: str, task: str = "shop.pay", **more: Any) -> NewJob:
    args = more.pop("args", {"order": name, "copy": True})
    return NewJob(id=job_id(name), task=task, args=json.dumps(args).encode(), **more)


async def fill(store: Store) -> None:
    await store.enlist(WorkerInfo(id="worker-1", host="here", pid=11, version="1", lease=15, concurrency=8))
    await store.join(RunnerInfo(id="runner-1", worker="worker-1", pid=12, tasks=tuple(sorted(TASKS))))
    await store.put([new("succeeded"), new("failed", "shop.mail", queue="mail", tags=("eu",)), new("running")])
    lane = Lane(slots=3, tasks=TASKS)
    claimed = (await store.exchange("runner-1", 1, [], Demand(slots=3, lanes=(lane,)))).claimed
    by_id = {claim.id: claim for claim in claimed}
    assert len(by_id) == 3

    def ended(name: str, ending: Ending, **more: Any) -> Outcome:
        claim = by_id[job_id(name)]
        return Outcome(id=claim.id, fence=claim.fence, seq=claim.seq, ending=ending, attempt=1, **more)

    failure = Failure(type="shop.Refused", message="card\x1b[31m refused", traceback="Traceback\n  File 'a.py', line 3")
    await store.settle("runner-1", ended("succeeded", Ending.SUCCEEDED, result=b'{"paid": 42}'))
    await store.settle("runner-1", ended("failed", Ending.FAILED, failure=failure))
    claim = by_id[job_id("running")]
    progress = Progress(done=30, total=120, note="page 30")
    await store.note("runner-1", [Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=progress)])
    await store.put([new("ready"), new("later", delay=3600), new("cancelled", delay=3600), new("strange", "old.gone")])
    await store.act([job_id("cancelled")], Verb.CANCEL)
