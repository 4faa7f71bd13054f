"""The whole contract against the model, in any order that Hypothesis can think of.

`WINDLASS_MACHINE=20000x120` runs that many examples of that many steps, on every kind of store.
"""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.budget import MACHINE
from tests.store.drawn import GATES, PICK, QUEUES, SAID, TASKS, demands, families, jobs, places
from tests.store.kinds import KINDS
from tests.store.model import Gate, Model, ideal, place_of, seen
from tests.store.world import ends, new, new_id, worker_info
from windlass.errors import Evicted
from windlass.gate import Settings, write_settings
from windlass.model import (
    Claim,
    Demand,
    Doc,
    Ending,
    Held,
    JobRecord,
    Lane,
    Outcome,
    Patch,
    Progress,
    Rest,
    RunnerInfo,
    State,
    Verb,
    WorkerInfo,
)
from windlass.place import Change, Place
from windlass.store.contract import GATE

T = TypeVar("T")
LEASES = (10.3, 20.3)


@dataclass
class Call:
    """An exchange that was made."""

    seq: int
    outcomes: list[Outcome]
    demand: Demand


@dataclass
class Runner:
    """A runner as its own process remembers it, gone or not."""

    id: str
    seq: int = 0
    claims: list[Claim] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


def takes(demand: Demand) -> bool:
    """Whether any job could be claimed for it."""
    return demand.slots > 0 and any(lane.slots > 0 and lane.tasks | lane.suspects for lane in demand.lanes)


def settings_of(name: str, gate: Gate) -> Doc:
    """The document with the settings of gates."""
    interval = None if gate.interval is None else round(gate.interval * 1_000_000)
    body = write_settings(Settings(limit=gate.limit, interval=interval, burst=gate.burst))
    return Doc(kind=GATE, name=name, version=0, body=body)


