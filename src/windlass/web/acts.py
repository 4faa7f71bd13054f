"""What people do on the dashboard, from its pages and over its API alike: done, written to the audit log, told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.exceptions import HTTPException

from windlass.app import App
from windlass.audit import Entry, Note, audited, entries, of_filter, of_gate, of_held, of_jobs
from windlass.bulk import in_batches
from windlass.clock import Clock
from windlass.jobs import Job
from windlass.limits import Gate, limit, rate
from windlass.model import Filter, Verb, WorkerInfo
from windlass.overview import Overview
from windlass.schedules import Schedules
from windlass.values import visible
from windlass.view import narrowed, why_not
from windlass.web import search
from windlass.web.live import Snapshot, Watch
from windlass.web.minute import Minute
from windlass.web.render import Pages
from windlass.web.users import Role, User
from windlass.web.which import Targets
from windlass.workers import Told, told_in, with_told

COUNTED_WITHIN = 0.15
"""Seconds after which a preview goes without a number."""

ROLES = {Verb.RETRY: Role.OPERATOR, Verb.CANCEL: Role.OPERATOR, Verb.DELETE: Role.ADMIN}
"""The least role for what is done to jobs."""

SCHEDULE_ACTS: dict[str, Callable[[Schedules, str], Awaitable[Any]]] = {
    "pause": Schedules.apause,
    "resume": Schedules.aresume,
    "trigger": Schedules.atrigger,
    "delete": Schedules.adelete,
}

SCHEDULE_ROLES = {"pause": Role.OPERATOR, "resume": Role.OPERATOR, "trigger": Role.OPERATOR, "delete": Role.ADMIN}


KINDS = {"queues": "queue", "tasks": "task"}
"""What can be paused, by how paths call it."""

HOLDS = {"queue": ("pause", "drain", "resume"), "task": ("pause", "resume")}
"""What can be done to hold it, or to let it go on."""

KEY_ROLES = {"pause": Role.OPERATOR, "resume": Role.OPERATOR, "reset": Role.ADMIN}
"""The least role for what is done to one key of a gate."""

OPEN = "all"
"""What a gate without a limit admits."""


class Why(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reason that somebody pauses something for."""

    reason: Annotated[str, Meta(max_length=1000)] = ""


GateName = Annotated[str, Meta(min_length=1, max_length=300)]
KeyText = Annotated[str, Meta(max_length=4_000)] | None


class Keyed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key of a gate: the gate's name and the key's value, or a name that has the key, as lists give it."""

    name: GateName
    key: KeyText = None
    reason: Annotated[str, Meta(max_length=1000)] = ""


class Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a gate shall admit: so many at once, starts as in '100/minute' of which `burst` may come together, or all.

    A number may be given as a text; null is `all`. It is for all keys, unless `key` or the name says for which.
    """

    name: GateName
    key: KeyText = None
    admits: int | Annotated[str, Meta(max_length=40)] | None
    burst: Annotated[int, Meta(ge=1, le=2**31)] = 1

    @property
    def gate(self) -> Gate:
        """The same as users write it. Raises `ConfigError`."""
        if self.admits is None or self.admits == OPEN:
            return limit(None)
        if isinstance(self.admits, int) or self.admits.isdecimal():
            return limit(int(self.admits))
        return rate(self.admits, burst=self.burst)


