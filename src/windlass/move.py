"""Carrying what lives in one store over to another. It may be killed at any moment: run again, it goes on.

Each page of jobs is first put into the target and then deleted from the source. A job that stands in both, because the
move was killed in between, is put again under its id, which inserts nothing, and then deleted. So it runs in the target
alone, and the target's workers may run it as soon as it is there.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from windlass.clock import Clock, SystemClock
from windlass.errors import ConfigError, Conflict, StoreError
from windlass.model import Doc, Filter, JobRecord, NewJob, Past, Placed, State, Verb, WorkerInfo
from windlass.store.contract import KINDS, Store
from windlass.store.documents import all_docs

PAGE = 200
"""Jobs that are in both stores at once; all of them are in memory, too."""

MOVABLE = (State.READY, State.SCHEDULED)
MARK = "move"
"""The kind of the document that tells whether two URLs name one store."""


@dataclass(slots=True)
class Moved:
    """What a move did: jobs and documents carried, dead workers reaped, and why jobs or documents stayed, by id."""

    jobs: int = 0
    docs: int = 0
    reaped: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


class Move:
    """One run of moving `source` to `target`. `tell(moved)` is called after each page."""

    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        clock: Clock | None = None,
        tell: Callable[[int], object] = lambda moved: None,
    ) -> None:
        self._source = source
        self._target = target
        self._clock = clock or SystemClock()
        self._tell = tell
        self._moved = Moved()

    async def run(self) -> Moved:
        """Move until nothing that can be moved is left. Raises `StoreError` while workers live in the source."""
        await self.check()
        self._moved.reaped = await self._source.reap()
        for kind in KINDS:
            async for doc in all_docs(self._source, kind):
                await self._move_doc(doc)
        stuck = dict(self._moved.left)
        while await self._pass_over():
            self._moved.left = dict(stuck)
        await self._note_left()
        return self._moved

    async def check(self) -> None:
        """Raise `ConfigError` if both stores are one, `StoreError` if somebody works in the source."""
        await refuse_same(self._source, self._target)
        refuse_living(await self._source.workers())

    async def total(self) -> int:
        """How many jobs there are to move."""
        return sum([await self._source.count(Filter(state=state)) for state in MOVABLE])

    # Jobs

    async def _pass_over(self) -> int:
        """Move every job that can be; how many left the source."""
        before = self._moved.jobs
        for state in MOVABLE:
            after: str | None = None
            while True:
                page = await self._source.find(Filter(state=state), PAGE, after)
                await self._move_page(page.jobs)
                after = page.after
                if after is None:
                    break
        return self._moved.jobs - before

    async def _move_page(self, jobs: Iterable[JobRecord]) -> None:
        now = self._clock.now()
        new = [as_new(job, now) for job in jobs]
        if not new:
            return
        refuse_living(await self._source.workers())
        placed = await self._target.put(new)
        there: dict[str, Placed] = {}
        for job, found in zip(new, placed, strict=True):
            if found.id == job.id:
                there[job.id] = found
            else:
                self._moved.left[job.id] = f"its unique key is held in the target, by job {found.id}"
        gone = await self._source.act(list(there), Verb.DELETE)
        self._moved.jobs += len(gone)
        self._tell(self._moved.jobs)
        if len(gone) < len(there):
            await self._take_back([found for id, found in there.items() if id not in set(gone)])

    async def _take_back(self, placed: list[Placed]) -> None:
        """Jobs that somebody claimed in the source just now stay there: take away what was put into the target."""
        for job in await self._source.get([found.id for found in placed]):
            self._moved.left[job.id] = f"it is {job.state} in the source"
        fresh = [found.id for found in placed if found.new and found.id in self._moved.left]
        undone = set(await self._target.act(fresh, Verb.DELETE))
        for found in placed:
            if found.id in self._moved.left and found.id not in undone:
                self._moved.left[found.id] += ", and it is in the target as well"

    async def _note_left(self) -> None:
        """Say of jobs in states that are not moved that they are still there."""
        for state in (State.RUNNING, State.WAITING):
            after: str | None = None
            while True:
                page = await self._source.find(Filter(state=state), PAGE, after)
                for job in page.jobs:
                    self._moved.left.setdefault(job.id, f"it is {job.state} in the source")
                after = page.after
                if after is None:
                    break

    # Documents

    async def _move_doc(self, doc: Doc) -> None:
        fresh = Doc(kind=doc.kind, name=doc.name, version=0, body=doc.body, due=doc.due)
        try:
            await self._target.save([fresh])
        except Conflict:
            there = await self._target.load(doc.kind, names=[doc.name])
            if doc.body not in [other.body for other in there.docs]:
                self._moved.left[f"{doc.kind} {doc.name}"] = "the target has another one of that name"
                return
        await self._source.save([], drop=[(doc.kind, doc.name)])
        self._moved.docs += 1


def as_new(job: JobRecord, now: float) -> NewJob:
    """A job as it is put into another store, with all that it has been through. One that was claimed never expires."""
    expires = None if job.expires_at is None or job.fence else max(0.0, job.expires_at - now)
    return NewJob(
        id=job.id,
        task=job.task,
        args=job.args,
        queue=job.queue,
        priority=job.priority,
        run_at=job.run_at,
        expires_in=expires,
        unique=job.unique,
        tags=job.tags,
        options=job.options,
        follow=job.follow,
        gates=job.gates,
        ahead=job.ahead,
        fair=job.fair,
        past=Past(
            enqueued_at=job.enqueued_at,
            started_at=job.started_at,
            attempt=job.attempt,
            lost=job.lost,
            fence=job.fence,
            attempts=job.attempts,
        ),
    )


def refuse_living(workers: Iterable[WorkerInfo]) -> None:
    """Raise `StoreError` if one of these workers lives: it could run a job that is being moved."""
    alive = [f"{one.id[:8]} (pid {one.pid} on {one.host})" for one in workers if one.beat_age <= one.lease]
    if alive:
        raise StoreError(
            f"expected a source that nobody works on; these workers live: {', '.join(alive)}. Stop them (one that "
            "was killed counts as living until its lease is over), start them on the target, and run this again"
        )


async def refuse_same(source: Store, target: Store) -> None:
    """Raise `ConfigError` if both are one store under whatever names: deleting what was put would lose it."""
    name = uuid.uuid4().hex
    await source.save([Doc(kind=MARK, name=name, version=0, body=b"{}")])
    try:
        if (await target.load(MARK, names=[name])).docs:
            raise ConfigError("expected two different stores; both URLs lead to the same one: there is nothing to move")
    finally:
        await source.save([], drop=[(MARK, name)])
