"""Queues at run time, `app.queues`: pause, drain and resume them, or pause a task, everywhere; how many jobs stand in
each."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from msgspec import Struct

from windlass import options, pause
from windlass.access import Access
from windlass.blocking import twin
from windlass.errors import ConfigError
from windlass.model import IDLE, Doc, Filter, JobRecord, Line, State
from windlass.pause import DRAIN, QUEUE, TASK, Pause
from windlass.store.contract import BREAKER, PAUSE, Store
from windlass.store.documents import Load, Save, Work, all_docs, now_of
from windlass.task import Task

WINDOW = 10.0
"""Seconds over which the rates of a queue are told."""

LOOKED_AT = 200
"""The newest jobs, and the last that ended in each way, that rates are made of; where more came within WINDOW, the rate
is that of the time in which so many came."""

Named = Task[..., Any] | str
Kind = Literal["queue", "task", "key"]


class Paused(Struct, frozen=True, kw_only=True):
    """A queue, a task or a key of a gate of which nothing is claimed, or a queue into which nothing comes, and why.

    `until` is None for a pause by hand; a circuit breaker lets single jobs try from then on.
    """

    kind: Kind
    name: str
    reason: str
    since: datetime
    until: datetime | None = None


class QueueInfo(Struct, frozen=True, kw_only=True):
    """A queue: how many jobs stand in it, by state; the seconds since the first of them became due (0: none did).

    `coming` and `going` are jobs a second: those that were enqueued, and those that ended, in the last 10 s. `exact`:
    whether all numbers are of now; those of a long queue may be some time old.
    """

    name: str
    ready: int = 0
    waiting: int = 0
    scheduled: int = 0
    running: int = 0
    oldest: float = 0.0
    coming: float = 0.0
    going: float = 0.0
    paused: Paused | None = None
    draining: Paused | None = None
    exact: bool = True

    @property
    def depth(self) -> int:
        """How many jobs are not running yet."""
        return self.ready + self.waiting + self.scheduled

    @property
    def empty_in(self) -> float | None:
        """Seconds until the queue is empty if all goes on as it does; None: never."""
        if not self.depth:
            return 0.0
        return self.depth / (self.going - self.coming) if self.going > self.coming else None


Found = list[QueueInfo]
Pauses = list[Paused]


class Queues:
    """The queues of an app's store. Each call has a twin with an `a` in front for asynchronous code.

    What is paused or drained stays so until it is resumed, whatever is restarted. Workers see a pause within a second
    or two: they claim nothing more of it; jobs that run go on. Who enqueues sees a drain within a second.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    async def apause(self, queue: str | None = None, *, task: Named | None = None, reason: str = "") -> None:
        """Have no worker begin jobs of a queue, or of a task in whatever queue. `reason` is for people.

        Jobs still come in. Raises `ConfigError`.
        """
        await self._access.ado(partial(self._pause, key_of(queue, task), reason_of(reason)))

    pause = twin(apause)

    async def adrain(self, queue: str, *, reason: str = "") -> None:
        """Let no more jobs into a queue: who enqueues gets `QueueDraining`, and what is there runs to its end.

        Jobs of the queue may still enqueue into it. Raises `ConfigError`.
        """
        await self._access.ado(partial(self._pause, DRAIN + options.name("a queue", queue), reason_of(reason)))

    drain = twin(adrain)

    async def aresume(self, queue: str | None = None, *, task: Named | None = None) -> bool:
        """Go on with a queue or a task that somebody, or its circuit breaker, has paused, or with a queue that is
        drained; whether it was.

        A breaker begins to count anew. Raises `ConfigError`.
        """
        return await self._access.ado(partial(self._resume, key_of(queue, task)))

    resume = twin(aresume)

    async def apaused(self) -> Pauses:
        """The queues and tasks that are paused, by name."""
        return list((await paused_in(await self._access.connect())).values())

    paused = twin(apaused)

    async def adraining(self) -> Pauses:
        """The queues that take no more jobs, by name."""
        return drains_of(await held_in(await self._access.connect()))

    draining = twin(adraining)

    async def alist(self) -> Found:
        """The queues in which there are jobs, and those that are paused or drained, by name."""
        return await queues_in(await self._access.connect())

    def _pause(self, key: str, reason: str) -> Work[None]:
        shelf = yield Load(PAUSE, [key])
        version = shelf.docs[0].version if shelf.docs else 0
        yield Save(
            [Doc(kind=PAUSE, name=key, version=version, body=pause.write(Pause(since=shelf.now, reason=reason)))]
        )

    def _resume(self, key: str) -> Work[bool]:
        held = [key] if key.startswith(TASK) else [key, DRAIN + key.removeprefix(QUEUE)]
        shelf = yield Load(PAUSE, held)
        yield Save(drop=[*[(PAUSE, name) for name in held], (BREAKER, key.removeprefix(TASK))])
        return bool(shelf.docs)

    list = twin(alist)


