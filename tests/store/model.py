"""The contract as a small dict: what a store must answer and hold, without tables, indexes or batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from windlass.model import (
    Claim,
    Demand,
    Depth,
    Ending,
    Held,
    JobRecord,
    Need,
    NewJob,
    Outcome,
    Rest,
    State,
    Tally,
    Verb,
)
from windlass.place import EARLY, LIFTED, Change, Place

LIVE = frozenset({State.WAITING, State.SCHEDULED, State.READY, State.RUNNING})
Attempt = tuple[int, int, Ending]
"""Fence, attempt and ending."""


@dataclass
class Job:
    """One job of the model."""

    new: NewJob
    state: State
    run_at: float
    rank: float
    enqueued_at: float
    expires_at: float | None
    attempt: int = 0
    lost: int = 0
    fence: int = 0
    runner: str | None = None
    seq: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    cancelling: bool = False
    expired: bool = False
    keeps: frozenset[str] = frozenset()
    """The gates that it has since it was started, and keeps until it is over."""

    left: set[str] = field(default_factory=set)
    """The gates that it has given back while it runs: it waits for others."""

    wants: set[str] = field(default_factory=set)
    """Those of them that it has asked for again."""

    moved_on: bool = False
    result: bytes | None = None
    progress: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    settled: dict[int, tuple[str, int, Ending]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.new.id

    @property
    def order(self) -> tuple[float, float, str]:
        """Where it stands among ready jobs."""
        return -self.new.priority, self.rank, self.id

    def expired_at(self, now: float) -> bool:
        """Whether its time to start is over; a job that was ever started does not expire."""
        due = self.expires_at is not None and self.expires_at <= now
        return due and not self.fence and self.state in LIVE - {State.RUNNING}

    @property
    def idle(self) -> State:
        """Its state while it may be claimed."""
        return State.WAITING if self.new.gates else State.READY

    def finish(self, state: State, now: float) -> None:
        self.state, self.finished_at, self.cancelling, self.keeps = state, now, False, frozenset()

    def takes(self, need: Need, *, wanted: bool = True) -> bool:
        """Whether it takes room at a gate of its own, or, if that counts too, has room kept there."""
        if self.state is State.RUNNING:
            return need.gate not in self.left or (wanted and need.gate in self.wants)
        return need.gate in self.keeps and self.state in LIVE

    def view(self) -> dict[str, object]:
        """What must be seen of it."""
        running = self.state is State.RUNNING
        return {
            "state": self.state,
            "gates": self.new.gates,
            "priority": (self.new.priority, self.new.ahead),
            "queue": self.new.queue,
            "args": self.new.args,
            "unique": self.new.unique,
            "counts": (self.attempt, self.lost, self.fence),
            "times": tuple(None if at is None else round(at, 3) for at in (self.enqueued_at, self.finished_at)),
            "due": round(self.run_at, 3),
            "running": (self.runner, round(self.started_at or 0, 3), self.cancelling) if running else None,
            "progress": self.progress if running else None,
            "result": self.result if self.state is State.SUCCEEDED else None,
            "expired": self.expired,
            "attempts": tuple(self.attempts),
        }


def seen(job: JobRecord) -> dict[str, object]:
    """The same of a job in a store."""
    running = job.state is State.RUNNING
    return {
        "state": State.WAITING if job.gates and job.state is State.READY else job.state,
        "gates": job.gates,
        "priority": (job.priority, job.ahead),
        "queue": job.queue,
        "args": job.args,
        "unique": job.unique,
        "counts": (job.attempt, job.lost, job.fence),
        "times": tuple(None if at is None else round(at, 3) for at in (job.enqueued_at, job.finished_at)),
        "due": round(job.run_at, 3),
        "running": (job.runner, round(job.started_at or 0, 3), job.cancelling) if running else None,
        "progress": job.progress.done if running and job.progress else None,
        "result": job.result if job.state is State.SUCCEEDED else None,
        "expired": job.state is State.CANCELLED and job.reason == "expired",
        "attempts": tuple((entry.fence, entry.attempt, entry.ending) for entry in job.attempts),
    }


@dataclass
class Gate:
    """A limit, or a rate: seconds from one start to the next, and how many may start together."""

    limit: int | None = None
    interval: float | None = None
    burst: int = 1
    starts: list[tuple[float, int]] = field(default_factory=list)

    def room(self, now: float, used: int, weight: int) -> bool:
        """Whether `weight` units may start beside `used`, and beside the starts so far."""
        return self.has_room(used, weight) and self.paid(now, weight)

    def has_room(self, used: int, weight: int) -> bool:
        """The same, whatever the rate."""
        return self.limit is None or used + self.units(weight) <= self.limit

    def paid(self, now: float, weight: int) -> bool:
        """The same, whatever is used."""
        return self.interval is None or self.wait(now, weight) <= 1e-7

    def wait(self, now: float, weight: int = 1) -> float:
        """Seconds until the rate lets `weight` units start."""
        interval, free, last = self.interval or 0.0, 0.0, 0.0
        for at, units in self.starts:
            free = max(free if last <= at else 0.0, at) + units * interval
            last = at
        free = free if last <= now else 0.0
        return max(0.0, max(free, now) + (weight - max(self.burst, weight)) * interval - now)

    def units(self, weight: int) -> int:
        return weight if self.limit is None else max(1, min(weight, self.limit))


class Passage:
    """The gates while a claim is made: what is taken of them."""

    def __init__(self, jobs: Iterable[Job], gates: Mapping[str, Gate], now: float) -> None:
        self.gates = {name: replace(gate, starts=list(gate.starts)) for name, gate in gates.items()}
        self.now = now
        self.holders: dict[str, dict[str, int]] = {name: {} for name in gates}
        for job in jobs:
            for need in job.new.gates:
                if job.takes(need):
                    self.holders[need.gate][job.id] = gates[need.gate].units(need.weight)

    def admits(self, job: Job) -> bool:
        """Let a job pass, if all its gates have room. (All weights are 1: the model knows nothing of heavier ones.)"""
        for need in job.new.gates:
            used = sum(units for id, units in self.holders[need.gate].items() if id != job.id)
            if not self.gates[need.gate].room(self.now, used, need.weight):
                return False
        for need in job.new.gates:
            self.holders[need.gate][job.id] = self.gates[need.gate].units(need.weight)
            self.gates[need.gate].starts.append((self.now, need.weight))
        return True


def ideal(jobs: Iterable[Job], demand: Demand, gates: Mapping[str, Gate] | None = None, now: float = 0.0) -> list[str]:
    """The claim of a store that looks at every job. A smaller claim must be a head of this one."""
    jobs = list(jobs)
    idle = (job for job in jobs if job.state is State.READY or (job.state is State.WAITING and job.new.gates))
    ready = sorted(idle, key=lambda job: job.order)
    passage = Passage(jobs, gates or {}, now)
    free = [lane.slots for lane in demand.lanes]
    taken: list[str] = []

    def lane_of(job: Job) -> int | None:
        for at, lane in enumerate(demand.lanes):
            if job.new.task in (lane.suspects if job.lost else lane.tasks):
                return at
        return None

    def take(queue: str | None, most: int) -> None:
        for job in ready:
            at = lane_of(job)
            if job.id in taken or at is None or not free[at] or (queue is not None and job.new.queue != queue):
                continue
            if most <= 0 or len(taken) >= demand.slots:
                return
            if passage.admits(job):
                free[at] -= 1
                most -= 1
                taken.append(job.id)

    if demand.quotas is None:
        take(None, demand.slots)
        return taken
    for quota in demand.quotas:
        take(quota.queue, quota.share)
    for quota in demand.quotas:
        take(quota.queue, demand.slots)
    return taken


class Model:
    """Jobs, unique keys and who is registered."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.boot = 0.0
        self.jobs: dict[str, Job] = {}
        self.leases: dict[str, tuple[float, float]] = {}
        self.runners: dict[str, str] = {}
        self.gates: dict[str, Gate] = {}

    # Jobs in

    def holder(self, key: str | None) -> Job | None:
        """The live job that holds a unique key."""
        live = (job for job in self.jobs.values() if job.state in LIVE and job.new.unique == key)
        return None if key is None else next(live, None)

    def put(self, new: NewJob) -> tuple[str, State, bool]:
        if (old := self.jobs.get(new.id) or self.holder(new.unique)) is not None:
            return old.id, old.state, False
        due = new.run_at if new.run_at is not None else self.now + new.delay
        job = self.jobs[new.id] = Job(
            new=new,
            state=State.SCHEDULED if due > self.now else State.WAITING if new.gates else State.READY,
            run_at=due,
            rank=max(due, self.now) - new.ahead,
            enqueued_at=self.now,
            expires_at=None if new.expires_in is None else self.now + new.expires_in,
        )
        return job.id, job.state, True

    # Workers

    def held_by(self, runner: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.state is State.RUNNING and job.runner == runner]

    def hand_back(self, job: Job, ending: Ending) -> None:
        job.attempts.append((job.fence, job.attempt, ending))
        if ending is Ending.LOST:
            job.lost = max(1, job.lost)
        if job.cancelling:
            job.finish(State.CANCELLED, self.now)
        else:
            job.state = job.idle

    def release(self, runner: str, ending: Ending, outcomes: Sequence[Outcome] = ()) -> int:
        for outcome in outcomes:
            self.settle(runner, outcome)
        self.runners.pop(runner, None)
        held = self.held_by(runner)
        for job in held:
            self.hand_back(job, ending)
        return len(held)

    def depart(self, worker: str, ending: Ending) -> None:
        for runner in [runner for runner, owner in self.runners.items() if owner == worker]:
            self.release(runner, ending)
        self.leases.pop(worker, None)

    def overdue(self) -> set[str]:
        """Workers whose lease is over."""
        return {worker for worker, (beat, lease) in self.leases.items() if self.boot - beat > lease}

    def beat(self, worker: str, held: Mapping[str, Held]) -> bool:
        if worker not in self.leases:
            return False
        self.leases[worker] = (self.boot, self.leases[worker][1])
        for runner, word in held.items():
            for job in self.held_by(runner):
                if job.seq <= word.seq and (job.id, job.fence) not in word.claims:
                    self.hand_back(job, Ending.INTERRUPTED)
        return True

    # Attempts

    def settle(self, runner: str, outcome: Outcome) -> bool | None:
        """Whether the outcome stands. None: a store may say either, as it repeats one of a job that has moved on."""
        job = self.jobs.get(outcome.id)
        if job is None:
            return False
        if job.state is not State.RUNNING or (job.fence, job.runner, job.seq) != (outcome.fence, runner, outcome.seq):
            known = job.settled.get(outcome.fence) == (runner, outcome.seq, outcome.ending)
            return None if known and (job.moved_on or job.fence > outcome.fence) else known
        job.moved_on = False
        job.settled[outcome.fence] = (runner, outcome.seq, outcome.ending)
        job.attempt, job.lost, job.result = outcome.attempt, outcome.lost, outcome.result
        if outcome.ending is not Ending.SUCCEEDED:
            job.attempts.append((job.fence, outcome.attempt, outcome.ending))
        state = outcome.ending.state
        if state is State.SCHEDULED:
            job.run_at = self.now + outcome.delay
            job.rank = job.rank if any(need.keep for need in job.new.gates) else job.run_at - job.new.ahead
        if state in LIVE and not job.cancelling:
            job.state = job.idle if state is State.READY else state
        else:
            job.finish(State.CANCELLED if state in LIVE else state, self.now)
        return True

    def turn(self) -> None:
        """What time does: due jobs are ready, expired ones cancelled."""
        for job in self.jobs.values():
            if job.expired_at(self.now):
                job.finish(State.CANCELLED, self.now)
                job.expired = True
            elif job.state is State.SCHEDULED and job.run_at <= self.now:
                job.state = job.idle

    def claimed(self, runner: str, claims: Sequence[Claim]) -> None:
        """Follow a claim that the store has made."""
        for claim in claims:
            job = self.jobs[claim.id]
            job.state, job.runner, job.seq, job.started_at = State.RUNNING, runner, claim.seq, self.now
            job.fence += 1
            job.progress = None
            job.keeps = frozenset(need.gate for need in job.new.gates if need.keep)
            job.left, job.wants = set(), set()
            for need in job.new.gates:
                self.gates[need.gate].starts.append((self.now, need.weight))

    def rest(self, runner: str, leaving: Sequence[Rest], entering: Sequence[Rest]) -> list[str]:
        """Those of the entering that have room again at all gates that this is about."""
        for rest in leaving:
            if (job := self.resting(runner, rest)) is not None:
                gates = {need.gate for need in rested(job, rest)}
                job.left |= gates
                job.wants -= gates
        back = []
        for rest in entering:
            if (job := self.resting(runner, rest)) is None:
                continue
            missing = [need for need in rested(job, rest) if need.gate in job.left]
            gates = {need.gate for need in missing}
            if all(self.gates[need.gate].has_room(self.used(need.gate), need.weight) for need in missing):
                job.left -= gates
                job.wants -= gates
                back.append(job.id)
            else:
                job.wants |= gates
        return back

    def resting(self, runner: str, rest: Rest) -> Job | None:
        """The job that this is about, if it is at that attempt."""
        job = self.jobs.get(rest.id)
        here = job is not None and job.state is State.RUNNING
        return job if job and here and (job.fence, job.seq, job.runner) == (rest.fence, rest.seq, runner) else None

    def used(self, gate: str) -> int:
        """The units of a gate that jobs have, those not counted that want it again."""
        needs = [
            need
            for job in self.jobs.values()
            for need in job.new.gates
            if need.gate == gate and job.takes(need, wanted=False)
        ]
        return sum(self.gates[gate].units(need.weight) for need in needs)

    def next_run(self) -> float | None:
        """Seconds until the first scheduled job is due."""
        due = [job.run_at for job in self.jobs.values() if job.state is State.SCHEDULED]
        return max(0.0, min(due) - self.now) if due else None

    def next_start(self) -> float | None:
        """Seconds until the rate of the one gate that it needs lets a waiting job start."""
        alone = {
            job.new.gates[0].gate
            for job in self.jobs.values()
            if job.state is State.WAITING and len(job.new.gates) == 1
        }
        waits = [self.gates[name].wait(self.now) for name in alone if self.gates[name].interval]
        return min((wait for wait in waits if wait > 0), default=None)

    # Operators

    def act(self, id: str, verb: Verb) -> bool:
        """Whether the verb fits."""
        job = self.jobs.get(id)
        if job is None:
            return False
        if verb is Verb.CANCEL:
            return self.cancel(job)
        if verb is Verb.DELETE:
            if job.state is State.RUNNING:
                return False
            del self.jobs[id]
            return True
        return self.retry(job)

    def cancel(self, job: Job) -> bool:
        if job.state not in LIVE or job.cancelling:
            return False
        if job.state is State.RUNNING:
            job.cancelling = True
        else:
            job.finish(State.CANCELLED, self.now)
        return True

    def retry(self, job: Job) -> bool:
        if job.state is State.SCHEDULED:
            job.state, job.run_at, job.rank = job.idle, self.now, self.now - job.new.ahead
            return True
        if job.state in LIVE or self.holder(job.new.unique):
            return False
        job.state, job.run_at, job.rank, job.finished_at = job.idle, self.now, self.now - job.new.ahead, None
        job.attempt = job.lost = 0
        job.expires_at, job.expired, job.result, job.moved_on = None, False, None, True
        return True

    def idle_in(self, queue: str) -> list[Job]:
        """The jobs of a queue that do not run yet."""
        return [job for job in self.jobs.values() if job.new.queue == queue and job.state in LIVE - {State.RUNNING}]

    def shed(self, queue: str, most: int, below: int | None) -> tuple[set[str], int]:
        """Which jobs make room, and how many are left."""
        there = self.idle_in(queue)
        here = [
            job for job in there if job.state is not State.SCHEDULED and (below is None or job.new.priority < below)
        ]
        if below is None:
            here.sort(key=lambda job: (job.rank + min(0.0, job.new.ahead), job.id))
        else:
            here.sort(key=lambda job: (job.rank, job.id), reverse=True)
            here.sort(key=lambda job: job.new.priority)
        count = len(there) - most
        if count <= 0 or len(here) < count:
            return set(), len(there)
        for job in here[:count]:
            job.finish(State.CANCELLED, self.now)
        return {job.id for job in here[:count]}, len(there) - count

    def amend(self, change: Change) -> bool:
        """Whether the job stood as was thought, and stands elsewhere now."""
        job = self.jobs.get(change.id)
        if job is None or job.state not in LIVE - {State.RUNNING} or place_of(job.new) != change.was:
            return False
        now = change.now
        job.rank += job.new.ahead - now.ahead
        job.new = structs.replace(job.new, queue=now.queue, priority=now.priority, ahead=now.ahead, gates=now.gates)
        job.keeps &= frozenset(need.gate for need in now.gates if need.keep)
        if job.state is not State.SCHEDULED:
            job.state = job.idle
        return True

    def behind(self) -> list[Job]:
        """The jobs that are to be lifted now."""
        there = (job for job in self.jobs.values() if job.state in (State.READY, State.WAITING))
        return [job for job in there if job.new.ahead < 0 and job.rank <= self.now + EARLY]

    def lift(self) -> int:
        """How many jobs stand with the highest from now on."""
        lifted = self.behind()
        for job in lifted:
            job.rank += job.new.ahead
            job.new = structs.replace(job.new, priority=LIFTED, ahead=0)
        return len(lifted)


