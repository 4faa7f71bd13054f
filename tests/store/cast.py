"""Who acts in the simulation: workers with their runners, as the protocol wants them, and those who give them work."""

import random
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from tests.store.stage import Bell, Lost, Process, Stage
from tests.store.witness import Witness
from tests.store.world import ends, worker_info
from windlass import policy
from windlass.errors import Evicted
from windlass.model import Claim, Demand, Ending, Held, Lane, NewJob, Outcome, RunnerInfo, Verb
from windlass.policy import Retry

LEASE = 15.0
BEAT = 3.0
POLL = 10.0
RETRY = Retry(attempts=3, backoff=3.0)
TASKS = ("quick", "heavy")
"""What runs in the runner itself, and what in a child of its own."""


@dataclass
class Plot:
    """What everybody shares: the stage, the witness in front of the store, and what each job will do when it runs."""

    stage: Stage
    store: Witness
    scripts: dict[str, list[str]] = field(default_factory=dict)
    runners: list["Runner"] = field(default_factory=list)
    made: int = 0

    @property
    def rng(self) -> random.Random:
        return self.stage.rng

    def name(self, kind: str) -> str:
        self.made += 1
        return f"{kind}-{self.made:03}"

    def hint(self) -> None:
        """There may be work. Some do not hear it."""
        for runner in self.runners:
            if runner.process.alive and self.rng.random() < 0.8:
                runner.wake()


class Worker:
    """A supervisor. Its death is that of its runners."""

    def __init__(self, plot: Plot, seats: int, slots: int) -> None:
        self.plot = plot
        self.seats = seats
        self.slots = slots
        self.id = ""
        self.beat_at = 0.0
        self.stopping = False
        self.runners: list[Runner] = []
        self.process = Process("", alive=False)

    def start(self) -> None:
        """A new process of this worker."""
        self.process = Process(self.plot.name("worker"), on_death=self._died)
        self.stopping = False
        self.runners = []
        self.plot.stage.spawn(self.process, self._main())

    def _died(self) -> None:
        self.plot.stage.told("killed", self.process)
        for runner in self.runners:
            runner.process.kill()

    async def _main(self) -> None:
        await self._enlist()
        for _ in range(self.seats):
            self.plot.stage.spawn(self.process, self._keep_seat())
        while True:
            sent = self.plot.stage.now
            with suppress(Lost):
                await self._beat(sent)
            await self.plot.stage.sleep(max(0.0, BEAT - (self.plot.stage.now - sent)))

    async def _enlist(self) -> None:
        while True:
            id, sent = self.plot.name("w"), self.plot.stage.now
            try:
                await self.plot.stage.call(self.process, partial(self.plot.store.enlist, worker_info(id, LEASE)))
            except Lost:
                continue
            self.id, self.beat_at = id, sent
            return

    async def _beat(self, sent: float) -> None:
        alive = [runner for runner in self.runners if runner.process.alive and runner.process.thaw_at <= sent]
        held = {runner.id: runner.held() for runner in alive if runner.joined}
        orders = await self.plot.stage.call(self.process, partial(self.plot.store.beat, self.id, held))
        if orders.evicted:
            for runner in self.runners:
                runner.expected = True
                runner.process.kill()
            await self._enlist()
            return
        self.beat_at = sent
        for order in orders.cancel:
            for runner in self.runners:
                if runner.id == order.runner:
                    runner.cancel(order.id, order.fence)
        if orders.due is not None and orders.due < 1.0:
            self.plot.stage.after(orders.due, self._wake_all)
        if orders.dead:
            await self.plot.stage.call(self.process, partial(self.plot.store.reap, self.id))
            self.plot.hint()
        if orders.lift:
            await self.plot.stage.call(self.process, self.plot.store.lift)
            self.plot.hint()

    def _wake_all(self) -> None:
        for runner in self.runners:
            runner.wake()

    async def _keep_seat(self) -> None:
        """Keep a runner running; when it is dead, hand back what it held; then start the next."""
        while not self.stopping:
            runner = Runner(self)
            self.runners.append(runner)
            await runner.gone.heard(1e9)
            ending = Ending.INTERRUPTED if runner.expected else Ending.LOST
            while not await self._release(runner, ending):
                await self.plot.stage.sleep(0.5)
            self.runners.remove(runner)
            self.plot.hint()
            if not runner.joined:
                await self.plot.stage.sleep(1.0)

    async def _release(self, runner: "Runner", ending: Ending) -> bool:
        work = [runner.overdue] if runner.overdue else []
        try:
            await self.plot.stage.call(self.process, partial(self.plot.store.release, [runner.id], ending, work))
        except Lost:
            return False
        return True

    async def stop(self) -> None:
        """What a supervisor does on SIGTERM."""
        self.stopping = True
        for runner in self.runners:
            runner.expected = True
            runner.wake()
        for _ in range(8):
            if any(runner.process.alive for runner in self.runners):
                await self.plot.stage.sleep(1.0)
        for runner in self.runners:
            runner.process.kill()
        while self.runners:
            await self.plot.stage.sleep(0.5)
        while True:
            try:
                await self.plot.stage.call(self.process, partial(self.plot.store.retire, self.id))
                break
            except Lost:
                continue
        self.process.kill()


