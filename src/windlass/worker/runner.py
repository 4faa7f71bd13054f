"""The runner: claim, run, settle, in one loop that speaks with the store in single round trips."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from windlass import policy
from windlass.clock import Clock
from windlass.context import Context, Takes
from windlass.errors import DecodeError, Evicted, StoreError
from windlass.hook import FAILURES, Hook
from windlass.model import Claim, Demand, Ending, Exchanged, Held, Lane, Outcome, Progress
from windlass.options import NAME
from windlass.pause import View
from windlass.policy import Retry
from windlass.store.contract import Store
from windlass.task import Task
from windlass.vault import Vault
from windlass.worker.board import Board
from windlass.worker.breaking import Breaking
from windlass.worker.children import Children
from windlass.worker.completion import Transactions
from windlass.worker.counts import Counts
from windlass.worker.deadlines import Deadlines
from windlass.worker.lanes import Threads
from windlass.worker.logs import keeping
from windlass.worker.meter import Meter
from windlass.worker.news import Settled
from windlass.worker.noting import Noting
from windlass.worker.parking import Berth, Parking
from windlass.worker.pauses import look
from windlass.worker.pipeline import MAX_RESULT, Running, Stop, perform, perform_blocking, stopped
from windlass.worker.queues import Queues
from windlass.worker.rests import Rests
from windlass.worker.run import Run

logger = logging.getLogger("windlass.worker")
failures = logging.getLogger(FAILURES)

AnyTask = Task[Any, Any]

DEFAULT_RETRY = Retry()
NO_KEYS = Vault()

POLL = 15.0
"""Seconds after which an idle runner asks again by itself. Belt and braces: when a hint is lost, the next beat, at most
a second later, finds what is due and wakes every runner, for one statement however many there are."""

CALM = 0.005
"""Seconds between two exchanges that brought nothing although the store says that there is more."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds to wait before an exchange that failed is repeated."""


