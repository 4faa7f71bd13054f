"""The rule of `-c auto` against simulated workloads: no clocks, no sleeping."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from windlass.worker.climb import HOLD, START, Ended, Sample, State, advance

Takes = Callable[[int], float]
"""Seconds that a job takes when so many run at once."""

CEILING = 100


def always(seconds: float) -> Takes:
    """Somebody else does the work, and has plenty of room."""
    return lambda running: seconds


waits = always(0.1)


def computes(cores: float, seconds: float = 0.02) -> Takes:
    return lambda running: seconds * max(1.0, running / cores)


def calls(room: int, seconds: float = 0.1) -> Takes:
    """A service that does so many calls at once; above, they queue, and get in each other's way."""
    return lambda running: seconds * max(1.0, running / room) ** 1.3


def sample(limit: int, tasks: list[Takes], noise: random.Random, *, cpu: float = 0.0) -> Sample:
    """One second of a full queue in which as many jobs of each task stand; what one takes varies exponentially."""
    slots = [limit / len(tasks)] * len(tasks)
    for _ in range(12):  # a task holds slots in proportion to what its jobs take
        times = [takes(round(held)) for takes, held in zip(tasks, slots, strict=True)]
        slots = [(held + limit * time / sum(times)) / 2 for held, time in zip(slots, times, strict=True)]
    ended = {}
    for number, time in enumerate(times):
        jobs = max(1, round(limit / sum(times)))
        ended[str(number)] = Ended(jobs, jobs, sum(noise.expovariate(1 / time) for _ in range(jobs)))
    return Sample(seconds=1.0, full=1.0, running=float(limit), cpu=cpu, tasks=ended)


def run(state: State, seconds: int, *tasks: Takes, seed: int = 1, cpu: float = 0.0) -> tuple[State, list[int]]:
    """That many seconds of work; the state after, and the limit in each second."""
    noise = random.Random(seed)
    limits = []
    for _ in range(seconds):
        state = advance(state, sample(state.limit, list(tasks), noise, cpu=cpu), CEILING)
        limits.append(state.limit)
    return state, limits


def mean(limits: list[int]) -> float:
    return sum(limits) / len(limits)


@pytest.mark.parametrize("seed", range(3))
def test_jobs_that_wait_get_the_ceiling(seed: int) -> None:
    _, limits = run(State(), 300, waits, seed=seed)
    assert limits.index(CEILING) < 20, "it doubles while that is good"
    assert mean(limits[20:]) > 0.9 * CEILING
    assert max(limits) == CEILING


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cores", [1, 4, 16])
def test_jobs_that_compute_get_about_the_cores(cores: int, seed: int) -> None:
    _, limits = run(State(), 300, computes(cores), seed=seed, cpu=1.0)
    assert 0.7 * cores <= mean(limits[100:]) <= 1.4 * cores + 1
    assert max(limits) <= 2 * cores + 8, "a busy process tries small steps"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("room", [8, 30])
def test_a_service_that_slows_down_beyond_k_in_parallel_gets_about_k(room: int, seed: int) -> None:
    _, limits = run(State(), 500, calls(room), seed=seed)
    assert 0.7 * room <= mean(limits[100:]) <= 1.5 * room


@pytest.mark.parametrize("seed", range(3))
def test_of_mixed_jobs_the_slow_service_decides(seed: int) -> None:
    """20 calls of 0.3 s at once are 67 a second; as many jobs that wait for 0.1 s need 7 slots more."""
    _, limits = run(State(), 500, waits, calls(20, 0.3), seed=seed)
    assert 17 <= mean(limits[100:]) <= 45


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_matter_which_tasks_happen_to_come(seed: int) -> None:
    """Short jobs and long ones in bursts: the time that a job takes varies by fifty, and yet says nothing."""
    noise = random.Random(seed)
    state, limits = State(), []
    for _ in range(300):
        name, takes = noise.choice([("short", always(0.02)), ("long", always(1.0))])
        one = sample(state.limit, [takes], noise)
        state = advance(state, replace(one, tasks={name: one.tasks["0"]}), CEILING)
        limits.append(state.limit)
    assert mean(limits[100:]) > 0.8 * CEILING


def test_jobs_that_began_together_and_end_together() -> None:
    """Waves: in some windows two of them end, in others one."""
    state, limits = State(), []
    for second in range(200):
        waves = int((second + 1) / 0.7) - int(second / 0.7)
        limit = state.limit
        ended = Ended(limit * waves, limit * waves, limit * waves * 0.7)
        state = advance(state, Sample(seconds=1.0, full=1.0, running=float(limit), tasks={"a": ended}), CEILING)
        limits.append(state.limit)
    assert mean(limits[50:]) > 0.9 * CEILING