class Desk(Struct, frozen=True):
    """What every route works with."""

    app: App
    watch: Watch
    pages: Pages
    clock: Clock
    overview: Overview
    minute: Minute

    async def do(self, user: User, id: str, verb: Verb) -> None:
        """One verb to one job. Raises `JobNotFound`, 409 with the reason."""
        job: Job[Any] = await self.app.jobs.aget(id)
        async with self.audited(user, verb, f"job {id} of {job.task}") as note:
            note.done = len(await self.app.jobs.act([id], verb))
        if not note.done:
            record = await self.app.jobs.record(id)
            raise HTTPException(409, visible(why_not(record, verb)))

    async def count(self, targets: Targets, verb: Verb) -> int | None:
        """How many jobs a verb would be done to, as far as their states tell; None if that cannot be told in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COUNTED_WITHIN):
                return await self._count(targets, verb)
        return None

    async def _count(self, targets: Targets, verb: Verb) -> int:
        if targets.ids:
            return len(await self.app.jobs.aget_many(targets.ids))
        which = narrowed(targets.filter, verb)
        if targets.reads:
            return await search.count(self.app.jobs, targets, which)
        store = await self.app.connect()
        return sum([await store.count(one) for one in which])

    async def do_all(self, user: User, targets: Targets, verb: Verb) -> int:
        """One verb to many jobs; to how many it was done. Raises 400 for what names no jobs."""
        if bool(targets.ids) == targets.filters or (targets.ids and targets.most is not None):
            raise HTTPException(400, "expected ids, or a filter such as state, task, queue or tag, and not both")
        if targets.ids:
            async with self.audited(user, verb, of_jobs(targets.ids)) as note:
                note.done = len(await self.app.jobs.act(targets.ids, verb))
            return note.done
        async with self.audited(user, verb, of_filter(targets.given)) as note:
            if targets.reads:
                await self._one_by_one(targets, verb, note)
            else:
                await self._in_batches(narrowed(targets.filter, verb), verb, targets.most, note)
        return note.done

    async def _in_batches(self, which: Sequence[Filter], verb: Verb, most: int | None, note: Note) -> None:
        """As many as somebody was shown, or all."""
        async for ids in in_batches(await self.app.connect(), which, verb, most):
            note.done += len(ids)

    async def _one_by_one(self, targets: Targets, verb: Verb, note: Note) -> None:
        """Those of the newest that fit, at most as many as somebody was shown."""
        left = targets.most
        for one in narrowed(targets.filter, verb):
            async for piece in search.newest(self.app.jobs, one, search.Reach()):
                ids = [job.id for job in piece if targets.fits(job)][:left]
                note.done += len(await self.app.jobs.act(ids, verb)) if ids else 0
                left = None if left is None else left - len(ids)

    async def do_schedule(self, user: User, name: str, act: str) -> Any:
        """Pause, resume, trigger or delete a schedule; what `app.schedules` gives. Raises `ScheduleNotFound`."""
        async with self.audited(user, act, f"schedule {name}") as note:
            found = await SCHEDULE_ACTS[act](self.app.schedules, name)
            note.done = 1
        return found

    async def hold(self, user: User, kind: str, name: str, act: str, reason: str = "") -> bool:
        """Pause or resume a queue or a task, which closes its circuit breaker, or drain a queue; whether that changed
        anything."""
        queues, which = self.app.queues, {kind: name}
        async with self.audited(user, act, of_held(kind, name, reason)) as note:
            if act == "pause":
                await queues.apause(**which, reason=reason)
            if act == "drain":
                await queues.adrain(name, reason=reason)
            note.done = int(act != "resume" or await queues.aresume(**which))
        return bool(note.done)

    async def drain_worker(self, user: User, id: str) -> None:
        """Ask a worker to end. Raises `WorkerNotFound`, `WorkerTooOld`."""
        async with self.audited(user, "drain", of_held("worker", id)) as note:
            await self.app.workers.adrain(id)
            note.done = 1

    async def workers_of(self, snapshot: Snapshot) -> list[WorkerInfo]:
        """The workers of a look at the store with what is told of them."""

        async def read() -> Told:
            return await told_in(await self.app.connect())

        told = await self.watch.look("told", read, live=True)
        return with_told(snapshot.workers, told)

    async def set_gate(self, user: User, change: Change) -> None:
        """Change what a gate admits. Raises `ConfigError`."""
        gate, name = change.gate, self.app.gates.full_name(change.name, change.key)
        async with self.audited(user, "limit", of_gate(name, change.admits, change.burst)) as note:
            await self.app.gates.aset(name, gate)
            note.done = 1

    async def hold_key(self, user: User, act: str, which: Keyed) -> bool:
        """Pause one key of a gate, resume it, or drop what was set for it; whether that changed anything. Raises
        `ConfigError`."""
        gates = self.app.gates
        name = gates.full_name(which.name, which.key)
        async with self.audited(user, act, of_held("key", name, which.reason)) as note:
            if act == "pause":
                await gates.apause(name, reason=which.reason)
                note.done = 1
            else:
                note.done = int(await (gates.aresume(name) if act == "resume" else gates.areset(name)))
        return bool(note.done)

    async def log(self, limit: int, after: str | None) -> tuple[Sequence[Entry], str | None]:
        """The newest entries of the audit log behind that one, and what leads on."""
        return await entries(await self.app.connect(), limit, after or "")

    @contextlib.asynccontextmanager
    async def audited(self, user: User, act: str, target: str) -> AsyncIterator[Note]:
        """Around whatever somebody does: it stands in the audit log, and open pages look."""
        try:
            async with audited(await self.app.connect(), user.who, str(act), target) as note:
                yield note
        finally:
            self.watch.forget()
