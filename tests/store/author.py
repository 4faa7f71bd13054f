"""Random calls of a store, as workers, producers and operators make them and as they should not: each from a number.

A step is built from its number and from what was answered so far, so that a history from which steps were taken out is
a history still. What the contract leaves open is not asked for; each such thing is said where it is kept out.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.store.world import ends, worker_info
from windlass.model import (
    Attempt,
    Claim,
    Demand,
    Doc,
    Ending,
    Failure,
    Filter,
    Held,
    JobRecord,
    Lane,
    Mark,
    NewJob,
    Outcome,
    Past,
    Patch,
    Progress,
    Quota,
    RunnerInfo,
    State,
    Verb,
    WorkerInfo,
)

TASKS, QUEUES, TAGS = ("a", "b", "c"), ("x", "y"), ("red", "blue", "green")
KEYS, MARKS = ("k", "l", "m"), ("once-1", "once-2", "once-3")
KINDS, NAMES = ("schedule", "thing"), ("one", "two", "three", "four")
LEASES = (10.3, 20.3)


@dataclass(frozen=True)
class Call:
    """One call of a store's method, or of a world's (`advance`, `shift`, `reopen`)."""

    method: str
    args: tuple[Any, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [repr(value) for value in self.args] + [f"{name}={value!r}" for name, value in self.more.items()]
        return f"{self.method}({', '.join(words)})"


@dataclass
class Runner:
    """A runner as its process remembers it, gone or not."""

    id: str
    worker: str
    seq: int = 0
    claims: list[Claim] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


@dataclass
class Scene:
    """What the author knows: what was called, and what the first store answered.

    In an `orderly` history nobody sets the clock back and no job brings a past, so that ids, moments and the order of
    the puts are one order. In a `timed` one ids tell their time, as those that the layer above makes.
    """

    orderly: bool
    timed: bool
    now: float
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    runners: dict[str, Runner] = field(default_factory=dict)
    docs: dict[tuple[str, str], int] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)

    def living(self) -> list[Runner]:
        """Runners that are registered."""
        return [runner for runner in self.runners.values() if runner.id in self.alive]

    def new_id(self, step: int, n: int) -> str:
        """The id of the `n`th job of a step."""
        moment = f"{round(self.now * 1000):012x}"
        named = f"{moment[:8]}-{moment[8:]}-7{step:03x}-8000-{n:012x}"
        return named if self.timed else f"job-{step:03}-{n}"

    def holds(self, runner: Runner) -> list[Claim]:
        """The claims that a runner holds still."""
        return [claim for claim in runner.claims if self.held(runner, claim)]

    def held(self, runner: Runner, claim: Claim) -> bool:
        """Whether a runner holds a claim."""
        job = self.jobs.get(claim.id)
        return bool(job and job.state is State.RUNNING and (job.fence, job.runner) == (claim.fence, runner.id))

    # After each call

    def see(self, now: float, jobs: Sequence[JobRecord], workers: Sequence[WorkerInfo]) -> None:
        """All jobs and workers as they are now."""
        self.now = now
        self.jobs = {job.id: job for job in jobs}
        self.alive = {worker.id for worker in workers} | {one.id for worker in workers for one in worker.runners}

    def learn(self, call: Call, answer: Any) -> None:
        """Take in what was answered. An `Exception` is an answer too."""
        if isinstance(answer, Exception):
            return
        if call.method in ("put", "put_now"):
            self._placed(*call.args)
        elif call.method == "save":
            self._saved(call.args[0])
            for pair in call.args[1]:
                self.docs.pop(pair, None)
        elif call.method == "enlist":
            self.workers.append(call.args[0].id)
        elif call.method == "join":
            (info,) = call.args
            self.runners[info.id] = Runner(info.id, info.worker)
        elif call.method == "exchange":
            self._exchanged(call, answer.claimed)

    def _placed(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> None:
        self.ids += [job.id for job in jobs if job.id not in self.ids]
        self._saved(docs)

    def _saved(self, docs: Sequence[Doc]) -> None:
        for doc in docs:
            self.docs[doc.kind, doc.name] = self.docs.get((doc.kind, doc.name), 0) + 1

    def _exchanged(self, call: Call, claims: Sequence[Claim]) -> None:
        id, seq, outcomes, _ = call.args
        runner = self.runners[id]
        if seq > runner.seq:
            runner.seq = seq
            runner.claims += claims
            if claims or outcomes:  # a copy of one that did nothing is as good as new: a store may let it claim or not
                runner.calls.append(call)


Draw = random.Random
Author = Callable[[Scene, Draw, int], Call | None]


def chance(rng: Draw, share: float) -> bool:
    """True so often."""
    return rng.random() < share


# Jobs in


def put(scene: Scene, rng: Draw, step: int) -> Call:
    """New jobs, and old ones, with marks and documents."""
    jobs = [new_job(scene, rng, scene.new_id(step, n)) for n in range(rng.choice((1, 1, 2, 3, 6)))]
    if chance(rng, 0.1):
        jobs.append(jobs[0])
    if chance(rng, 0.15):
        return Call("put_now", (jobs, 60.0))
    marks = []
    if chance(rng, 0.3):
        ids = sorted({job.id for job in jobs})  # one mark for each: the holder of which of two is answered is open
        named = zip(rng.sample(MARKS, 2), rng.sample(ids, min(len(ids), rng.choice((1, 2)))), strict=False)
        marks = [Mark(key=key, job=id, ttl=rng.choice((2.0, 8.0, 40.0))) for key, id in named]
    return Call("put", (jobs, marks, docs_for(scene, rng) if chance(rng, 0.2) else []))


def new_job(scene: Scene, rng: Draw, id: str) -> NewJob:
    """A job; now and then under an id that is known."""
    ids = list(scene.jobs) if scene.orderly else scene.ids  # an id that is free again would be older than its job
    known = ids and chance(rng, 0.08)
    past = None if scene.orderly or chance(rng, 0.8) else past_of(scene, rng)
    moment = rng.choice((-30.0, -2.0, 1.5, 6.0)) if past or chance(rng, 0.15) else None
    return NewJob(
        id=rng.choice(ids) if known else id,
        task=rng.choice(TASKS),
        args=rng.choice((b"[[],{}]", b'[[1,"\xc3\xa9"],{}]', b"[[" + b"1," * 400 + b"1],{}]")),
        queue=rng.choice(QUEUES),
        priority=rng.choice((0, 0, 0, 1, -1, 100, -100)),
        ahead=rng.choice((0, 0, 0, -2.5, -20.0)),
        delay=0 if moment is not None else rng.choice((0, 0, 0, 1.2, 4.2, 30.0)),
        run_at=None if moment is None else scene.now + moment,
        expires_in=rng.choice((None, None, None, 0.0, 3.3, 20.0)),
        unique=rng.choice(KEYS) if chance(rng, 0.3) else None,
        tags=tuple(rng.choices(TAGS, k=rng.choice((0, 0, 1, 2, 3)))),
        options=rng.choice((None, None, b'{"timeout":3}')),
        fresh=not known and chance(rng, 0.5),
        past=past,
    )


def past_of(scene: Scene, rng: Draw) -> Past:
    """What a job may bring along."""
    fence = rng.choice((0, 1, 3))
    began = scene.now - 50
    endings = rng.sample((Ending.RETRY, Ending.LOST, Ending.INTERRUPTED), k=min(fence, 2))
    attempts = [
        Attempt(
            fence=n,
            attempt=n,
            ending=ending,
            runner=rng.choice((None, "elsewhere")),
            started_at=rng.choice((None, began + n)),
            ended_at=began + n + 0.5,
            failure=rng.choice((None, Failure(type="ValueError", message="no", traceback="…"))),
        )
        for n, ending in enumerate(endings, 1)
    ]
    return Past(
        enqueued_at=scene.now - 60,
        attempt=min(fence, rng.choice((0, 1, 2))),
        lost=int(fence > 0 and chance(rng, 0.4)),
        fence=fence,
        attempts=tuple(attempts),
    )


# Workers


def enlist(scene: Scene, rng: Draw, step: int) -> Call:
    """A worker; now and then under an id that was used."""
    used = [*scene.workers, *scene.runners]
    id = rng.choice(used) if used and chance(rng, 0.15) else f"worker-{step:03}"
    return Call("enlist", (worker_info(id, rng.choice(LEASES)),))


def join(scene: Scene, rng: Draw, step: int) -> Call | None:
    """A runner of a worker that lives, mostly."""
    if not scene.workers:
        return None
    worker = some_worker(scene, rng)
    used = [*scene.workers, *scene.runners]
    id = rng.choice(used) if chance(rng, 0.1) else f"runner-{step:03}"
    return Call("join", (RunnerInfo(id=id, worker=worker, pid=step, tasks=TASKS),))


def some_worker(scene: Scene, rng: Draw) -> str:
    """A worker, of which there must have been one: mostly one that lives."""
    living = [worker for worker in scene.workers if worker in scene.alive]
    return rng.choice(living if living and chance(rng, 0.9) else scene.workers)


def some_runner(scene: Scene, rng: Draw) -> Runner | None:
    """A runner: mostly one that lives."""
    runners = (scene.living() if chance(rng, 0.95) else None) or list(scene.runners.values())
    return rng.choice(runners) if runners else None


def outcomes_of(scene: Scene, rng: Draw, runner: Runner, most: int) -> list[Outcome]:
    """How claims of a runner ended: mostly of those it holds; stale ones, strange ones, and two of one job."""
    found: list[Outcome] = []
    for _ in range(rng.randrange(most + 1)):
        held = scene.holds(runner)
        claims = held if held and chance(rng, 0.85) else runner.claims[-6:]
        if claims:
            ending = rng.choice((Ending.SUCCEEDED, *Ending))
            found.append(ends(rng.choice(claims), ending, delay=rng.choice((0.0, 2.23, 6.23))))
    if chance(rng, 0.75):
        found = list({outcome.id: outcome for outcome in found}.values())
    return found


def demand_of(rng: Draw) -> Demand:
    """What a runner wants: one lane that takes all, or lanes and quotas of any kind."""
    slots = rng.choice((0, 1, 1, 2, 3, 5, 12))
    if chance(rng, 0.4):
        return Demand(slots=slots, lanes=(Lane(slots=slots, tasks=frozenset(TASKS), suspects=frozenset(TASKS)),))
    lanes = tuple(
        Lane(
            slots=rng.randrange(5),
            tasks=frozenset(rng.sample(TASKS, rng.randrange(4))),
            suspects=frozenset(rng.sample(TASKS, rng.choice((0, 0, 1, 3)))),
        )
        for _ in range(rng.choice((1, 2, 3)))
    )
    quotas = [Quota(queue=queue, share=rng.randrange(4)) for queue in rng.sample(QUEUES, rng.choice((1, 2)))]
    return Demand(slots=slots, lanes=lanes, quotas=tuple(quotas) if chance(rng, 0.5) else None)


def exchange(scene: Scene, rng: Draw, step: int) -> Call | None:
    """The next exchange of a runner; where none lives, mostly what it takes to have one."""
    if scene.workers and not scene.living() and chance(rng, 0.8):
        return (join if scene.alive else enlist)(scene, rng, step)
    runner = some_runner(scene, rng)
    if runner is None:
        return None
    return Call("exchange", (runner.id, runner.seq + 1, outcomes_of(scene, rng, runner, 3), demand_of(rng)))


def repeat(scene: Scene, rng: Draw, step: int) -> Call | None:
    """An exchange that was made, again: its reply was lost, or a copy of it comes late."""
    callers = [runner for runner in scene.runners.values() if runner.calls]
    return rng.choice(rng.choice(callers[-4:]).calls[-3:]) if callers else None


def settle(scene: Scene, rng: Draw, step: int) -> Call | None:
    """One outcome by itself, now and then in the name of another runner."""
    runner = some_runner(scene, rng)
    outcomes = outcomes_of(scene, rng, runner, 3) if runner else []
    if runner is None or not outcomes:
        return None
    other = rng.choice(list(scene.runners)) if chance(rng, 0.1) else runner.id
    return Call("settle", (other, outcomes[0]))


def release(scene: Scene, rng: Draw, step: int) -> Call | None:
    """Runners whose processes are gone."""
    runner = some_runner(scene, rng)
    if runner is None:
        return None
    gone = [runner.id, *(rng.sample(list(scene.runners), 1) if chance(rng, 0.2) else ())]
    ending = rng.choice((Ending.LOST, Ending.INTERRUPTED))
    return Call("release", (list(dict.fromkeys(gone)), ending, outcomes_of(scene, rng, runner, 2)))


def retire(scene: Scene, rng: Draw, step: int) -> Call | None:
    return Call("retire", (some_worker(scene, rng),)) if scene.workers else None


def beat(scene: Scene, rng: Draw, step: int) -> Call | None:
    """A beat, mostly with what its runners hold, in truth, as of an earlier exchange, or wrongly nothing."""
    if not scene.workers:
        return None
    worker = some_worker(scene, rng)
    if chance(rng, 0.3):
        return Call("beat", (worker,))
    held = {runner.id: word_of(scene, rng, runner) for runner in scene.runners.values() if runner.worker == worker}
    return Call("beat", (worker, held))


def word_of(scene: Scene, rng: Draw, runner: Runner) -> Held:
    """What is said of a runner."""
    claims = {(claim.id, claim.fence) for claim in scene.holds(runner)}
    kept = set(rng.sample(sorted(claims), rng.randrange(len(claims) + 1))) if chance(rng, 0.3) else claims
    return Held(seq=max(0, runner.seq - rng.choice((0, 0, 0, 1))), claims=frozenset(kept))


def reap(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("reap", (rng.choice(scene.workers),)) if scene.workers and chance(rng, 0.5) else Call("reap")


def note(scene: Scene, rng: Draw, step: int) -> Call | None:
    """Progress of claims, held or not; one word of each, as which of two of one job is last is no matter."""
    runner = some_runner(scene, rng)
    if runner is None or not runner.claims:
        return None
    claims = {claim.id: claim for claim in rng.sample(runner.claims[-4:], min(2, len(runner.claims[-4:])))}
    word = Progress(done=rng.randrange(9), total=rng.choice((None, 9)), note=rng.choice(("", "so far")))
    told = [Patch(id=c.id, fence=c.fence, seq=c.seq, progress=word, lines=word.note) for c in claims.values()]
    return Call("note", (runner.id, told))


# Operators


def filter_of(rng: Draw) -> Filter:
    """Some fields of a filter, or none."""
    return Filter(
        state=rng.choice((None, *State)),
        task=rng.choice((None, None, *TASKS)),
        queue=rng.choice((None, None, *QUEUES)),
        tag=rng.choice((None, None, *TAGS)),
        error=rng.choice((None, None, None, "ValueError")),
    )


def act(scene: Scene, rng: Draw, step: int) -> Call | None:
    """A verb, by ids or by filter. Of several finished jobs with one key, which one a retry brings back is open."""
    verb = rng.choice(list(Verb))
    if chance(rng, 0.35):
        filter = filter_of(rng)
        rivals = [job.unique for job in scene.jobs.values() if job.unique and job.state.final and matches(job, filter)]
        return None if verb is Verb.RETRY and len(set(rivals)) < len(rivals) else Call("act", (filter, verb))
    running = [job.id for job in scene.jobs.values() if job.state is State.RUNNING]
    known = running if running and chance(rng, 0.4) else [*scene.ids, "nobody"]
    ids = rng.choices(known, k=rng.choice((1, 1, 2, 4)))
    keys: set[str] = set()
    chosen = []
    for id in ids:
        key = scene.jobs[id].unique if id in scene.jobs else None
        if key is None or key not in keys or verb is not Verb.RETRY:
            chosen.append(id)
        keys |= {key} if key else set()
    return Call("act", (chosen, verb))


def matches(job: JobRecord, filter: Filter) -> bool:
    """Whether a filter takes a job."""
    wanted = ((filter.state, job.state), (filter.task, job.task), (filter.queue, job.queue))
    return (
        all(want in (None, had) for want, had in wanted)
        and (filter.tag is None or filter.tag in job.tags)
        and (filter.error is None or job.state is State.FAILED)
    )


def lift(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("lift")


def prune(scene: Scene, rng: Draw, step: int) -> Call:
    """Retention of hours at most: PostgreSQL keeps what is older than a day for up to a day more."""
    states = rng.sample(list(State), rng.choice((1, 3, 7)))
    return Call("prune", ({state: rng.choice((0.1, 5.0, 60.0)) for state in states},))


def docs_for(scene: Scene, rng: Draw) -> list[Doc]:
    """Documents with the version that is stored, or with another."""
    found = []
    versions = dict(scene.docs)
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.choice(KINDS), rng.choice(NAMES)
        version = versions.get(place, 0)
        due = rng.choice((None, scene.now + rng.choice((-5.0, 3.0, 50.0))))
        versions[place] = version + 1
        body = rng.choice((b"{}", b"\x00\xff \n"))
        wrong = rng.choice((0, 0, 0, 0, 1))
        found.append(Doc(kind=place[0], name=place[1], version=version + wrong, body=body, due=due))
    return found


def save(scene: Scene, rng: Draw, step: int) -> Call:
    drops = [(rng.choice(KINDS), rng.choice(NAMES))] if chance(rng, 0.4) else []
    return Call("save", (docs_for(scene, rng) if chance(rng, 0.8) else [], drops))


# Reading


def load(scene: Scene, rng: Draw, step: int) -> Call:
    how: dict[str, Any] = rng.choice(
        ({}, {"due": True}, {"names": rng.choices(NAMES, k=2)}, {"names": []}, {"after": rng.choice(NAMES)})
    )
    return Call("load", (rng.choice(KINDS),), how)


def get(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("get", (rng.choices([*scene.ids, "nobody"], k=3),))


def find(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("find", (filter_of(rng), rng.choice((1, 2, 5, 100))))


def count(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("count", (filter_of(rng),))


def stats(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("stats")


# Time


def advance(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("advance", (rng.choice((0.1, 0.5, 0.5, 1.0, 1.0, 3.0, 3.0, 5.0, 10.5, 61.0)),))


def shift(scene: Scene, rng: Draw, step: int) -> Call:
    """Somebody sets the wall clock."""
    return Call("shift", (rng.choice((2.0, 1000.0) if scene.orderly else (-1000.0, -2.0, 2.0, 1000.0)),))


def reopen(scene: Scene, rng: Draw, step: int) -> Call:
    return Call("reopen")


STEPS: Mapping[Author, int] = {
    put: 18,
    enlist: 4,
    join: 6,
    exchange: 24,
    repeat: 5,
    settle: 7,
    release: 4,
    retire: 1,
    beat: 9,
    reap: 3,
    note: 4,
    act: 12,
    lift: 3,
    prune: 2,
    save: 4,
    load: 3,
    get: 1,
    find: 6,
    count: 3,
    stats: 3,
    advance: 12,
    shift: 1,
    reopen: 1,
}
"""What is done how often."""


def write(scene: Scene, seed: int, step: int) -> Call | None:
    """The call of a step of a history; None where there is nothing to do so with."""
    rng = random.Random(f"{seed}/{step}")
    if step < 3:
        return (enlist, join, put)[step](scene, rng, step)
    (author,) = rng.choices(list(STEPS), list(STEPS.values()))
    return author(scene, rng, step)