class Machine(RuleBasedStateMachine):
    """One store and its model."""

    kind: ClassVar[str] = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self._world = KINDS[self.kind](Path(self._folder.name))
        self._run(self._world.open())
        self._model = Model(self._run(self._world.now()))
        self._model.gates = {name: replace(gate, starts=[]) for name, gate in GATES.items()}
        self._run(self._store.save([settings_of(name, gate) for name, gate in SAID.items()]))
        self._workers: list[str] = []
        self._runners: list[Runner] = []
        self._ids: list[str] = []
        self._gated = False
        self._add_worker(0)
        self.claim(0, 1)  # has the gates looked at whose settings were just written

    def teardown(self) -> None:
        self._run(self._world.close())
        self._loop.close()
        self._folder.cleanup()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    @property
    def _store(self) -> Any:
        return self._world.store

    # Jobs in

    @initialize(given=st.lists(jobs, min_size=3, max_size=6))
    def begin(self, given: list[dict[str, Any]]) -> None:
        self._put([new(**more) for more in given])

    @rule(given=st.lists(jobs, min_size=1, max_size=5), again=st.none() | PICK)
    def put(self, given: list[dict[str, Any]], again: int | None) -> None:
        """New jobs, and maybe one whose id is known."""
        ids = [new_id() for _ in given]
        if again is not None and self._ids:
            ids[again % len(ids)] = self._ids[again % len(self._ids)]
        self._put([new(**more, id=id) for id, more in zip(ids, given, strict=True)])

    def _put(self, fresh: list[Any]) -> None:
        placed = self._run(self._store.put(fresh))
        self._gated |= any(job.gates for job in fresh)
        self._ids += [job.id for job in fresh if job.id not in self._ids]
        answers = [(entry.id, self._shown(entry.id, entry.state), entry.new) for entry in placed]
        assert answers == [self._model.put(job) for job in fresh]

    def _shown(self, id: str, state: State | None) -> State | None:
        """A state, where a store may hold a job ready that waits for its gates."""
        gated = id in self._model.jobs and self._model.jobs[id].new.gates
        return State.WAITING if gated and state is State.READY else state

    # Workers

    def _add_worker(self, at: int) -> None:
        worker = new_id()
        lease = LEASES[at % len(LEASES)]
        self._run(self._store.enlist(worker_info(worker, lease)))
        self._model.leases[worker] = (self._model.boot, lease)
        self._workers.append(worker)
        self._join(worker)

    @rule(at=PICK)
    @precondition(lambda self: len(self._model.runners) < 4)
    def enrol(self, at: int) -> None:
        if at % 5 == 4:
            self._enrol_again(at)
        elif at % 2 and len(self._model.leases) < 3:
            self._add_worker(at)
        else:
            self._join(self._workers[at % len(self._workers)])

    def _enrol_again(self, at: int) -> None:
        """No id is taken twice, whether it is still registered or gone."""
        old = self._runners[at % len(self._runners)].id
        worker = self._workers[at % len(self._workers)]
        with pytest.raises(Evicted):
            self._run(self._store.join(RunnerInfo(id=old, worker=worker, pid=2)))
        with pytest.raises(Evicted):
            self._run(self._store.enlist(worker_info(worker)))

    def _join(self, worker: str) -> None:
        runner = Runner(new_id())
        info = RunnerInfo(id=runner.id, worker=worker, pid=2)
        if worker not in self._model.leases:
            with pytest.raises(Evicted):
                self._run(self._store.join(info))
            return
        self._run(self._store.join(info))
        self._model.runners[runner.id] = worker
        self._runners.append(runner)

    @rule(at=PICK, ending=st.sampled_from([Ending.LOST, Ending.INTERRUPTED]), claims=st.lists(PICK, max_size=2))
    def release(self, at: int, ending: Ending, claims: list[int]) -> None:
        runner = self._runner(at)
        outcomes = self._outcomes(runner, claims)
        back = self._run(self._store.release([runner.id], ending, outcomes))
        assert back == self._model.release(runner.id, ending, outcomes)

    @rule(at=PICK)
    @precondition(lambda self: len(self._model.leases) > 1)
    def retire(self, at: int) -> None:
        worker = self._workers[at % len(self._workers)]
        self._run(self._store.retire(worker))
        self._model.depart(worker, Ending.INTERRUPTED)

    @rule(at=PICK, word=st.sampled_from(["none", "true", "empty", "old"]))
    def beat(self, at: int, word: str) -> None:
        worker = self._workers[at % len(self._workers)]
        held = (
            {}
            if word == "none"
            else {
                runner.id: self._word(runner, word)
                for runner in self._runners
                if self._model.runners.get(runner.id) == worker
            }
        )
        orders = self._run(self._store.beat(worker, held))
        expected = self._orders(worker)
        due, lift = self._due(), bool(self._model.behind())
        assert orders.evicted == (not self._model.beat(worker, held))
        if not orders.evicted:
            assert {(order.runner, order.id, order.fence) for order in orders.cancel} == expected
            assert orders.dead == bool(self._model.overdue())
            assert orders.lift == lift
            assert self._gated or orders.due == pytest.approx(due, abs=0.001)

    def _word(self, runner: Runner, word: str) -> Held:
        claims = frozenset((job.id, job.fence) for job in self._model.held_by(runner.id))
        seq = max(0, runner.seq - 1) if word == "old" else runner.seq
        return Held(seq=seq, claims=claims if word == "true" else frozenset())

    def _orders(self, worker: str) -> set[tuple[str, str, int]]:
        runners = [runner for runner, owner in self._model.runners.items() if owner == worker]
        return {(id, job.id, job.fence) for id in runners for job in self._model.held_by(id) if job.cancelling}

    def _due(self) -> float | None:
        ready = any(job.state is State.READY for job in self._model.jobs.values())
        return 0 if ready else self._model.next_run()

    @rule()
    def reap(self) -> None:
        overdue = self._model.overdue()
        assert set(self._run(self._store.reap())) == overdue
        for worker in overdue:
            self._model.depart(worker, Ending.LOST)

    # Attempts

    def _runner(self, at: int) -> Runner:
        """A runner: mostly one that lives, now and then one that is gone."""
        if at % 8 == 0:
            return self._runners[at % len(self._runners)]
        if not self._model.runners:
            self._add_worker(at)
        alive = [runner for runner in self._runners if runner.id in self._model.runners]
        return alive[at % len(alive)]

    def _outcomes(self, runner: Runner, picks: list[int]) -> list[Outcome]:
        """Outcomes of claims of the runner, mostly of those that it holds, at most one per job."""
        held = [claim for claim in runner.claims if self._holds(runner, claim)]
        chosen = {}
        for pick in picks:
            claims = held if held and pick % 4 else runner.claims
            if claims:
                claim = claims[-1 - pick % min(6, len(claims))]
                chosen[claim.id] = ends(claim, list(Ending)[pick % 7], delay=(2.23, 6.23, 0)[pick % 3])
        return list(chosen.values())

    def _holds(self, runner: Runner, claim: Claim) -> bool:
        job = self._model.jobs.get(claim.id)
        running = job is not None and job.state is State.RUNNING
        return job is not None and running and (job.fence, job.runner) == (claim.fence, runner.id)

    @rule(at=PICK, picks=st.lists(PICK, max_size=3), demand=demands)
    def exchange(self, at: int, picks: list[int], demand: Demand) -> None:
        runner = self._runner(at)
        runner.seq += 1
        call = Call(runner.seq, self._outcomes(runner, picks), demand)
        self._exchange(runner, call)

    @rule(at=PICK, slots=st.integers(1, 4))
    @precondition(lambda self: any(not job.state.final for job in self._model.jobs.values()))
    def claim(self, at: int, slots: int) -> None:
        """An exchange that is likely to find something."""
        runner = self._runner(at)
        runner.seq += 1
        lane = Lane(slots=slots, tasks=frozenset(TASKS), suspects=frozenset(TASKS))
        self._exchange(runner, Call(runner.seq, [], Demand(slots=slots, lanes=(lane,))))

    @rule(at=PICK, picks=st.lists(PICK, min_size=1, max_size=3))
    @precondition(lambda self: self._busy())
    def hand_in(self, at: int, picks: list[int]) -> None:
        """An exchange that takes nothing."""
        runner = self._busy()[at % len(self._busy())]
        runner.seq += 1
        self._exchange(runner, Call(runner.seq, self._outcomes(runner, picks), Demand(slots=0)))

    def _busy(self) -> list[Runner]:
        """Runners that hold, or held, a claim."""
        return [runner for runner in self._runners if runner.claims]

    def _exchange(self, runner: Runner, call: Call) -> None:
        work = self._store.exchange(runner.id, call.seq, call.outcomes, call.demand)
        if runner.id not in self._model.runners:
            with pytest.raises(Evicted):
                self._run(work)
            return
        answer = self._run(work)
        self._check_refused(runner, call, answer.refused)
        self._model.turn()
        best = ideal(self._model.jobs.values(), call.demand, self._model.gates, self._model.now)
        got = [claim.id for claim in answer.claimed]
        assert sorted(got) == sorted(best[: len(got)])
        assert len(got) == len(best) or answer.next_due == 0
        self._check_claims(answer.claimed)
        self._model.claimed(runner.id, answer.claimed)
        if answer.next_due != 0 or not (got or best or not takes(call.demand)):
            self._check_next(answer.next_due, call.demand)
        runner.claims += answer.claimed
        if got or call.outcomes:
            runner.calls.append(call)

    def _check_next(self, next_due: float | None, demand: Demand) -> None:
        """The next moment is that of the first scheduled job, or, for who can take any, that at which a gate's rate
        lets one start. A store may look at gates earlier than that, but neither at once again nor later."""
        run, start = self._model.next_run(), self._model.next_start()
        first = min((at for at in (run, start if takes(demand) else None) if at is not None), default=None)
        if first is not None:
            assert next_due is not None
            assert next_due <= first + 0.001
        assert next_due == pytest.approx(first, abs=0.001) or (self._gated and next_due is not None and next_due > 0)

    def _check_refused(self, runner: Runner, call: Call, refused: tuple[str, ...]) -> None:
        for outcome in call.outcomes:
            stands = self._model.settle(runner.id, outcome)
            assert stands is None or (outcome.id in refused) == (not stands)
        assert set(refused) <= {outcome.id for outcome in call.outcomes}

    def _check_claims(self, claims: tuple[Claim, ...]) -> None:
        for claim in claims:
            job = self._model.jobs[claim.id]
            assert (claim.fence, claim.attempt, claim.lost) == (job.fence + 1, job.attempt, job.lost)
            assert (claim.task, claim.queue, claim.priority) == (job.new.task, job.new.queue, job.new.priority)

    @rule(at=PICK, which=PICK)
    @precondition(lambda self: any(runner.calls for runner in self._runners))
    def repeat(self, at: int, which: int) -> None:
        """The same exchange again: its reply was lost, or a copy of it arrives late."""
        callers = [runner for runner in self._runners if runner.calls]
        runner = callers[at % len(callers)]
        call = runner.calls[-1 - which % min(3, len(runner.calls))]
        work = self._store.exchange(runner.id, call.seq, call.outcomes, call.demand)
        if runner.id not in self._model.runners:
            with pytest.raises(Evicted):
                self._run(work)
            return
        answer = self._run(work)
        self._check_refused(runner, call, answer.refused)
        held = {(job.id, job.fence) for job in self._model.held_by(runner.id) if job.seq == call.seq}
        assert {(claim.id, claim.fence) for claim in answer.claimed} == held
        assert {claim.seq for claim in answer.claimed} <= {call.seq}

    @rule(at=PICK, pick=PICK)
    @precondition(lambda self: self._busy())
    def settle(self, at: int, pick: int) -> None:
        runner = self._busy()[at % len(self._busy())]
        for outcome in self._outcomes(runner, [pick]):
            stands = self._model.settle(runner.id, outcome)
            assert self._run(self._store.settle(runner.id, outcome)) == stands or stands is None

    @rule(at=PICK, pick=PICK)
    @precondition(lambda self: self._busy())
    def note(self, at: int, pick: int) -> None:
        runner = self._busy()[at % len(self._busy())]
        claim = runner.claims[pick % len(runner.claims)]
        patch = Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=Progress(done=pick))
        held = self._holds(runner, claim)
        assert list(self._run(self._store.note(runner.id, [patch]))) == ([] if held else [claim.id])
        if held:
            self._model.jobs[claim.id].progress = pick

    @rule(at=PICK, picks=st.lists(PICK, min_size=1, max_size=2), about=families, leaving=st.booleans())
    @precondition(lambda self: self._behind_gates())
    def rest(self, at: int, picks: list[int], about: tuple[str, ...], leaving: bool) -> None:
        """Jobs wait for others, or go on; now and then one that is at another attempt."""
        held = self._behind_gates()
        runner = held[at % len(held)][0]
        claims = [claim for owner, claim in held if owner is runner]
        rests = list(
            dict.fromkeys(
                Rest(id=claim.id, fence=claim.fence - (at % 7 == 6), seq=claim.seq, gates=about)
                for claim in (claims[pick % len(claims)] for pick in picks)
            )
        )
        given = (rests, []) if leaving else ([], rests)
        back = self._run(self._store.rest(runner.id, *given))
        assert sorted(back) == sorted(self._model.rest(runner.id, *given))

    def _behind_gates(self) -> list[tuple[Runner, Claim]]:
        """Who runs what that has gates."""
        held = [(runner, claim) for runner in self._runners for claim in runner.claims if self._holds(runner, claim)]
        return [(runner, claim) for runner, claim in held if self._model.jobs[claim.id].new.gates]

    # Operators and time

    @rule(queue=st.sampled_from(QUEUES), fewer=st.integers(0, 3), below=st.none() | st.integers(0, 2))
    def shed(self, queue: str, fewer: int, below: int | None) -> None:
        most = max(0, len(self._model.idle_in(queue)) - fewer)
        shed = self._run(self._store.shed(queue, most, below=below))
        assert (set(shed.ids), shed.left) == self._model.shed(queue, most, below)

    @rule(picks=st.lists(st.tuples(PICK, places), min_size=1, max_size=3), wrong=PICK)
    @precondition(lambda self: self._ids)
    def amend(self, picks: list[tuple[int, dict[str, Any]]], wrong: int) -> None:
        """Jobs are put elsewhere, if they stand as is thought; now and then they do not."""
        changes = []
        for id, place in {self._ids[pick % len(self._ids)]: place for pick, place in picks}.items():
            job = self._model.jobs.get(id)
            was = place_of(job.new) if job and wrong % 9 else Place(queue="x", priority=0)
            changes.append(Change(id=id, was=was, now=Place(**place)))
        done = self._run(self._store.amend(changes))
        self._gated |= any(change.now.gates for change in changes)
        assert list(done) == [change.id for change in changes if self._model.amend(change)]

    @rule()
    @precondition(lambda self: any(job.new.ahead < 0 for job in self._model.jobs.values()))
    def lift(self) -> None:
        assert self._run(self._store.lift()) == self._model.lift()

    @rule(picks=st.lists(PICK, min_size=1, max_size=3), verb=st.sampled_from(list(Verb)))
    @precondition(lambda self: self._ids)
    def act(self, picks: list[int], verb: Verb) -> None:
        ids = list(dict.fromkeys(self._ids[pick % len(self._ids)] for pick in picks))
        done = self._run(self._store.act(ids, verb))
        assert list(done) == [id for id in ids if self._model.act(id, verb)]

    @rule(age=st.sampled_from([0.1, 5.0, 60.0]), state=st.sampled_from(list(State)))
    def prune(self, age: float, state: State) -> None:
        old = [
            job.id
            for job in self._model.jobs.values()
            if job.state is state and job.finished_at is not None and job.finished_at <= self._model.now - age
        ]
        assert self._run(self._store.prune({state: age})) == len(old)
        for id in old:
            del self._model.jobs[id]

    @rule(seconds=st.sampled_from([0.5, 1, 3, 5, 10.5]), jump=st.sampled_from([0, 0, 0, -1000, -2, 2, 1000]))
    def advance(self, seconds: float, jump: float) -> None:
        """Time passes, and now and then somebody sets the wall clock."""
        self._run(self._world.advance(seconds))
        self._run(self._world.shift(jump))
        self._model.now += seconds + jump
        self._model.boot += seconds

    @rule()
    @precondition(lambda self: self._world.shared)
    def reopen(self) -> None:
        self._run(self._world.reopen())

    # What must hold after every step

    @invariant()
    def same(self) -> None:
        jobs, workers = self._run(self._look())
        assert {job.id: seen(job) for job in jobs} == {job.id: job.view() for job in self._model.jobs.values()}
        assert {worker.id for worker in workers} == set(self._model.leases)
        running = {runner.id: runner.running for worker in workers for runner in worker.runners}
        assert running == {id: len(self._model.held_by(id)) for id in self._model.runners}

    async def _look(self) -> tuple[list[JobRecord], list[WorkerInfo]]:
        return await self._store.get(self._ids), await self._store.workers()


@pytest.mark.timeout(0)
def test_machine(kind: str) -> None:
    wanted = os.environ.get("WINDLASS_MACHINE")
    examples, steps = map(int, wanted.split("x")) if wanted else MACHINE[kind]
    machine = type("Machine", (Machine,), {"kind": kind})
    quick = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(machine, settings=quick)
