"""Fires schedules: the job of a tick, the mark that it fired, and how far the schedule is, in one commit. And events
that were debounced, when they have waited for long enough.

Any number of workers do this at the same time: the document's version lets one of them through, the mark and the job's
own id hold whatever else happens. Every moment is the store's.
"""

import asyncio
import contextlib
import logging
import math
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct
from msgspec.structs import replace

from windlass import event, schedule
from windlass.call import job_of, open_call
from windlass.errors import Conflict, DecodeError, StoreError
from windlass.model import Doc, NewJob, Verb
from windlass.schedule import Course, Fire
from windlass.store.contract import BATCH, PENDING, SCHEDULE, Store
from windlass.vault import Vault

logger = logging.getLogger("windlass.schedule")

AHEAD = 2.0
"""Seconds that are looked ahead: beats come at least once a second and tell of the first schedule only."""

TOGETHER = 25
"""The most schedules whose fires share a commit. If another worker was faster with one, all are read again."""

TRIES = 5
"""How often the same schedules are read again before each goes alone, and then, until the next beat, nobody."""


STUCK = 0.1
"""Seconds until the next look after a full batch of which nothing moved: another was faster, or has the keys."""


class Due(Struct, frozen=True):
    """A schedule whose time has come."""

    doc: Doc
    course: Course


