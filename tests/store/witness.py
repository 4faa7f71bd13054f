"""What was done to a store and what it answered, kept outside of it, and what must be true of that."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.history import Event, Violation, attempts_of
from tests.store.stage import Process, Stage
from windlass import policy
from windlass.errors import Evicted
from windlass.model import (
    Claim,
    Demand,
    Ending,
    Exchanged,
    Held,
    JobRecord,
    NewJob,
    Orders,
    Outcome,
    Patch,
    Placed,
    Progress,
    RunnerInfo,
    State,
    Verb,
    WorkerInfo,
)
from windlass.store.contract import Store

GRAIN = 0.001
"""Seconds that a store may round."""

Attempt = tuple[int, str, int]
"""Fence, runner and seq: the name of an attempt within its job."""


@dataclass
class Life:
    """One job, as its history tells."""

    new: NewJob
    fence: int = 0
    open: Attempt | None = None
    over: State | None = None
    cancelling: bool = False
    attempt: int = 0
    lost: int = 0
    due: float = 0.0
    expires_at: float | None = None
    settled: dict[Attempt, Ending] = field(default_factory=dict)
    runs: dict[int, Process] = field(default_factory=dict)
    has: dict[int, Process] = field(default_factory=dict)

    def end(self, state: State) -> None:
        self.over, self.open, self.cancelling = state, None, False


class Witness:
    """A store that writes down, at the moment of the deed, what it was asked and what it said; and judges it."""

    def __init__(self, store: Store, stage: Stage) -> None:
        self.lives: dict[str, Life] = {}
        self.events: list[Event] = []
        self._store = store
        self._stage = stage
        self._runners: dict[str, str] = {}
        self._gone: set[str] = set()
        self._seqs: dict[str, int] = {}
        self._beats: dict[str, tuple[float, float]] = {}
        self._latest = 0.0
        stage.told = lambda what, process: self.tell(what, process=process.name)

    def tell(self, what: str, job: str = "", fence: int = 0, *, process: str = "", **more: Any) -> None:
        """Write down what happens now."""
        self.events.append(Event(self._stage.now, process, what, job, fence, **more))

    def _now(self) -> float:
        """The store's wall clock. What it made ready stays so when it is set back."""
        now = self._stage.clock.now()
        self._latest = max(self._latest, now)
        return now

    # Jobs in

    async def put(self, jobs: Sequence[NewJob]) -> list[Placed]:
        placed = await self._store.put(jobs)
        await self._notice_expired()
        for job, entry in zip(jobs, placed, strict=True):
            self._placed(job, entry)
        return placed

    def _placed(self, job: NewJob, entry: Placed) -> None:
        self.tell("put", entry.id, yes=entry.new, word=job.unique or "")
        if entry.new:
            if job.id in self.lives:
                raise Violation(job.id, "stored twice under one id")
            if other := self._holder(job.unique, job.id):
                raise Violation(job.id, f"admitted although {other.new.id} holds its unique key {job.unique}")
            if entry.id != job.id:
                raise Violation(job.id, f"stored a second time, as {entry.id}")
            now = self._now()
            until = None if job.expires_in is None else now + job.expires_in
            self.lives[job.id] = Life(job, due=now + job.delay, expires_at=until)
        elif entry.id not in self.lives:
            raise Violation(entry.id, f"put of {job.id} was answered by a job that does not exist")
        elif entry.id != job.id and (self.lives[entry.id].new.unique != job.unique or self.lives[entry.id].over):
            raise Violation(job.id, f"{entry.id} stands for it, but does not hold its unique key")

    def _holder(self, key: str | None, but: str) -> Life | None:
        """The other live job that holds a unique key."""
        for id, life in self.lives.items():
            if key is not None and id != but and life.new.unique == key and not life.over:
                return life
        return None

    async def _notice_expired(self) -> None:
        """Look up the jobs that may have expired, because nobody is told."""
        lives = [life for life in self.lives.values() if not (life.over or life.open or life.new.expires_in is None)]
        for job in await self._store.get([life.new.id for life in lives]) if lives else ():
            self._may_have_expired(self.lives[job.id], job)

    def _may_have_expired(self, life: Life, job: JobRecord) -> None:
        if life.over is None and life.open is None and job.state is State.CANCELLED and job.reason == "expired":
            if life.new.expires_in is None or life.fence:
                raise Violation(job.id, "expired without a limit, or after it had started")
            self.tell("expired", job.id)
            life.end(State.CANCELLED)

    # Workers

    async def enlist(self, worker: WorkerInfo) -> None:
        await self._store.enlist(worker)
        self._beats[worker.id] = (self._stage.now, worker.lease)

    async def join(self, runner: RunnerInfo) -> None:
        await self._store.join(runner)
        if runner.worker not in self._beats:
            raise Violation("", f"runner {runner.id} joined worker {runner.worker}, which is gone")
        if runner.id in self._gone or runner.id in self._runners:
            raise Violation("", f"runner {runner.id} joined a second time")
        self._runners[runner.id] = runner.worker

    async def release(self, runners: Sequence[str], ending: Ending, outcomes: Sequence[Outcome] = ()) -> int:
        back = await self._store.release(runners, ending, outcomes)
        for runner in runners:
            self.tell("released", process=runner, word=str(ending))
        for outcome in outcomes:
            life = self.lives.get(outcome.id)
            if life and life.open and life.open[0] == outcome.fence and life.open[1] in runners:
                self._apply(life, outcome)
        expected = sum(self._depart(runner, ending) for runner in runners)
        if back != expected:
            raise Violation("", f"release of {runners} handed {back} jobs back, not {expected}")
        return back

    async def retire(self, worker: str) -> None:
        await self._store.retire(worker)
        self._depart_worker(worker, Ending.INTERRUPTED)

    async def reap(self, spare: str | None = None) -> list[str]:
        dead = await self._store.reap(spare)
        for worker, (beat, lease) in tuple(self._beats.items()):
            age = self._stage.now - beat
            if (worker in dead) != (age > lease and worker != spare):
                said = "reaped" if worker in dead else "not reaped"
                raise Violation("", f"worker {worker} was {said} {age:.3f} s after its last beat; its lease is {lease}")
        for worker in sorted(dead):
            self.tell("reaped", process=worker)
            self._depart_worker(worker, Ending.LOST)
        return dead

    async def lift(self) -> int:
        return await self._store.lift()

    def _depart(self, runner: str, ending: Ending) -> int:
        self._runners.pop(runner, None)
        self._gone.add(runner)
        held = [life for life in self.lives.values() if life.open and life.open[1] == runner]
        for life in held:
            self._hand_back(life, ending)
        return len(held)

    def _depart_worker(self, worker: str, ending: Ending) -> None:
        self._beats.pop(worker, None)
        for runner in [runner for runner, owner in self._runners.items() if owner == worker]:
            self._depart(runner, ending)

    def _hand_back(self, life: Life, ending: Ending) -> None:
        assert life.open
        self.tell("back", life.new.id, life.open[0], process=life.open[1], word=str(ending))
        process = life.has.get(life.open[0])
        if process and process.alive and process.thaw_at < self._stage.now:
            raise Violation(life.new.id, f"handed back, {ending}, while {process.name} has it and lives")
        life.open = None
        life.lost = max(life.lost, int(ending is Ending.LOST))
        if life.cancelling:
            life.end(State.CANCELLED)

    async def beat(self, worker: str, held: Mapping[str, Held]) -> Orders:
        ordered = {(life.open[1], id, life.open[0]) for id, life in self._cancelling(worker).items() if life.open}
        orders = await self._store.beat(worker, held)
        if orders.evicted != (worker not in self._beats):
            raise Violation("", f"worker {worker} was told evicted={orders.evicted}")
        if orders.evicted:
            self.tell("evicted", process=worker)
            return orders
        if {(order.runner, order.id, order.fence) for order in orders.cancel} != ordered:
            raise Violation("", f"worker {worker} got orders {orders.cancel}, not {ordered}")
        self._beats[worker] = (self._stage.now, self._beats[worker][1])
        for life in self.lives.values():
            word = held.get(life.open[1]) if life.open else None
            if life.open and word and life.open[2] <= word.seq and (life.new.id, life.open[0]) not in word.claims:
                self._hand_back(life, Ending.INTERRUPTED)
        return orders

    def _cancelling(self, worker: str) -> dict[str, Life]:
        mine = {id: life for id, life in self.lives.items() if life.open and life.cancelling}
        return {id: life for id, life in mine.items() if life.open and self._runners.get(life.open[1]) == worker}

    # Attempts

    async def exchange(self, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand) -> Exchanged:
        self._now()
        try:
            answer = await self._store.exchange(runner, seq, outcomes, demand)
        except Evicted:
            self.tell("evicted", process=runner)
            if runner in self._runners:
                raise Violation("", f"runner {runner} was evicted although it is registered") from None
            raise
        if runner not in self._runners:
            raise Violation("", f"runner {runner} exchanged although it is gone")
        for outcome in outcomes:
            self._answered(runner, outcome, outcome.id not in answer.refused)
        fresh = [claim for claim in answer.claimed if claim.fence > self._life(claim.id).fence]
        if fresh and seq <= self._seqs.get(runner, 0):
            raise Violation(fresh[0].id, f"claimed by the repeated exchange {seq} of {runner}")
        for claim in fresh:
            self._claimed(runner, claim)
        self._check_slots(fresh, demand)
        await self._check_order(fresh, demand)
        self._check_held(runner, seq, answer.claimed)
        if fresh or outcomes:
            self._seqs[runner] = max(seq, self._seqs.get(runner, 0))
        return answer

    async def note(self, runner: str, claim: Claim, done: float) -> None:
        """Write the progress of one attempt."""
        patch = Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=Progress(done=done))
        refused = await self._store.note(runner, [patch])
        life = self.lives.get(claim.id)
        if (life is not None and life.open == (claim.fence, runner, claim.seq)) == bool(refused):
            raise Violation(claim.id, f"progress of fence {claim.fence} was {'refused' if refused else 'taken'}")

    async def settle(self, runner: str, outcome: Outcome) -> bool:
        stands = await self._store.settle(runner, outcome)
        self._answered(runner, outcome, stands)
        return stands

    def _life(self, id: str) -> Life:
        if id not in self.lives:
            raise Violation(id, "claimed, but it was never put")
        return self.lives[id]

    def _claimed(self, runner: str, claim: Claim) -> None:
        life = self.lives[claim.id]
        self.tell("claimed", claim.id, claim.fence, process=runner)
        if life.open:
            raise Violation(claim.id, f"claimed by {runner} while {life.open[1]} holds it")
        if life.over:
            raise Violation(claim.id, f"claimed although it is {life.over}")
        if (claim.attempt, claim.lost) != (life.attempt, life.lost):
            raise Violation(claim.id, f"claimed at attempt {claim.attempt}, not {life.attempt}; {claim.lost} losses")
        self._check_time(life)
        life.fence = claim.fence
        life.open = (claim.fence, runner, claim.seq)

    def _check_time(self, life: Life) -> None:
        now = self._now()
        if self._latest < life.due - GRAIN:
            raise Violation(life.new.id, f"claimed {life.due - self._latest:.3f} s before it is due")
        if life.expires_at is not None and life.expires_at < now - GRAIN and not life.fence:
            raise Violation(life.new.id, f"claimed {now - life.expires_at:.3f} s after it expired")

    async def _check_order(self, claims: Sequence[Claim], demand: Demand) -> None:
        """Whether a job of a higher priority was left, which the lane of one of these takes."""
        for lane in demand.lanes:
            taken = [claim.priority for claim in claims if claim.task in (lane.suspects if claim.lost else lane.tasks)]
            for job in await self._store.get(list(self.lives)) if taken else ():
                fits = job.task in (lane.suspects if job.lost else lane.tasks)
                if job.state is State.READY and fits and job.priority > min(taken):
                    raise Violation(job.id, f"left, while a job of priority {min(taken)} was claimed in its place")

    def _check_slots(self, claims: Sequence[Claim], demand: Demand) -> None:
        if len(claims) > demand.slots:
            raise Violation(claims[0].id, f"{len(claims)} jobs claimed for {demand.slots} free slots")
        for lane in demand.lanes:
            taken = [claim for claim in claims if claim.task in (lane.suspects if claim.lost else lane.tasks)]
            if len(taken) > lane.slots:
                raise Violation(taken[0].id, f"{len(taken)} jobs claimed for {lane.slots} free slots of a lane")

    def _check_held(self, runner: str, seq: int, claims: Collection[Claim]) -> None:
        got = {(claim.id, claim.fence) for claim in claims}
        held = {(id, life.open[0]) for id, life in self.lives.items() if life.open and life.open[1:] == (runner, seq)}
        for id, fence in got ^ held:
            raise Violation(
                id, f"exchange {seq} of {runner}, fence {fence}: answered {sorted(got)}, holds {sorted(held)}"
            )

    def _answered(self, runner: str, outcome: Outcome, stands: bool) -> None:
        life = self.lives.get(outcome.id)
        attempt = (outcome.fence, runner, outcome.seq)
        self.tell("settled", outcome.id, outcome.fence, process=runner, word=str(outcome.ending), yes=stands)
        if life is None:
            if stands:
                raise Violation(outcome.id, "the outcome of a job that does not exist was accepted")
        elif life.open == attempt:
            if not stands:
                raise Violation(outcome.id, f"the outcome of {runner}, which holds it, was refused")
            self._apply(life, outcome)
        elif stands and life.settled.get(attempt) is not outcome.ending:
            raise Violation(outcome.id, f"the late outcome {outcome.ending} of attempt {attempt} was accepted")

    def _apply(self, life: Life, outcome: Outcome) -> None:
        assert life.open
        life.settled[life.open] = outcome.ending
        life.open = None
        life.attempt, life.lost = outcome.attempt, outcome.lost
        life.due = self._now() + outcome.delay
        if outcome.ending is Ending.LOST and outcome.lost >= policy.LOST_RUNS:
            raise Violation(outcome.id, f"not failed by lost run {outcome.lost}")
        if outcome.ending.state.final or life.cancelling:
            life.end(outcome.ending.state if outcome.ending.state.final else State.CANCELLED)

    # Operators

    async def act(self, ids: Sequence[str], verb: Verb) -> list[str]:
        await self._notice_expired()
        done = await self._store.act(ids, verb)
        for id in sorted(ids, key=lambda one: one not in done):  # one that was done may be why another was not
            self.tell("acted", id, word=str(verb), yes=id in done)
            self._acted(id, verb, id in done)
        return done

    def _acted(self, id: str, verb: Verb, done: bool) -> None:
        life = self.lives.get(id)
        if life is None:
            if done:
                raise Violation(id, f"{verb} was done to a job that does not exist")
        elif done:
            self._done(life, verb)
        elif verb is Verb.RETRY and life.over and not self._holder(life.new.unique, id):
            raise Violation(id, f"{life.over}, but not retried")

    def _done(self, life: Life, verb: Verb) -> None:
        if verb is Verb.CANCEL and life.open:
            life.cancelling = True
        elif verb is Verb.CANCEL:
            life.end(State.CANCELLED)
        elif verb is Verb.DELETE:
            if life.open:
                raise Violation(life.new.id, f"deleted while {life.open[1]} runs it")
            del self.lives[life.new.id]
        elif not life.over:
            life.due = self._now()
        else:
            if other := self._holder(life.new.unique, life.new.id):
                raise Violation(life.new.id, f"retried although {other.new.id} holds its unique key")
            life.over, life.attempt, life.lost, life.due = None, 0, 0, self._now()
            life.expires_at = None
            life.new = NewJob(id=life.new.id, task=life.new.task, args=b"", unique=life.new.unique)

    # Who believes what

    def begins(self, claim: Claim, process: Process) -> None:
        """A process has an attempt, and starts to run it."""
        self.tell("started", claim.id, claim.fence, process=process.name)
        life = self.lives.get(claim.id)
        if life is None:
            return
        for fence, other in life.runs.items():
            if fence != claim.fence and other.alive and other.thaw_at < self._stage.now:
                raise Violation(claim.id, f"{process.name} starts it while {other.name} runs attempt {fence}")
        life.runs[claim.fence] = life.has[claim.fence] = process

    def stops(self, claim: Claim, process: Process) -> None:
        """A process runs an attempt no longer; it has its outcome."""
        self.tell("ended", claim.id, claim.fence, process=process.name)
        if claim.id in self.lives:
            self.lives[claim.id].runs.pop(claim.fence, None)

    def rid(self, outcomes: Iterable[Outcome]) -> None:
        """A process was told what became of the outcomes of its attempts: it has them no longer."""
        for outcome in outcomes:
            if outcome.id in self.lives:
                self.lives[outcome.id].has.pop(outcome.fence, None)

    # Looking at the store

    def audit(self) -> None:
        """Compare what the store holds with what was told."""
        found = {job.id: job for job in self._stage.finish(self._store.get(list(self.lives)))}
        for id, life in self.lives.items():
            if id not in found:
                raise Violation(id, "lost: the store does not know it any more")
            self._may_have_expired(life, found[id])
            self._compare(life, found[id])
        live = sum(line.count for line in self._stage.finish(self._store.stats()))
        if live != sum(life.over is None for life in self.lives.values()):
            raise Violation("", f"{live} live jobs, of which this history does not know")

    def _compare(self, life: Life, job: JobRecord) -> None:
        if (life.over or job.state) is not job.state or job.state.final != (life.over is not None):
            raise Violation(job.id, f"{job.state}, but its history says {life.over or 'live'}")
        if (job.state is State.RUNNING) != (life.open is not None):
            raise Violation(job.id, f"{job.state}, but held by {life.open}")
        if life.open and (job.fence, job.runner) != life.open[:2]:
            raise Violation(job.id, f"held by {job.runner} under fence {job.fence}, not by {life.open}")
        if job.fence != life.fence:
            raise Violation(job.id, f"fence {job.fence}, not {life.fence}")
        if life.over is None and (job.attempt, job.lost) != (life.attempt, life.lost):
            raise Violation(job.id, f"attempt {job.attempt}, not {life.attempt}; lost {job.lost}, not {life.lost}")

    def look(self) -> None:
        """Tell what the store has in the end."""
        for job in self._stage.finish(self._store.get(list(self.lives))):
            self.tell("found", job.id, job.fence, word=str(job.state), attempts=attempts_of(job))

    def all_over(self) -> bool:
        return all(life.over for life in self.lives.values())

    def counts(self) -> Counter[str]:
        """How many events of each kind there were."""
        return Counter(event.what if event.yes else f"{event.what} in vain" for event in self.events)