class Runner:
    """Runs jobs of `tasks` in at most `slots` slots, in the name of a runner id that is registered already.

    `jobs` counts those that this very process began, `counts` has what became of all. What they take goes to `meter`
    too, if there is one.
    """

    def __init__(
        self,
        id: str,
        store: Store,
        tasks: Mapping[str, AnyTask],
        *,
        slots: int,
        queues: Queues,
        children: Children,
        board: Board,
        clock: Clock,
        lease: float,
        state: Any = None,
        hooks: Sequence[Hook] = (),
        limit: int = MAX_RESULT,
        vault: Vault = NO_KEYS,
        transactions: Transactions | None = None,
        gates: Takes | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.id = id
        self.jobs = 0
        self.counts = Counts()
        self._store = store
        self._tasks = tasks
        self._slots = slots
        self._queues = queues
        self._children = children
        children.on_moved = self._relay
        self._threads = Threads(slots)
        self._board = board
        self._clock = clock
        self._lease = lease
        self._state = state
        self._hooks = hooks
        self._settled = Settled(hooks)
        self._limit = limit
        self._vault = vault
        self._transactions = transactions
        self._gates = gates
        self._meter = meter
        self._seq = 0
        self._running: dict[str, Run] = {}
        self._finished: list[Outcome] = []
        self._handing_in: list[Outcome] = []
        self._noting = Noting(store, id, vault)
        self._berths: dict[str, Berth] = {}
        self._asked = 0
        self._parking = Parking(lambda: self._slots - self._active - self._asked, self._parked)
        self._rests = Rests(store, id, self.wake)
        self._deadlines = Deadlines(board, clock)
        self._due: asyncio.TimerHandle | None = None
        self._turn = asyncio.Event()
        self._hungry, self._claiming, self._told = True, True, False
        self._breaking = Breaking(store, id, tasks, free=self._free, tell=self._open)
        self._known = frozenset(task.queue for task in tasks.values())
        self._process = frozenset(name for name, task in tasks.items() if task.executor == "process")
        self._lanes: dict[str, frozenset[str]] = {}
        self._tries: list[frozenset[str]] = []
        self._open()

    def _open(self) -> None:
        """Know by lane which tasks are not paused, and of which paused ones a job may be tried."""
        paused, tries = self._breaking.view.tasks, self._breaking.tries
        free = {name: task for name, task in self._tasks.items() if not paused & {name, task.name}}
        self._lanes = {
            lane: frozenset(name for name, task in free.items() if task.executor == lane)
            for lane in ("async", "thread", "process")
        }
        self._tries = [frozenset(name for name, task in self._tasks.items() if task.name == one) for one in tries]
        self.wake()

    # Speaking with the store

    async def run(self) -> None:
        """Work until `stop_claiming` was called and nothing runs any more."""
        with keeping():
            await self._run()

    async def _run(self) -> None:
        helpers = [
            asyncio.create_task(work)
            for work in (self._listen(), self._noting.run(), self._breaking.run(), self._rests.run())
        ]
        try:
            await self._look_first()
            while self._claiming or self._running or self._finished:
                if not (self._finished or (self._hungry and self._free() > 0)):
                    self._turn.clear()
                    await self._turn.wait()
                    continue
                await self._exchange()
        finally:
            for helper in helpers:
                helper.cancel()
            if self._due:
                self._due.cancel()
            self._deadlines.close()
            self._threads.close()
            await self._settled.close()

    async def _look_first(self) -> None:
        """Know what is paused before anything is claimed, unless somebody has told already."""
        pause = FIRST_PAUSE
        while not self._told and self._claiming:
            try:
                view = await look(self._store)
                if not self._told:
                    self.hold(view)
            except StoreError as error:
                logger.warning("what is paused could not be read, trying again: %s", error)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    async def _exchange(self) -> None:
        outcomes, self._finished = self._finished, []
        self._handing_in = outcomes
        self._hungry = False
        self._seq += 1
        demand = self._demand()
        self._asked = demand.slots
        await self._noting.flush()
        answer = await self._ask(outcomes, demand)
        self._handing_in = []
        self._settled.answered(outcomes, answer.refused)
        if outcomes:
            self._rests.wake()
        for id in answer.refused:
            logger.warning("job %s: this attempt had been settled, or taken from us, so this outcome was dropped", id)
        if self._meter:
            self._meter.asked(self._clock.boot(), is_full=len(answer.claimed) >= demand.slots)
        late = self._is_late() or not self._claiming
        for claim in answer.claimed:
            if late:
                self._finished.append(policy.interrupted(claim))
            else:
                self._start(claim)
        self._asked = 0
        self._parking.give()
        self._plan(answer, demand)

    async def _ask(self, outcomes: Sequence[Outcome], demand: Demand) -> Exchanged:
        """One exchange, repeated under the same number until it is answered. Raises `Evicted`."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._store.exchange(self.id, self._seq, outcomes, demand)
            except Evicted:
                raise
            except StoreError as error:
                logger.warning("the store did not take an exchange, trying again: %s", error)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    def _plan(self, answer: Exchanged, demand: Demand) -> None:
        """Decide when to ask again without being told."""
        if self._due:
            self._due.cancel()
            self._due = None
        if answer.next_due is None:
            return
        idle = not answer.claimed and demand.slots > 0
        delay = max(answer.next_due, CALM if idle else 0.0)
        if delay == 0:
            self._hungry = True
        else:
            self._due = asyncio.get_running_loop().call_later(min(delay, 3600.0), self.wake)

    @property
    def _active(self) -> int:
        """How many slots are taken."""
        return len(self._running) - self._parking.count

    def _free(self) -> int:
        return 0 if not self._claiming or self._is_late() else self._slots - self._active - self._parking.wanting

    def _is_late(self) -> bool:
        """Whether half the lease is over: too late to begin anything."""
        return self._clock.boot() - self._board.beat > self._lease / 2

    def _demand(self) -> Demand:
        free = self._free()
        if free <= 0:
            return Demand(slots=0)
        view = self._breaking.view
        known = view.known | self._known if view.queues else ()
        quotas = self._queues.quotas(free, view.queues, known)
        if quotas == ():
            return Demand(slots=0)
        children = min(free, self._children.free)
        crew = max(0, children - len(self._tries))
        open = {lane: self._parking.only(names) for lane, names in self._lanes.items()}
        lanes = (
            *self._try_lanes(children),
            Lane(slots=free, tasks=open["async"]),
            Lane(slots=free, tasks=open["thread"]),
            Lane(slots=crew, tasks=open["process"], suspects=frozenset().union(*open.values())),
        )
        return Demand(slots=free, lanes=lanes, quotas=quotas)

    def _try_lanes(self, children: int) -> list[Lane]:
        """One slot for a job of each paused task that may be tried; suspects need a process child."""
        here = [names for names in self._tries if children or not names & self._process]
        return [Lane(slots=1, tasks=names, suspects=names if children else frozenset()) for names in here]

    async def _listen(self) -> None:
        while True:
            try:
                await self._store.wait("work", POLL)
            except Exception as error:  # a hint less; looking again finds everything
                logger.debug("waiting for hints failed: %s", error)
                await asyncio.sleep(1)
            self.wake()

    # Orders

    def wake(self) -> None:
        """Look for work: there may be some."""
        self._hungry = True
        self._turn.set()
        self._rests.wake()

    def resize(self, slots: int) -> None:
        """Have that many slots from now on, and at most those it began with; what runs goes on."""
        self._slots = slots
        self._parking.give()
        self.wake()

    def hold(self, view: View) -> None:
        """Claim nothing of what is paused; what runs goes on."""
        self._told = True
        if view != self._breaking.view:
            self._breaking.hear(view)
            self._open()

    def stop_claiming(self) -> None:
        """Take no more jobs; `run` ends when the running ones have."""
        self._claiming = False
        self._turn.set()

    def cancel(self, id: str, fence: int) -> None:
        """End an attempt that an operator does not want any more."""
        run = self._running.get(id)
        if run and run.claim.fence == fence:
            run.stop(Stop.CANCELLED)

    def interrupt(self) -> None:
        """End every running attempt without charging it: this process has to go."""
        for run in tuple(self._running.values()):
            run.stop(Stop.INTERRUPTED)

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return len(self._running)

    def held(self) -> Held:
        """The claims that this runner holds, outcomes that are not settled yet but for ids that are no text."""
        claims = {(run.claim.id, run.claim.fence) for run in self._running.values()}
        claims |= {
            (outcome.id, outcome.fence) for outcome in (*self._finished, *self._handing_in) if outcome.id.isascii()
        }
        return Held(seq=self._seq - 1, claims=frozenset(claims))

    # Running jobs

    def _start(self, claim: Claim) -> None:
        task = self._tasks.get(claim.task)
        try:
            if task is None or not NAME.fullmatch(claim.id):
                raise DecodeError(
                    f"the stored record of job {claim.id!a} of task {claim.task!a} was not written by Windlass"
                )
            claim = self._vault.open_claim(claim)
        except DecodeError as error:
            self._refuse(claim, error)
            return
        self._breaking.claimed(claim)
        if self._tries:
            self._open()
        context = Running(
            claim,
            runner=self.id,
            state=self._state,
            moved=lambda: self._noting.moved(run),
            transactions=self._transactions,
            gates=self._gates,
        )
        run = self._running[claim.id] = Run(claim, context, DEFAULT_RETRY, None)
        run.began = self._clock.boot()
        self.counts.began(claim)
        if self._meter:
            self._meter.began(run.began)
        try:
            run.retry, run.timeout = task.options_for(claim)
        except Exception as error:
            self._end(run, policy.raised(claim, error, run.retry))
            return
        if claim.lost or task.executor == "process":
            work = asyncio.create_task(self._children.run(claim, run.retry, run.timeout))
            run.ask = lambda why: self._children.cancel(claim.id, why)
            work.add_done_callback(lambda work: self._done(run, work))
            return
        self.jobs += 1
        if run.timeout is not None:
            self._deadlines.watch(run, run.timeout, len(self._running))
        berth = context.slot = self._berths[claim.id] = Berth(self._parking, run, self._rests, gates_at(task, claim))
        run.ask = lambda why: berth.end()
        if task.executor == "thread":
            self._start_thread(task, run)
            return
        work = asyncio.create_task(perform(task, claim, context, self._hooks, self._limit))
        run.ask = lambda why: (work.cancel(), berth.end())
        work.add_done_callback(lambda work: self._done(run, work))

    def _refuse(self, claim: Claim, error: DecodeError) -> None:
        """A job that cannot even be looked at fails; why is for the operator, and holds nothing of it."""
        outcome = policy.raised(claim, error, DEFAULT_RETRY)
        self._finished.append(outcome)
        self.counts.refused()
        self._settled.ended(claim, outcome)
        self._log(Context(claim), outcome)
        self._turn.set()

    def _start_thread(self, task: AnyTask, run: Run) -> None:
        def work() -> Outcome:
            return perform_blocking(task, run.claim, run.context, self._hooks, self._limit)

        try:
            self._threads.submit(work, lambda outcome: self._end(run, outcome))
        except RuntimeError as error:  # the system has no more threads
            self._end(run, policy.raised(run.claim, error, run.retry))

    def _done(self, run: Run, work: asyncio.Task[Outcome]) -> None:
        if not work.cancelled() and (error := work.exception()) is None:
            outcome = work.result()
        elif work.cancelled():  # before its first step
            outcome = stopped(run.claim, run.context.stop or Stop.INTERRUPTED, run.retry, run.timeout)
        else:
            assert error
            outcome = policy.raised(run.claim, error, run.retry)
        self._end(run, outcome)

    def _end(self, run: Run, outcome: Outcome) -> None:
        del self._running[run.claim.id]
        run.over = run.context.over = True
        if berth := self._berths.pop(run.claim.id, None):
            berth.over()
        now = self._clock.boot()
        self.counts.ended(run.claim, outcome.ending, now - run.began)
        if self._meter:
            self._meter.ended(now, run.claim.task, now - run.began - run.rested, good=outcome.failure is None)
        self._breaking.ended(run.claim, outcome)
        self._finished.append(self._vault.seal_outcome(run.claim, self._noting.ended(run, outcome)))
        self._settled.ended(run.claim, outcome)
        self._log(run.context, outcome)
        self._deadlines.ended()
        self._parking.give()
        self._turn.set()

    def _parked(self, run: Run, waits: bool) -> None:
        """A job has given its slot back while it waits, or has one again."""
        if self._tasks[run.claim.task].executor == "thread":
            self._threads.lend(waits)
        if self._meter:
            now = self._clock.boot()
            run.rested += -now if waits else now
            self._meter.rests(now, waits)
        if waits:
            self.wake()

    def _log(self, context: Context, outcome: Outcome) -> None:
        claim = context.job
        if claim is None or outcome.ending is Ending.SUCCEEDED:
            return
        what = policy.first_line(outcome.failure.message if outcome.failure else outcome.reason or "")
        level = logging.ERROR if outcome.ending is Ending.FAILED else logging.INFO
        again = f", again in {outcome.delay:.0f} s" if outcome.ending is Ending.RETRY else ""
        kind = f"{outcome.failure.type}: " if outcome.failure else ""
        failures.log(
            level,
            "job %s (%s) attempt %d: %s%s: %s%s",
            policy.first_line(claim.id),
            policy.first_line(claim.task),
            claim.attempt + 1,
            outcome.ending,
            again,
            kind,
            what,
            extra=context.fields,
        )

    def _relay(self, claim: Claim, progress: Progress | None, lines: str) -> None:
        """A process child says how far its job is."""
        run = self._running.get(claim.id)
        if run and run.claim.fence == claim.fence:
            run.context.relay(progress, lines)


def gates_at(task: AnyTask, claim: Claim) -> tuple[str, ...]:
    """The limits that a job gives back while it waits: its task's and its queue's, but for what it keeps."""
    gates = (*task.gates, *task.app.described(claim.queue).gates)
    return tuple({gate.name for gate in gates if gate.settings.interval is None and not gate.keep})
