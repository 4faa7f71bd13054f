"""Looks at the alerts of a store. Any number of workers do this; the documents' versions let one of them through, and
what is told is put in the same commit, so one alarm is told once."""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from uuid import UUID, uuid5

from msgspec import json
from msgspec.structs import replace

from windlass.alert import (
    QUEUE,
    TASK,
    Alert,
    FailedJobs,
    FailureRate,
    Message,
    NoWorker,
    QueueAge,
    Rule,
    ScheduleMissed,
    Waiting,
    Watched,
    advance,
    read,
    watched,
    write,
)
from windlass.errors import Conflict, StoreError
from windlass.model import Doc, Filter, Line, NewJob, State, WorkerInfo
from windlass.pause import QUEUE as PAUSED_QUEUE
from windlass.pause import TASK as PAUSED_TASK
from windlass.queues import paused_in
from windlass.store.contract import ALERT, SCHEDULE, Store
from windlass.store.documents import all_docs, now_of

logger = logging.getLogger("windlass.worker")

LOOK_EVERY = 10.0
"""Seconds between two looks of one worker whether an alert is to be looked at; several spread out by chance."""

EVERY = 20.0
"""Seconds between two looks at an alert."""

NOTICES = UUID("5c8f2d1e-6a8b-5f0e-9d64-0a7f3a1c9be2")
"""The namespace of the ids of the jobs that tell."""

DUE = (State.READY, State.WAITING)


class Alarms:
    """Looks at what is due of all alerts there are, whichever app declares them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
            try:
                await self.look(await self._due())
            except StoreError as error:
                logger.warning("alerts could not be looked at this time: %s", error)
            except Exception:
                logger.exception("alerts could not be looked at this time")

    async def look_now(self) -> list[Message]:
        """Look at all of them, due or not; what is told of that."""
        return await self.look([doc async for doc in all_docs(self._store, ALERT)])

    async def _due(self) -> Sequence[Doc]:
        return (await self._store.load(ALERT, due=0)).docs

    async def look(self, docs: Sequence[Doc]) -> list[Message]:
        """Look at some alerts, and put what is to be told; nothing if another worker was faster."""
        if not docs:
            return []
        facts = Facts(self._store, await now_of(self._store))
        jobs: list[NewJob] = []
        told: list[Message] = []
        changed: list[Doc] = []
        for doc in docs:
            found = read(doc.body)
            if found is None:
                logger.error("alert %s cannot be read, and is not looked at any more", doc.name)
                changed.append(replace(doc, due=None))
                continue
            after, message = advance(doc.name, facts.now, found, await problem_of(found.rule, facts))
            changed.append(replace(doc, body=write(after), due=facts.now + EVERY))
            if message is not None:
                told.append(message)
                jobs += notices(doc, found, message)
        try:
            await self._store.put(sorted(jobs, key=lambda job: job.id), docs=changed)
        except Conflict:
            return []
        for message in told:
            logger.warning("%s", message.line)
        return told


def notices(doc: Doc, found: Watched, message: Message) -> list[NewJob]:
    """The jobs that tell it, one for each who is told, so that none waits for another."""
    return [
        NewJob(
            id=str(uuid5(NOTICES, f"{doc.name}\n{doc.version}\n{at}")),
            task=TASK + doc.name,
            queue=QUEUE,
            priority=100,
            args=json.encode(Waiting(kind=message.kind, text=message.text, since=message.since, at=at)),
        )
        for at in range(found.targets)
    ]


class Facts:
    """What several rules look at in one look, each thing read once; `now` by the store's clock."""

    def __init__(self, store: Store, now: float) -> None:
        self.store = store
        self.now = now
        self._lines: list[Line] | None = None
        self._workers: list[WorkerInfo] | None = None

    async def lines(self) -> list[Line]:
        """The live jobs."""
        if self._lines is None:
            self._lines = await self.store.stats()
        return self._lines

    async def workers(self) -> list[WorkerInfo]:
        """The workers."""
        if self._workers is None:
            self._workers = await self.store.workers()
        return self._workers


