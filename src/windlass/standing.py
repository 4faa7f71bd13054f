"""Where jobs stand that do not run, changed by hand: in which queue, with which priority."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import UNSET
from msgspec.structs import replace

from windlass import values
from windlass.description import PLAIN, Described
from windlass.errors import DecodeError
from windlass.limits import Gate, each_once
from windlass.model import IDLE, Filter, JobRecord, Need
from windlass.options import NONE, Options, read_options
from windlass.place import EARLY, LIFTED, Change, Place
from windlass.store.contract import BATCH, Store
from windlass.vault import Vault


@dataclass(frozen=True, slots=True)
class Rules:
    """What queues declare, and which gates tasks have, by their names."""

    queue: Callable[[str], Described] = lambda name: PLAIN
    gates: Callable[[str], Sequence[Gate]] = lambda name: ()


NO_RULES = Rules()
"""Those of whoever knows no queues and no tasks."""


class Standing:
    """Puts jobs of a store into another queue, or gives them another priority; None: as it is."""

    def __init__(self, rules: Rules, vault: Vault, queue: str | None, priority: int | None) -> None:
        self._rules = rules
        self._vault = vault
        self._queue = queue
        self._priority = priority

    async def put_all(self, store: Store, wanted: Filter) -> int:
        """Do it to those that match and do not run, a batch in a commit; how many that were."""
        done = 0
        for state in IDLE:
            if wanted.state in (None, state):
                done += await self._put(store, replace(wanted, state=state), wanted)
        return done

    async def _put(self, store: Store, listed: Filter, wanted: Filter) -> int:
        done, page = 0, await store.find(listed, BATCH)
        while True:
            done += await self._change(store, page.jobs, wanted)
            if page.after is None:
                return done
            page = await store.find(listed, BATCH, page.after)

    async def _change(self, store: Store, jobs: Sequence[JobRecord], wanted: Filter) -> int:
        """Change these; those that others have changed meanwhile are read again, and changed if they still match."""
        done = 0
        while changes := {change.id: change for change in self.changes(jobs)}:
            made = set(await store.amend(list(changes.values())))
            done += len(made)
            seen = {job.id: job for job in jobs}
            left = await store.get([id for id in changes if id not in made])
            jobs = [job for job in left if fits(job, wanted) and place_of(job) != place_of(seen[job.id])]
        return done

    def changes(self, jobs: Sequence[JobRecord]) -> Iterator[Change]:
        """What is to be changed of these jobs; nothing of those that stand so already, or whose options are damaged."""
        for job in jobs:
            try:
                was, now = place_of(job), self._place(job)
            except DecodeError:
                continue
            if now.options is UNSET:
                was = replace(was, options=UNSET)
            if was != now:
                yield Change(id=job.id, was=was, now=now)

    def _place(self, job: JobRecord) -> Place:
        """Where a job is to stand."""
        new = self._rules.queue(self._queue or job.queue)
        options = read_options(self._vault.field(job, "options"))
        asked = options.asked(job.priority)
        if self._priority is not None and not any(need.keep for need in job.gates):  # those stand in strict order
            asked = self._priority
        ages = new.ages(job.gates, fair=job.fair is not None)
        kept = asked if ages else None
        priority, ahead = new.stands(asked) if ages else (asked, 0.0)
        if kept is not None and kept == options.priority and has_waited(job, -ahead):
            priority, ahead = LIFTED, 0.0
        return Place(
            queue=self._queue or job.queue,
            priority=priority,
            ahead=ahead,
            gates=each_once([*self._own(job), *(gate.need(None, self._vault.key) for gate in new.gates)]),
            options=UNSET if kept == options.priority else self._stored(job, options, kept),
        )

    def _own(self, job: JobRecord) -> Iterator[Need]:
        """What a job takes of gates without its queue; of one that its task has too, what the task says."""
        left = {gate.name for gate in self._rules.queue(job.queue).gates}
        shared = {gate.name: gate for gate in self._rules.gates(job.task) if gate.key is None}
        for need in job.gates:
            if need.gate not in left:
                yield need
            elif own := shared.get(need.gate):
                yield replace(need, weight=own.weight) if isinstance(own.weight, int) else need

    def _stored(self, job: JobRecord, options: Options, priority: int | None) -> bytes | None:
        if (new := replace(options, priority=priority)) == NONE:
            return None
        data = values.to_bytes(new)
        return self._vault.seal(data, job.id, job.task, "options") if self._vault.seals else data


def place_of(job: JobRecord) -> Place:
    """Where a job stands, with its options as they are stored."""
    return Place(queue=job.queue, priority=job.priority, ahead=job.ahead, gates=job.gates, options=job.options)


def has_waited(job: JobRecord, seconds: float) -> bool:
    """Whether a job was lifted, and would be anew if it had to wait for so many seconds."""
    return (job.priority, job.ahead) == (LIFTED, 0) and job.run_at + seconds <= time.time() + EARLY


def fits(job: JobRecord, wanted: Filter) -> bool:
    """Whether a job does not run, and is one of those."""
    return (
        job.state in ((wanted.state,) if wanted.state else IDLE)
        and wanted.task in (None, job.task)
        and wanted.queue in (None, job.queue)
        and (wanted.tag is None or wanted.tag in job.tags)
    )
