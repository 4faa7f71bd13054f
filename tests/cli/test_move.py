"""`windlass move`: everything once, however often it is killed."""

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, job_id, new
from tests.servers import postgres_url, redis_url
from windlass.model import Demand, Ending, Lane, NewJob, Outcome, RunnerInfo, State, WorkerInfo
from windlass.store.contract import Store

DYING = """
import asyncio, os, signal, sys
from windlass.move import Move
from windlass.store.dispatch import make_store

class Dying:
    calls = 0
    def __init__(self, store):
        self.store = store
    def __getattr__(self, name):
        async def call(*args, **more):
            Dying.calls += 1
            if Dying.calls == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            return await getattr(self.store, name)(*args, **more)
        return call

async def main():
    stores = [Dying(make_store(url)) for url in sys.argv[1:3]]
    for store in stores:
        await store.store.open()
    await Move(*stores).run()
    for store in stores:
        await store.store.close()

asyncio.run(main())
"""


@pytest.fixture
def target(tmp_path: Path, shell: Shell) -> Shell:
    """Another store beside that of `shell`."""
    return Shell(f"sqlite:///{tmp_path / 'target.db'}")


KINDS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / uuid.uuid4().hex}.db",
    "postgres": lambda folder: f"{postgres_url()}?schema=move{uuid.uuid4().hex[:12]}",
    "redis": lambda folder: f"{redis_url()}?prefix=move{uuid.uuid4().hex[:12]}",
}

PAIRS = [
    ("sqlite", "postgres"),
    ("postgres", "redis"),
    ("redis", "sqlite"),
]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Shell, Shell]:
    """Two empty stores."""
    source, target = [Shell(KINDS[kind](tmp_path)) for kind in request.param]
    return source, target


def put(shell: Shell, *jobs: NewJob) -> None:
    async def work(store: Store) -> None:
        await store.put(jobs)

    shell.store(work)


def run_some(shell: Shell, name: str, slots: int) -> None:
    """A worker of this store runs up to `slots` jobs and leaves."""

    async def work(store: Store) -> None:
        await store.enlist(WorkerInfo(id=f"w-{name}", host="here", pid=1, version="1", lease=15))
        await store.join(RunnerInfo(id=f"r-{name}", worker=f"w-{name}", pid=2))
        demand = Demand(slots=slots, lanes=(Lane(slots=slots, tasks=frozenset({"shop.pay"})),))
        claims = (await store.exchange(f"r-{name}", 1, [], demand)).claimed
        done = [Outcome(id=c.id, fence=c.fence, seq=c.seq, ending=Ending.SUCCEEDED, attempt=1) for c in claims]
        assert not (await store.exchange(f"r-{name}", 2, done, Demand(slots=0))).refused
        await store.retire(f"w-{name}")

    shell.store(work)


def test_everything_moves(shell: Shell, target: Shell) -> None:
    put(shell, new("one", tags=("eu",)), new("two", delay=500, unique="k"))
    out = shell("move", shell.url, target.url, "--yes").stdout
    assert "2 jobs moved from" in out
    assert shell.jobs() == []
    assert sorted(job.id for job in target.jobs()) == sorted([job_id("one"), job_id("two")])
    assert shell.json("move", shell.url, target.url, "--yes") == {"jobs": 0, "documents": 0, "reaped": [], "left": {}}


def test_it_asks_first(shell: Shell, target: Shell) -> None:
    put(shell, new("one"))
    assert "Move 1 job from" in shell("move", shell.url, target.url, code=2).stderr
    assert len(shell.jobs()) == 1


def test_what_cannot_move_is_named(shell: Shell, target: Shell) -> None:
    put(shell, new("ours", unique="k"), new("free"))
    put(target, new("theirs", unique="k"))
    done = shell("move", shell.url, target.url, "--yes", code=1)
    assert f"{job_id('ours')} stays in" in done.stderr
    assert "1 job moved" in done.stdout
    assert list(shell.json("move", shell.url, target.url, "--yes", code=1)["left"]) == [job_id("ours")]


def test_living_workers_are_named(filled: Shell, target: Shell) -> None:
    assert "worker-1 (pid 11 on here)" in filled("move", filled.url, target.url, "--yes", code=1).stderr


def test_wrong_stores(shell: Shell, tmp_path: Path) -> None:
    one = Shell(f"sqlite:///{tmp_path / 'one.db'}")
    put(one, new("one"))
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "one.db")
    assert "lead to the same one" in shell("move", one.url, f"sqlite:///{link}", "--yes", code=2).stderr
    assert "there is no store" in shell("move", f"sqlite:///{tmp_path}/no.db", one.url, "--yes", code=1).stderr
    assert "names no store" in shell("move", one.url, "mysql://x", "--yes", code=2).stderr
    assert len(one.jobs()) == 1


def test_killed_at_every_step(pair: tuple[Shell, Shell]) -> None:
    shell, target = pair
    names = [f"job-{n}" for n in range(450)]
    put(shell, *[new(name, delay=n % 3 * 1000, tags=("t",)) for n, name in enumerate(names)])
    for step in range(6, 30, 3):
        done = subprocess.run([sys.executable, "-c", DYING, shell.url, target.url, str(step)], check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        run_some(target, f"{step}", 20)
    there = {job.id: job for job in target.jobs()}
    shell("move", shell.url, target.url, "--yes")
    assert shell.jobs() == []
    after = {job.id: job for job in target.jobs()}
    assert set(after) == {job_id(name) for name in names}
    over = [id for id, job in there.items() if job.state is State.SUCCEEDED]
    assert over
    assert all(after[id] == there[id] for id in over), "what the target had run was put again"


def test_killed_at_any_moment(shell: Shell, target: Shell) -> None:
    names = [f"job-{n}" for n in range(900)]
    command = [sys.executable, "-m", "windlass", "move", shell.url, target.url, "--yes"]
    for kill in range(5):
        before = len(target.jobs())
        put(shell, *[new(name) for name in names[kill::5]])
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while len(target.jobs()) == before and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
    shell("move", shell.url, target.url, "--yes")
    assert sorted(job.id for job in target.jobs()) == sorted(map(job_id, names))
    assert shell.jobs() == []
