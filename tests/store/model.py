"""The contract as a small dict: what a store must answer and hold, without tables, indexes or batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from windlass.model import Claim, Demand, Ending, Held, JobRecord, NewJob, Outcome, State, Verb

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

    def finish(self, state: State, now: float) -> None:
        self.state, self.finished_at, self.cancelling = state, now, False

    def view(self) -> dict[str, object]:
        """What must be seen of it."""
        running = self.state is State.RUNNING
        return {
            "state": self.state,
            "priority": self.new.priority,
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
        "state": job.state,
        "priority": job.priority,
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


def ideal(jobs: Iterable[Job], demand: Demand) -> list[str]:
    """The claim of a store that looks at every ready job. A smaller claim must be a head of this one."""
    ready = sorted((job for job in jobs if job.state is State.READY), key=lambda job: job.order)
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
            state=State.SCHEDULED if due > self.now else State.READY,
            run_at=due,
            rank=max(due, self.now),
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
            job.state = State.READY

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
            job.run_at = job.rank = self.now + outcome.delay
        if state in LIVE and not job.cancelling:
            job.state = state
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
                job.state = State.READY

    def claimed(self, runner: str, claims: Sequence[Claim]) -> None:
        """Follow a claim that the store has made."""
        for claim in claims:
            job = self.jobs[claim.id]
            job.state, job.runner, job.seq, job.started_at = State.RUNNING, runner, claim.seq, self.now
            job.fence += 1
            job.progress = None

    def next_run(self) -> float | None:
        """Seconds until the first scheduled job is due."""
        due = [job.run_at for job in self.jobs.values() if job.state is State.SCHEDULED]
        return max(0.0, min(due) - self.now) if due else None

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
            job.state, job.run_at, job.rank = State.READY, self.now, self.now
            return True
        if job.state in LIVE or self.holder(job.new.unique):
            return False
        job.state, job.run_at, job.rank, job.finished_at = State.READY, self.now, self.now, None
        job.attempt = job.lost = 0
        job.expires_at, job.expired, job.result, job.moved_on = None, False, None, True
        return True
