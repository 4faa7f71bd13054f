"""A store under test and the power over its time, whatever its kind; and short ways to say what tests say often."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uuid_utils

from windlass import policy
from windlass.clock import FakeClock, SystemClock
from windlass.errors import Fail
from windlass.model import (
    Claim,
    Demand,
    Doc,
    Ending,
    Exchanged,
    Held,
    JobRecord,
    Lane,
    NewJob,
    Orders,
    Outcome,
    Placed,
    Quota,
    RunnerInfo,
    State,
    WorkerInfo,
)
from windlass.policy import Retry
from windlass.store.contract import Store
from windlass.store.dispatch import make_store

LEASE = 15.0


class PushedClock(FakeClock):
    """A fake clock that tells its world whenever it is moved, whoever moves it."""

    push: Callable[[], object] = staticmethod(lambda: None)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self.push()

    def shift(self, seconds: float) -> None:
        super().shift(seconds)
        self.push()


class World:
    """One kind of store. A new kind overrides what its time and its data need."""

    kind = ""
    shared = True
    """Whether a second store object, here or in another process, can see the same data."""

    def __init__(self, folder: Path, clock: FakeClock | SystemClock | None = None) -> None:
        self.folder = folder
        self.clock = clock or FakeClock()
        self._stores: list[Store] = []

    @property
    def url(self) -> str:
        """What `make_store` takes, in any process."""
        raise NotImplementedError

    @property
    def store(self) -> Store:
        """The store in use: the newest."""
        return self._stores[-1]

    def connect(self) -> Store:
        """A store object on this world's data and time, not opened yet."""
        return make_store(self.url, self.clock)

    async def open(self) -> None:
        """Open a store on empty data."""
        await self.reopen()

    async def reopen(self) -> Store:
        """A further store object on the same data, as another process would have it; `store` from now on."""
        store = self.connect()
        await store.open()
        self.add(store)
        return store

    def add(self, store: Store) -> None:
        """Use an open store from now on."""
        self._stores.append(store)

    async def close(self) -> None:
        """Let go of everything."""
        for store in self._stores:
            await store.close()

    async def crash(self) -> None:
        """The process that uses the store dies without a word and starts anew."""
        if self.shared:
            await self.reopen()

    async def advance(self, seconds: float) -> None:
        """Let time pass, for jobs and for leases."""
        if isinstance(self.clock, FakeClock):
            self.clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    async def shift(self, seconds: float) -> None:
        """Set the wall clock; no time passes."""
        assert isinstance(self.clock, FakeClock), "nobody sets the real clock"
        self.clock.shift(seconds)

    async def now(self) -> float:
        """Seconds since the epoch by the store's clock."""
        return self.clock.now()

    # What tests say often

    async def put(self, *jobs: NewJob) -> list[Placed]:
        """Store jobs."""
        return await self.store.put(jobs)

    async def job(self, id: str) -> JobRecord:
        """The job, which must exist."""
        (job,) = await self.store.get([id])
        return job

    async def state(self, id: str) -> State:
        """Its state."""
        return (await self.job(id)).state

    async def crew(self, *, lease: float = LEASE, worker: str | None = None) -> "Crew":
        """A registered worker (or the one named) with a new runner."""
        if worker is None:
            worker = new_id()
            await self.store.enlist(worker_info(worker, lease))
        runner = new_id()
        await self.store.join(RunnerInfo(id=runner, worker=worker, pid=2))
        return Crew(self, worker, runner)


class MemoryWorld(World):
    """SQLite in one process's memory."""

    kind = "memory"
    shared = False

    @property
    def url(self) -> str:
        return "sqlite:///:memory:"


class SQLiteWorld(World):
    """SQLite in a file."""

    kind = "sqlite"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'jobs.db'}"


