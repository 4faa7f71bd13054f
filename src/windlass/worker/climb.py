"""How many jobs at a time are best, found by trying: the rule of `-c auto`, without clocks, processes or stores.

Incremental steps (H.-U. Heiss, R. Wagner: "Adaptive Load Control in Transaction Processing Systems", VLDB 1991): change
the limit, see whether that was good, go on in this direction or turn. What is good is Kleinrock's generalized power
(L. Kleinrock: "Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer Communications", ICC
1979): throughput to the power of r, over the time that a job takes. docs/design/concurrency.md says why these.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

START = 4
"""The first limit."""

POWER = 3
"""Kleinrock's r: how much more throughput counts than the time of a job. With 3, a step up by a tenth has to bring a
fortieth more throughput."""

ENOUGH = 8
"""Jobs that have to end before a limit is judged, times the square of the limit in steps: what a small step does shows
only in many of them. At least twice as many as the limit."""

FULL = 0.5
"""The part of the time in which there must have been more jobs than slots: else the limit was not what counted."""

REST = 8
"""Times that a limit is measured again, once neither more nor less was better, before both are tried anew."""

FALLEN = 0.7
"""The part of the throughput that is left at the same limit when something must have changed, and rest is over."""

STRETCH = 2.0
"""Times as long as with few jobs at a time that jobs may take. Where several workers share a service each of them gains
by taking more, so their throughputs alone would drive all of them to the ceiling."""

SHORT = 0.005
"""Seconds that a job may take anyhow: less is mostly the worker's own work."""

TRUST = 0.2
"""The part of the way that a task's time with few jobs goes down towards a shorter one that was measured."""

DOUBT = 0.02
"""The same towards a longer one, while there are few at a time: the others who share a service shall have gone down
before it is taken for slow by nature."""

MOSTLY = 0.9
"""The part of a task's attempts that must end well for their time to be its own."""

BUSY = 0.9
"""The part of its processor time that a process must have taken for its steps to be small."""

LATE = 0.2
"""The part of the time that the event loop must have been late for that."""

EASE = 5.0
"""Seconds that a cut for want of memory gets to work before there is another one."""

HOLD = 60.0
"""Seconds that the limit stays at or below what it was cut to."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Attempts of one task that ended: how many, how many of them well, and the seconds they took in all."""

    jobs: int
    good: int
    seconds: float

    @property
    def mean(self) -> float:
        """Seconds that an attempt took."""
        return self.seconds / max(1, self.jobs)

    def __add__(self, other: "Ended") -> "Ended":
        return Ended(self.jobs + other.jobs, self.good + other.good, self.seconds + other.seconds)