def key_of(queue: str | None, task: Named | None) -> str:
    """The name of the document that pauses this. Raises `ConfigError`."""
    if (queue is None) == (task is None):
        raise ConfigError("expected the name of a queue, or task=…; " + ("both came" if queue else "neither came"))
    if task is None:
        return QUEUE + options.name("a queue", queue)
    return TASK + options.name("a task", task.name if isinstance(task, Task) else task)


def reason_of(reason: object) -> str:
    """A reason as it can be stored. Raises `ConfigError`."""
    if not isinstance(reason, str):
        raise ConfigError(f"expected a text for reason; {options.short(reason)} came")
    return reason.encode("utf-8", "replace").decode().replace("\0", "")[:1000]


def paused_of(kind: Kind, name: str, stored: Pause) -> Paused:
    """A pause as it is shown."""
    return Paused(
        kind=kind,
        name=name,
        reason=stored.reason,
        since=as_datetime(stored.since),
        until=None if stored.until is None else as_datetime(stored.until),
    )


def kind_of(doc: str) -> Kind:
    """What the document of this name pauses or drains."""
    return "task" if doc.startswith(TASK) else "queue"


def as_datetime(moment: float) -> datetime:
    """A stored moment; the epoch for one that nobody of ours wrote."""
    try:
        return datetime.fromtimestamp(moment, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)


async def held_in(store: Store) -> dict[str, Paused]:
    """What is paused or drained in a store, by the names of documents."""
    return {
        doc.name: paused_of(kind_of(doc.name), doc.name.partition(":")[2], pause.read(doc.body))
        async for doc in all_docs(store, PAUSE)
        if doc.name.startswith((QUEUE, TASK, DRAIN))
    }


async def paused_in(store: Store) -> dict[str, Paused]:
    """What is paused in a store, by the names of documents."""
    return {name: one for name, one in (await held_in(store)).items() if not name.startswith(DRAIN)}


def pauses_of(held: Mapping[str, Paused]) -> Pauses:
    """The paused queues and tasks of what is held."""
    return [one for name, one in held.items() if not name.startswith(DRAIN)]


def drains_of(held: Mapping[str, Paused]) -> Pauses:
    """The drained queues of what is held."""
    return [one for name, one in held.items() if name.startswith(DRAIN)]


async def queues_in(store: Store) -> Found:
    """The queues of a store."""
    lines = await store.stats()
    held = await held_in(store)
    now = await now_of(store)
    coming = await rates(store, None, now)
    going = [await rates(store, state, now) for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)]
    names = {line.queue for line in lines} | {one.name for one in held.values() if one.kind == "queue"}
    names.update(coming, *going)
    return [
        queue_info(
            name,
            [line for line in lines if line.queue == name],
            coming.get(name, 0.0),
            sum(one.get(name, 0.0) for one in going),
            held.get(QUEUE + name),
            held.get(DRAIN + name),
        )
        for name in sorted(names)
    ]


def queue_info(
    name: str, lines: list[Line], coming: float, going: float, paused: Paused | None, draining: Paused | None = None
) -> QueueInfo:
    """What is told of one queue, of which these are the lines."""
    counts = {state: sum(line.count for line in lines if line.state is state) for state in (*IDLE, State.RUNNING)}
    return QueueInfo(
        name=name,
        **{str(state): number for state, number in counts.items()},
        oldest=max((line.oldest for line in lines if line.state in IDLE), default=0.0),
        coming=coming,
        going=going,
        paused=paused,
        draining=draining,
        exact=all(line.exact for line in lines),
    )


async def rates(store: Store, state: State | None, now: float) -> Mapping[str, float]:
    """Jobs a second by queue: those that ended in a final state in the last seconds, or, with None, that were made."""
    jobs = (await store.find(Filter(state=state), LOOKED_AT)).jobs
    moments = [(job.queue, moment_of(job, state)) for job in jobs]
    window = WINDOW
    if len(jobs) == LOOKED_AT:
        window = min(WINDOW, max(0.001, now - min(at for _, at in moments)))
    found: dict[str, float] = {}
    for queue, at in moments:
        if now - at <= window:
            found[queue] = found.get(queue, 0.0) + 1 / window
    return found


def moment_of(job: JobRecord, state: State | None) -> float:
    """When a job was made, or ended."""
    return job.enqueued_at if state is None else job.finished_at or 0.0