@dataclass
class Crew:
    """A worker with one runner, as the store knows them. Nothing here remembers what it should not."""

    world: World
    worker: str
    runner: str
    seq: int = 0
    claims: dict[str, Claim] = field(default_factory=dict)

    async def exchange(self, *outcomes: Outcome, demand: Demand | None = None) -> Exchanged:
        """The next exchange; by default it wants nothing."""
        self.seq += 1
        return await self.again(*outcomes, demand=demand)

    async def again(self, *outcomes: Outcome, demand: Demand | None = None, seq: int | None = None) -> Exchanged:
        """An exchange under the last number, or under `seq`."""
        at = self.seq if seq is None else seq
        return await self.world.store.exchange(self.runner, at, outcomes, demand or Demand(slots=0))

    async def claim(self, slots: int = 1, *tasks: str, suspects: Iterable[str] = ()) -> list[Claim]:
        """Claim up to `slots` jobs of `tasks` (by default "work")."""
        answer = await self.exchange(demand=wants(slots, *tasks, suspects=suspects))
        return list(answer.claimed)

    async def take(self, *tasks: str, suspects: Iterable[str] = ()) -> Claim:
        """Claim the one job that must be there."""
        (claim,) = await self.claim(1, *tasks, suspects=suspects)
        return claim

    async def settle(self, outcome: Outcome) -> bool:
        """Settle one outcome by itself."""
        return await self.world.store.settle(self.runner, outcome)

    async def release(self, ending: Ending = Ending.LOST, *outcomes: Outcome) -> int:
        """The runner's process is gone."""
        return await self.world.store.release([self.runner], ending, outcomes)

    async def beat(self, *held: Claim, seq: int | None = None) -> Orders:
        """Beat; with `seq`, also tell that `held` is all that is held as of that exchange."""
        if seq is None:
            return await self.world.store.beat(self.worker)
        word = Held(seq=seq, claims=frozenset((claim.id, claim.fence) for claim in held))
        return await self.world.store.beat(self.worker, {self.runner: word})


_names = itertools.count(1)


def new_id() -> str:
    """An id in the order of time."""
    return str(uuid_utils.uuid7())


def name(prefix: str) -> str:
    """A name that no other call gave."""
    return f"{prefix}-{next(_names)}"


def new(task: str = "work", **more: Any) -> NewJob:
    """A job to put."""
    return NewJob(**{"id": new_id(), "task": task, "args": b"[[],{}]", **more})


def worker_info(id: str, lease: float = LEASE) -> WorkerInfo:
    """A worker to enlist."""
    return WorkerInfo(id=id, host="here", pid=1, version="1.0", lease=lease, queues="a,b", concurrency=4)


def wants(
    slots: int, *tasks: str, suspects: Iterable[str] = (), quotas: Sequence[tuple[str, int]] | None = None
) -> Demand:
    """A demand with one lane; without `tasks` it knows "work"."""
    lane = Lane(slots=slots, tasks=frozenset(tasks or ("work",)), suspects=frozenset(suspects))
    shares = None if quotas is None else tuple(Quota(queue=queue, share=share) for queue, share in quotas)
    return Demand(slots=slots, lanes=(lane,), quotas=shares)


def doc(name: str, version: int = 0, body: bytes = b"{}", **more: Any) -> Doc:
    """A document to save."""
    return Doc(kind="thing", name=name, version=version, body=body, **more)


def ends(claim: Claim, ending: Ending, *, delay: float = 30.0) -> Outcome:
    """How the layer above says that this claim ended so."""
    error = ValueError("no luck")
    match ending:
        case Ending.SUCCEEDED:
            return policy.succeeded(claim, b'"done"')
        case Ending.RETRY:
            return policy.raised(claim, error, Retry(backoff=delay))
        case Ending.FAILED:
            return policy.raised(claim, Fail("no"), Retry())
        case Ending.SNOOZED:
            return policy.outcome(claim, Ending.SNOOZED, delay=delay, reason="later")
        case Ending.CANCELLED:
            return policy.cancelled(claim, "not wanted")
        case Ending.INTERRUPTED:
            return policy.interrupted(claim)
        case Ending.LOST:
            return policy.lost(claim, "signal 9")