async def problem_of(rule: Rule, facts: Facts) -> str:
    """What is wrong by a rule, for people; empty if all is well."""
    match rule:
        case QueueAge():
            return await old_jobs(rule, facts)
        case FailureRate():
            return await failures(rule, facts)
        case ScheduleMissed():
            return await missed(rule, facts)
        case NoWorker():
            alive = [one for one in await facts.workers() if one.alive and one.serves(rule.queue)]
            return "" if alive else str(rule)
        case FailedJobs():
            page = await facts.store.find(Filter(state=State.FAILED, queue=rule.queue, task=rule.task), rule.count)
            if len(page.jobs) < rule.count:
                return ""
            return f"{rule}; the last of them {page.jobs[0].task} {page.jobs[0].id}"


async def old_jobs(rule: QueueAge, facts: Facts) -> str:
    """The queue whose first job waits for longest; ours counts only where it is named: that it waits cannot be told."""
    lines = [line for line in await facts.lines() if line.state in DUE and line.oldest > rule.seconds]
    lines = [line for line in lines if (line.queue == rule.queue if rule.queue else line.queue != QUEUE)]
    if not lines:
        return ""
    held = await paused_in(facts.store)
    lines = [one for one in lines if not {PAUSED_QUEUE + one.queue, PAUSED_TASK + one.task} & held.keys()]
    worst = max(lines, key=lambda line: line.oldest, default=None)
    return f"a job of {worst.task} in queue {worst.queue} waits for {worst.oldest:,.0f} s" if worst else ""


async def failures(rule: FailureRate, facts: Facts) -> str:
    """The part of the attempts that failed, and the task of most of them."""
    rows = await facts.store.series(facts.now - rule.within, facts.now, 60, rule.queue)
    failed: dict[str, int] = {}
    ended = 0
    for row in rows:
        if rule.task is None or row.task == rule.task:
            bad = row.failed + row.retried
            failed[row.task] = failed.get(row.task, 0) + bad
            ended += row.succeeded + bad
    bad = sum(failed.values())
    if ended < rule.at_least or bad <= rule.part * ended:
        return ""
    most = max(failed, key=lambda task: failed[task])
    return f"{bad:,} of {ended:,} attempts failed within {rule.within:g} s, {failed[most]:,} of them of {most}"


async def missed(rule: ScheduleMissed, facts: Facts) -> str:
    """The schedule whose run is due for longest."""
    names = None if rule.schedule is None else [rule.schedule]
    docs = (await facts.store.load(SCHEDULE, names=names, due=None if names else 0)).docs
    late = {doc.name: facts.now - doc.due for doc in docs if doc.due is not None and facts.now - doc.due > rule.seconds}
    worst = max(late, key=lambda name: late[name], default=None)
    return f"the run of schedule {worst} is late by {late[worst]:,.0f} s" if worst is not None else ""


def declared(
    alerts: Mapping[str, Alert], there: Mapping[str, Doc], origin: str, now: float, *, brought: bool = False
) -> list[Doc]:
    """The documents of the alerts that an app declares anew, or in another way than is stored; each is looked at soon.
    One that another app declares stays. `brought`: no worker declares them."""
    docs = []
    for name, alert in alerts.items():
        old = there.get(name)
        before = read(old.body) if old else None
        if before is not None and before.origin != origin and not before.brought:
            owner = before.origin
            logger.error(
                "alert %s is one that app %s declares: it stays, and that of %s is not used", name, owner, origin
            )
            continue
        fresh = watched(alert, origin, before, brought=brought)
        if fresh != before or (old and old.due is None):
            version = old.version if old else 0
            docs.append(Doc(kind=ALERT, name=name, version=version, body=write(fresh), due=now))
    return docs


def given_up(alerts: Mapping[str, Alert], there: Mapping[str, Doc], origin: str) -> list[Doc]:
    """The documents of an app's alerts that it does not declare any more, to be dropped."""
    others = [doc for name, doc in there.items() if name not in alerts]
    return [replace(doc, gone=True) for doc in others if (found := read(doc.body)) and found.origin == origin]