NONE = Ended(0, 0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process did in `seconds`. In `full` of them there were more jobs than slots, and jobs ran for `running`
    seconds in all. `cpu`: seconds of processor time, over the processors it may use; `late`: seconds by which its event
    loop turned too late. `pressed`: memory is short.
    """

    seconds: float = 0.0
    full: float = 0.0
    running: float = 0.0
    cpu: float = 0.0
    late: float = 0.0
    pressed: bool = False
    tasks: Mapping[str, Ended] = field(default_factory=dict)

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(
            seconds=self.seconds + other.seconds,
            full=self.full + other.full,
            running=self.running + other.running,
            cpu=self.cpu + other.cpu,
            late=self.late + other.late,
            tasks=pooled(self.tasks, other.tasks),
        )

    @property
    def jobs(self) -> int:
        """How many attempts ended."""
        return sum(one.jobs for one in self.tasks.values())

    @property
    def mean(self) -> float:
        """Seconds that an attempt took."""
        return sum(one.seconds for one in self.tasks.values()) / max(1, self.jobs)

    def stretched(self, calm: Mapping[str, float]) -> bool:
        """Whether jobs took much longer than with few of them at a time, as far as that is known."""
        expected = sum(one.jobs * calm.get(name, one.mean) for name, one in self.tasks.items())
        taken = sum(one.seconds for one in self.tasks.values())
        return taken > max(STRETCH * expected, SHORT * self.jobs)

    @property
    def busy(self) -> bool:
        """Whether the process had hardly any processor time left, or its event loop no time to turn."""
        return self.cpu >= BUSY * self.seconds or self.late >= LATE * self.seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """What a process did with one limit."""

    limit: int
    sample: Sample


@dataclass(frozen=True, slots=True)
class State:
    """The `limit` in force, and how it was come by.

    `best`: the best limit so far, against which the one in force is tried if it is another; `settle`: seconds until
    what ends has begun under this limit; `window`: what was measured of it so far; `turns`: directions that were no
    good, one after the other; `rest`: times to measure the best one before the next try; `hold`: seconds in which the
    limit stays at or below `bound`; `calm`: seconds that a job of each task takes with few at a time.
    """

    limit: int = START
    best: Measured | None = None
    window: Sample = Sample()
    settle: float = 0.0
    step: int = START
    up: bool = True
    turns: int = 0
    rest: int = 0
    hold: float = 0.0
    bound: int = START
    calm: Mapping[str, float] = field(default_factory=dict)


def advance(state: State, sample: Sample, ceiling: int) -> State:
    """The state after one more sample. Its limit is from 1 to `ceiling`."""
    state = replace(state, hold=max(0.0, state.hold - sample.seconds))
    if sample.pressed and state.hold <= HOLD - EASE:
        return relieve(state)
    if sample.full < FULL * sample.seconds:
        return withdraw(state)
    if state.settle > 0:
        return replace(state, settle=state.settle - sample.seconds)
    state = replace(state, window=state.window + sample)
    if state.window.jobs < enough(state):
        return state
    return judge(state, min(ceiling, state.bound) if state.hold else ceiling)


def enough(state: State) -> float:
    """How many jobs have to end before the limit in force is judged; the best one's measurements add up."""
    step = abs(state.limit - state.best.limit) if state.best else 0
    return max(2 * state.limit, ENOUGH * (state.limit / (step or state.limit)) ** 2)


def relieve(state: State) -> State:
    """Memory is short: halve the limit, and keep it down."""
    limit = max(1, state.limit // 2)
    return replace(anew(state, limit), step=root(limit), hold=HOLD, bound=limit)


def withdraw(state: State) -> State:
    """There are not enough jobs to learn from: take back a step that has not proved good, and begin anew."""
    return anew(state, state.best.limit if state.best else state.limit)


def anew(state: State, limit: int, rest: int = 0) -> State:
    """This limit, of which nothing is known yet."""
    return replace(state, limit=limit, best=None, window=Sample(), settle=0.0, turns=0, rest=rest)


def judge(state: State, ceiling: int) -> State:
    """Decide upon what was measured of the limit in force."""
    now, best = Measured(state.limit, state.window), state.best
    stretched = now.sample.stretched(state.calm)
    calm = calmed(state.calm, now.sample, slow=stretched and now.limit <= START)
    state = replace(state, window=Sample(), calm=calm)
    if best and best.limit != now.limit:
        if better(now, best) and not (stretched and state.up):
            return probe(replace(state, best=now, turns=0, step=2 * state.step), now.sample, ceiling)
        return turn(state)
    if stretched:
        limit = max(min(START, now.limit), now.limit // 2)
        return replace(anew(state, limit, REST), settle=now.sample.mean, step=root(limit))
    if best and fell(best.sample, now.sample):
        best, state = None, replace(state, rest=0, up=False, step=state.limit)
    if best:
        now = replace(now, sample=best.sample + now.sample)
    state = replace(state, best=now, rest=max(0, state.rest - 1))
    return state if state.rest else probe(state, now.sample, ceiling)


def probe(state: State, sample: Sample, ceiling: int) -> State:
    """Try the next limit in this direction; nothing is gained by trying where there is none."""
    assert state.best
    from_here = state.best.limit
    step = min(state.step, root(from_here) if sample.busy else from_here)
    limit = min(ceiling, from_here + step) if state.up else max(1, from_here - min(step, from_here // 2))
    if limit == from_here:
        return turn(state)
    return replace(state, limit=limit, step=step, settle=sample.mean)


def turn(state: State) -> State:
    """This direction is no good: back to the best limit, and next the other way; after both, rest."""
    assert state.best
    limit, tired = state.best.limit, state.turns > 0
    return replace(
        state,
        limit=limit,
        best=None if tired else state.best,
        up=not state.up,
        step=root(limit),
        settle=0.0 if limit == state.limit else state.best.sample.mean,
        turns=0 if tired else 1,
        rest=REST if tired else 0,
    )


def calmed(calm: Mapping[str, float], sample: Sample, *, slow: bool) -> dict[str, float]:
    """The times of jobs with few at a time: those of the sample for a task that is new; shorter ones are believed
    soon, longer ones slowly, and only if few at a time are `slow`."""
    result = dict(calm)
    for name, ended in sample.tasks.items():
        if ended.good >= MOSTLY * ended.jobs:
            known = result.get(name, ended.mean)
            trust = TRUST if ended.mean < known else DOUBT if slow else 0.0
            result[name] = known + trust * (ended.mean - known)
    return result


def better(one: Measured, other: Measured) -> bool:
    """Whether one limit has more power than another: by Little's law, throughput ** (r + 1) / limit."""
    first, second = rates(one.sample, other.sample)
    return first * math.pow(other.limit, 1 / (POWER + 1)) > second * math.pow(one.limit, 1 / (POWER + 1))


def fell(before: Sample, now: Sample) -> bool:
    """Whether the same limit brings far less than before."""
    first, second = rates(before, now)
    return second < FALLEN * first


def rates(*samples: Sample) -> tuple[float, ...]:
    """The throughput of samples, as seconds of work done per second; comparable with each other only.

    A job of a task is as much work as one of that task took on average in all of them, so it does not matter in which
    proportion the tasks came. What failed took its time and was no work. By time and not by counting what ended, which
    would depend on how many ends happen to fall into the window: jobs that began together end together.
    """
    total = pooled(*(one.tasks for one in samples))
    weights = {name: ended.seconds / max(1, ended.jobs) for name, ended in total.items()}
    return tuple(
        sample.running / max(sample.full, 1e-9) * work / max(taken, 1e-9)
        for sample in samples
        for work in [sum(ended.good * weights[name] for name, ended in sample.tasks.items())]
        for taken in [sum(ended.seconds for ended in sample.tasks.values())]
    )


def pooled(*samples: Mapping[str, Ended]) -> dict[str, Ended]:
    """What ended in all of them."""
    total: dict[str, Ended] = {}
    for sample in samples:
        for name, ended in sample.items():
            total[name] = total.get(name, NONE) + ended
    return total


def root(limit: int) -> int:
    """A small step: the square root, as the queue that Netflix's gradient and TCP Vegas allow."""
    return max(1, math.isqrt(limit))