class Runner:
    """A process that runs jobs: claim, run, settle."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.plot = worker.plot
        self.stage = worker.plot.stage
        self.id = self.plot.name("r")
        self.expected = False
        self.joined = False
        self.overdue: Outcome | None = None
        self.gone = Bell(self.stage)
        self.process = Process(self.id, on_death=self._died)
        self._running: dict[str, Claim] = {}
        self._finished: list[Outcome] = []
        self._sending: list[Outcome] = []
        self._seq = 0
        self._asking = False
        self._turn = Bell(self.stage)
        self._hungry = True
        self.plot.runners.append(self)
        self.stage.spawn(self.process, self._main())
        self._watch()

    def _died(self) -> None:
        self.stage.told("killed", self.process)
        self.gone.ring()

    def _watch(self) -> None:
        """The stop line: without a good beat the end comes before the lease is over."""
        left = self.worker.beat_at + LEASE * 5 / 6 - self.stage.now
        watchers = (self.process, self.worker.process)
        if not self.process.alive:
            return
        if left > 0:
            self.stage.after(left, self._watch)
        elif all(process.thaw_at > self.stage.now for process in watchers):
            for process in watchers:
                process.waiting.append(self._watch)
        else:
            self.expected = True
            self.process.kill()

    def wake(self) -> None:
        self._hungry = True
        self._turn.ring()

    def held(self) -> Held:
        """What it holds as of the last exchange that was answered."""
        claims = {(claim.id, claim.fence) for claim in self._running.values()}
        claims |= {(outcome.id, outcome.fence) for outcome in (*self._finished, *self._sending)}
        return Held(seq=self._seq - self._asking, claims=frozenset(claims))

    async def _main(self) -> None:
        if not await self._join():
            self.process.kill()
            return
        while self._running or self._finished or not self.worker.stopping:
            if not self._finished and not (self._hungry and self._free() > 0):
                await self._turn.heard(POLL)
                self._hungry = True
                if not self._finished and self._free() <= 0:
                    continue
            try:
                if self._finished and self.plot.rng.random() < 0.2:
                    await self._settle()
                else:
                    await self._exchange()
            except Evicted:
                break
        self.process.kill()

    async def _join(self) -> bool:
        info = RunnerInfo(id=self.id, worker=self.worker.id, pid=1, tasks=TASKS)
        try:
            await self.stage.call(self.process, partial(self.plot.store.join, info))
        except (Lost, Evicted):
            return False
        self.joined = True
        return True

    def _free(self) -> int:
        if self.worker.stopping or self.stage.now - self.worker.beat_at > LEASE / 2:
            return 0
        return self.worker.slots - len(self._running)

    def _demand(self) -> Demand:
        free = self._free()
        if free <= 0:
            return Demand(slots=0)
        children = max(0, min(free, 1 - sum(in_child(claim) for claim in self._running.values())))
        quick = Lane(slots=free, tasks=frozenset({"quick"}))
        return Demand(slots=free, lanes=(quick, Lane(slots=children, tasks=HEAVY, suspects=ALL)))

    async def _exchange(self) -> None:
        self._sending, self._finished = self._finished, []
        self._hungry = False
        self._seq += 1
        self._asking = True
        outcomes, demand, seq = tuple(self._sending), self._demand(), self._seq
        while True:
            try:
                answer = await self.stage.call(
                    self.process, partial(self.plot.store.exchange, self.id, seq, outcomes, demand)
                )
                break
            except Lost:
                await self.stage.sleep(0.1)
        self._asking = False
        self.plot.store.rid(outcomes)
        self._sending = []
        for claim in answer.claimed:
            self._running[claim.id] = claim
            self.stage.spawn(self.process, self._run(claim))
        if answer.next_due is not None and demand.slots:
            self.stage.after(max(0.05, min(answer.next_due, POLL)), self.wake)

    async def _settle(self) -> None:
        """Hand in one outcome by itself."""
        outcome = self._finished.pop(0)
        self._sending = [outcome]
        while True:
            try:
                await self.stage.call(self.process, partial(self.plot.store.settle, self.id, outcome))
                break
            except Lost:
                continue
        self.plot.store.rid([outcome])
        self._sending = []
        self._hungry = True

    # Jobs

    async def _run(self, claim: Claim) -> None:
        self.plot.store.begins(claim, self.process)
        scripts = self.plot.scripts.get(claim.id, [])
        act = scripts.pop(0) if len(scripts) > 1 else (scripts or ["ok"])[0]
        await self.stage.sleep(self.plot.rng.uniform(10.0, 25.0) if act == "slow" else self.plot.rng.uniform(0.0, 2.0))
        if self.plot.rng.random() < 0.2:
            with suppress(Lost):
                await self.stage.call(self.process, partial(self.plot.store.note, self.id, claim, 1.0))
        if self._running.get(claim.id) is not claim:
            return
        if act == "die" and not in_child(claim):
            self.process.kill()
        else:
            self._end(claim, perform(claim, act))

    def _end(self, claim: Claim, outcome: Outcome) -> None:
        del self._running[claim.id]
        self.plot.store.stops(claim, self.process)
        self._finished.append(outcome)
        self._turn.ring()

    def cancel(self, id: str, fence: int) -> None:
        """An order to end an attempt."""
        claim = self._running.get(id)
        if claim and claim.fence == fence and self.process.alive:
            self._end(claim, policy.cancelled(claim, "ordered"))

    def overrun(self) -> None:
        """An attempt runs over its deadline: the supervisor ends the runner for its sake."""
        if self._running and self.process.alive:
            claim = self.plot.rng.choice(list(self._running.values()))
            self.overdue = policy.timed_out(claim, RETRY, 1.0)
            self.expected = True
            self.process.kill()


HEAVY, ALL = frozenset({"heavy"}), frozenset(TASKS)


def in_child(claim: Claim) -> bool:
    """Whether an attempt runs in a process of its own, whose death is its own."""
    return claim.task == "heavy" or claim.lost > 0


def perform(claim: Claim, act: str) -> Outcome:
    """How an attempt ends that does `act`."""
    match act:
        case "fail":
            return policy.raised(claim, ValueError("no luck"), RETRY)
        case "snooze":
            return ends(claim, Ending.SNOOZED, delay=2.0)
        case "cancel":
            return ends(claim, Ending.CANCELLED)
        case "give up":
            return ends(claim, Ending.FAILED)
        case "die":
            return policy.lost(claim, "signal 9")
    return policy.succeeded(claim, b"1")


ACTS = ["ok"] * 10 + ["fail"] * 3 + ["snooze"] * 2 + ["die"] * 2 + ["slow"] * 3 + ["cancel", "give up"]


async def produce(plot: Plot, process: Process, count: int, seconds: float) -> None:
    """Put jobs until `seconds` are over, each as often as it takes to get an answer."""
    rng = plot.rng
    while count > 0:
        await plot.stage.sleep(rng.uniform(0.0, 2 * seconds / count))
        jobs = [new_job(plot) for _ in range(min(count, rng.choice((1, 1, 1, 2, 4))))]
        count -= len(jobs)
        for job in jobs:
            plot.scripts[job.id] = [*rng.choices(ACTS, k=3), "ok"]
        while True:
            try:
                await plot.stage.call(process, partial(plot.store.put, jobs))
                break
            except Lost:
                continue
        plot.hint()


def new_job(plot: Plot) -> NewJob:
    rng = plot.rng
    return NewJob(
        id=plot.name("job"),
        task=rng.choice(TASKS),
        args=b"",
        queue=rng.choice("ab"),
        priority=rng.randrange(2),
        ahead=rng.choice((0, 0, 0, -rng.uniform(0.5, 20.0))),
        delay=rng.choice((0, 0, 0, rng.uniform(0.5, 8.0))),
        expires_in=rng.choice((None, None, None, rng.uniform(3.0, 9.0))),
        unique=rng.choice((None, None, "k", "l")),
    )


async def operate(plot: Plot, process: Process, seconds: float) -> None:
    """Do things to jobs now and then."""
    rng = plot.rng
    while plot.stage.now < seconds:
        await plot.stage.sleep(rng.uniform(0.0, 10.0))
        ids = rng.sample(sorted(plot.scripts), min(len(plot.scripts), 2))
        verb = rng.choice((Verb.CANCEL, Verb.CANCEL, Verb.RETRY, Verb.RETRY, Verb.RETRY, Verb.DELETE))
        try:
            await plot.stage.call(process, partial(plot.store.act, ids, verb))
        except Lost:
            continue
        plot.hint()