def test_without_jobs_nothing_changes() -> None:
    state, _ = run(State(), 60, waits)
    idle = Sample(seconds=1.0)
    learnt = advance(state, idle, CEILING).limit
    assert learnt > CEILING / 2
    for _ in range(100):
        state = advance(state, idle, CEILING)
        assert state.limit == learnt
    assert advance(State(), idle, CEILING).limit == START


def test_a_few_jobs_now_and_then_prove_nothing() -> None:
    """A step that was tried when the jobs ran out is taken back, however often that happens."""
    state = State()
    for _ in range(50):
        before, (state, _) = state.limit, run(state, 1, waits)
        assert advance(state, Sample(seconds=1.0, full=0.2, running=0.2), CEILING).limit == before
        state = advance(state, Sample(seconds=1.0), CEILING)
    assert state.limit == START


def test_failing_quickly_is_no_throughput() -> None:
    """A service that refuses whatever is beyond 10 at once, at once."""
    state, limits = State(), []
    for _ in range(200):
        limit = state.limit
        good, bad = min(limit, 10) * 10, max(0, limit - 10) * 100
        ended = Ended(good + bad, good, good * 0.1 + bad * 0.01)
        state = advance(state, Sample(seconds=1.0, full=1.0, running=float(limit), tasks={"a": ended}), CEILING)
        limits.append(state.limit)
    assert 7 <= mean(limits[50:]) <= 14


def test_it_follows_what_changes() -> None:
    state, limits = run(State(), 200, calls(40))
    assert mean(limits[100:]) > 28
    state, limits = run(state, 200, calls(5))
    assert mean(limits[60:]) < 10
    state, limits = run(state, 300, calls(40))
    assert mean(limits[150:]) > 28


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_share_a_service_do_not_outbid_each_other(workers: int) -> None:
    """Each would get more of it by taking more, whatever it does to the others."""
    noise, room = random.Random(1), 40
    states, totals = [State()] * workers, []
    for _ in range(400):
        total = sum(state.limit for state in states)
        takes = always(0.1 * max(1.0, total / room))
        states = [advance(state, sample(state.limit, [takes], noise), CEILING) for state in states]
        totals.append(total)
    assert 0.8 * room <= mean(totals[100:]) <= 2.5 * room


def test_jobs_that_have_become_slower_for_good() -> None:
    state, _ = run(State(), 100, waits)
    _, limits = run(state, 200, always(0.3))
    assert min(limits) == START, "somebody else might be the reason"
    assert mean(limits[120:]) > 0.8 * CEILING


def test_a_busy_process_tries_smaller_steps() -> None:
    _, calm = run(State(), 10, waits)
    _, busy = run(State(), 10, waits, cpu=1.0)
    late = advance(State(), replace(sample(4, [waits], random.Random(1)), late=0.5), CEILING)
    assert late.limit == busy[0] == 6
    assert calm[0] == 8


def test_short_memory_lowers_the_limit_and_keeps_it_down() -> None:
    noise = random.Random(1)
    state, seconds = State(limit=CEILING), 0
    state = advance(state, replace(sample(state.limit, [waits], noise), pressed=True), CEILING)
    assert state.limit == CEILING // 2
    while state.limit <= CEILING // 2:
        state = advance(state, sample(state.limit, [waits], noise), CEILING)
        seconds += 1
    assert seconds >= HOLD, "and then it may grow again"


def test_memory_that_stays_short_lowers_the_limit_to_one_job() -> None:
    state, limits = State(limit=CEILING), []
    for _ in range(60):
        state = advance(state, Sample(seconds=1.0, pressed=True), CEILING)
        limits.append(state.limit)
    assert limits[:5] == [CEILING // 2] * 5, "a cut gets time to work"
    assert limits[-1] == 1
    assert limits == sorted(limits, reverse=True)


@pytest.mark.parametrize("seed", range(20))
def test_never_out_of_bounds(seed: int) -> None:
    noise = random.Random(seed)
    state, ceiling = State(limit=min(START, 1 + seed)), 1 + seed
    for _ in range(300):
        jobs = noise.choice([0, 1, 40, 4000])
        one = Sample(
            seconds=noise.choice([0.5, 1.0, 30.0]),
            full=noise.choice([0.0, 0.5, 30.0]),
            running=noise.uniform(0, 100),
            cpu=noise.uniform(0, 2),
            late=noise.uniform(0, 2),
            pressed=noise.random() < 0.05,
            tasks={noise.choice("ab"): Ended(jobs, noise.randint(0, jobs), noise.choice([0.0, 1.0, 1e6]))},
        )
        state = advance(state, one, ceiling)
        assert 1 <= state.limit <= ceiling