class Fires:
    """Fires what is due. Beats say when to look; what is found says when to look again."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._soon = asyncio.Event()
        self._at = math.inf

    def hear(self, fire: float | None) -> None:
        """What a beat told: seconds until a schedule is due."""
        if fire is not None and fire < AHEAD:
            at = asyncio.get_running_loop().time() + fire
            if at < self._at:
                self._at = at
                self._soon.set()

    async def run(self) -> None:
        """Fire until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), None if self._at == math.inf else self._at - loop.time())
            if loop.time() < self._at:
                continue
            self._at = math.inf
            try:
                if (wait := await self.fire_due()) is not None:
                    self._at = loop.time() + wait
            except (StoreError, TimeoutError) as error:
                logger.warning("schedules could not be fired just now: %s", error or "the store did not answer in time")
            except Exception:
                logger.exception("schedules could not be fired just now")

    async def fire_due(self) -> float | None:
        """Fire what is due; seconds until the next look, None where the next beat will tell."""
        waits = [await self._look(SCHEDULE, self._fire), await self._look(PENDING, self._release)]
        return min((wait for wait in waits if wait is not None), default=None)

    async def _look(self, kind: str, fire: Callable[[Sequence[Doc], float], Awaitable[int]]) -> float | None:
        """The same for one kind of documents; `fire` takes some that are due together, and says how many moved on."""
        shelf = await self._store.load(kind, due=AHEAD)
        due = [doc for doc in shelf.docs if doc.due is not None and doc.due <= shelf.now]
        later = [doc.due - shelf.now for doc in shelf.docs[len(due) :] if doc.due is not None]
        turn = random.randrange(len(due)) if due else 0  # noqa: S311 - workers that wake together begin apart
        due = due[turn:] + due[:turn]
        moved = 0
        for at in range(0, len(due), TOGETHER):
            moved += await fire(due[at : at + TOGETHER], shelf.now)
        if moved:
            return 0.0
        if later:
            return later[0]
        return STUCK if len(shelf.docs) == BATCH else None

    async def _fire(self, docs: Sequence[Doc], now: float) -> int:
        """Fire some that are due together; how many moved on."""
        for _ in range(TRIES):
            due = await self._read(docs)
            busy = await self._busy(due)
            try:
                return await self._put([(one, fire) for one in due if (fire := look(one, now, busy))])
            except Conflict:
                shelf = await self._store.load(SCHEDULE, names=[doc.name for doc in docs])
                now = shelf.now
                docs = [doc for doc in shelf.docs if doc.due is not None and doc.due <= now]
        if len(docs) > 1:
            return sum([await self._fire([doc], now) for doc in docs])
        return 0

    async def _read(self, docs: Sequence[Doc]) -> list[Due]:
        """Schedules as they are stored. One that cannot be read is set aside: it would be due for ever."""
        due: list[Due] = []
        for doc in docs:
            try:
                due.append(Due(doc, schedule.read(doc.body)))
            except DecodeError as error:
                logger.error("schedule %s does not fire any more: %s. Delete it, or make it anew", doc.name, error)
                await self._set_aside(doc)
        return due

    async def _set_aside(self, doc: Doc) -> None:
        """Have a document never be due again, as it stands."""
        with contextlib.suppress(Conflict):
            await self._store.save([replace(doc, due=None)])

    async def _busy(self, due: Sequence[Due]) -> set[str]:
        """Which jobs are not over, of schedules that care."""
        jobs = [job for one in due if one.course.plan.overlap != "allow" for job in one.course.jobs]
        return {job.id for job in await self._store.get(jobs) if not job.state.final} if jobs else set()

    async def _put(self, fires: Sequence[tuple[Due, Fire]]) -> int:
        """Commit what these schedules do now. Raises `Conflict` if one of them was changed meanwhile."""
        jobs, marks, docs = [], [], []
        for one, fire in fires:
            name, plan = one.doc.name, one.course.plan
            try:
                rhythm = schedule.rhythm_of(plan)
                made = [schedule.make_job(name, plan.call, tick, self._vault, rhythm=rhythm) for tick in fire.ticks]
            except DecodeError as error:  # perhaps another worker has the key
                logger.error("schedule %s cannot be fired by this worker: %s", name, error)
                continue
            jobs += made
            marks += [schedule.make_mark(name, tick) for tick in fire.ticks]
            body = schedule.write(fire.course)
            docs.append(Doc(kind=SCHEDULE, name=name, version=one.doc.version, body=body, due=fire.due))
        if docs:  # in one order for all workers, so that none waits for one that waits for it
            await self._store.put(sorted(jobs, key=lambda job: job.id), sorted(marks, key=lambda mark: mark.key), docs)
        cancel = [job for one, fire in fires if fire.cancel for job in one.course.jobs]
        if cancel:
            await self._store.act(cancel, Verb.CANCEL)
        return len(docs)

    async def _release(self, docs: Sequence[Doc], now: float) -> int:
        """Make the jobs of debounced events; how many. One whose time was put off meanwhile stays."""
        jobs = [await self._released(doc) for doc in docs]
        ready = [(job, doc) for job, doc in zip(jobs, docs, strict=True) if job]
        try:
            if ready:
                gone = [replace(doc, gone=True) for _, doc in ready]
                await self._store.put(sorted((job for job, _ in ready), key=lambda job: job.id), docs=gone)
            return len(ready)
        except Conflict:
            return sum([await self._release([doc], now) for doc in docs]) if len(docs) > 1 else 0

    async def _released(self, doc: Doc) -> NewJob | None:
        try:
            call = event.read_pending(doc.body).call
        except DecodeError as error:
            logger.error("a debounced event makes no job: %s", error)
            await self._set_aside(doc)
            return None
        try:
            opened = open_call(doc.name, call, self._vault)
        except DecodeError as error:  # perhaps another worker has the key
            logger.error("a debounced event for %s waits: %s", call.task, error)
            return None
        id = str(uuid.uuid5(event.EVENTS, f"{doc.name}\n{doc.version}"))
        return job_of(opened, id, self._vault)


def look(one: Due, now: float, busy: AbstractSet[str]) -> Fire | None:
    """What a schedule does now; None for one whose stored rule nobody could have made: it must not stop the others."""
    try:
        return schedule.look(one.doc.name, one.course, now, not busy.isdisjoint(one.course.jobs))
    except Exception:
        logger.exception("schedule %s cannot be fired; delete it, or make it anew", one.doc.name)
        return None