def rested(job: Job, rest: Rest) -> list[Need]:
    """What a job takes of the gates that a rest is about."""
    return [need for need in job.new.gates if not need.keep and need.gate.partition("/")[0] in rest.gates]


def place_of(new: NewJob) -> Place:
    """Where a new job stands."""
    return Place(queue=new.queue, priority=new.priority, ahead=new.ahead, gates=new.gates)


class Chronicle:
    """Statistics as a list of all that was ever told."""

    def __init__(self) -> None:
        self.rows: list[Tally] = []
        self.marks: list[Depth] = []

    def tally(self, rows: Sequence[Tally], depths: Sequence[Depth], now: float) -> None:
        minute = int(now // 60)
        self.rows += [structs.replace(row, minute=min(row.minute, minute)) for row in rows]
        self.marks += [structs.replace(depth, minute=min(depth.minute, minute)) for depth in depths]

    def series(self, since: float, until: float, step: int, now: float, queue: str | None = None) -> list[Tally]:
        found: dict[tuple[int, str, str], list[Tally]] = {}
        for row in self.rows:
            if (at := self.step_of(row.minute, since, until, step, now)) is not None and queue in (None, row.queue):
                found.setdefault((at, row.queue, row.task), []).append(row)
        return [
            Tally(
                minute=at,
                queue=name,
                task=task,
                waits=tuple(map(sum, zip(*(row.waits for row in rows), strict=True))),
                runs=tuple(map(sum, zip(*(row.runs for row in rows), strict=True))),
                **{one: sum(getattr(row, one) for row in rows) for one in SUMMED},
            )
            for (at, name, task), rows in sorted(found.items())
        ]

    def depths(self, since: float, until: float, step: int, now: float, queue: str | None = None) -> list[Depth]:
        found: dict[tuple[int, str], list[Depth]] = {}
        for mark in self.marks:
            if (at := self.step_of(mark.minute, since, until, step, now)) is not None and queue in (None, mark.queue):
                found.setdefault((at, mark.queue), []).append(mark)
        names = ("ready", "waiting", "scheduled", "running", "oldest")
        return [
            Depth(minute=at, queue=name, **{one: max(getattr(mark, one) for mark in marks) for one in names})
            for (at, name), marks in sorted(found.items())
        ]

    @staticmethod
    def step_of(minute: int, since: float, until: float, step: int, now: float) -> int | None:
        """The minute with which the step of a minute begins; None where a series does not tell of it."""
        hours = int((now - 86_400) // 3_600) * 60
        if minute < int((now - 30 * 86_400) // 3_600) * 60:
            return None
        by_hour = step % 3_600 == 0 or minute < hours
        at = minute // 60 * 60 if by_hour else minute
        first = int(since // step) * step // 60
        first = first // 60 * 60 if by_hour else first
        return at * 60 // step * step // 60 if first <= at < -(-until // step) * step / 60 else None


SUMMED = ("started", "succeeded", "failed", "cancelled", "retried", "lost", "waited", "ran")
