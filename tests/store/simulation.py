"""A seeded simulation of several workers on one store, with everything going wrong that can.

`python -m tests.store.simulation --seeds 100000` runs as many as wanted, in all processors, and tells how to go on when
it is stopped; `--store postgres` and others run them on real servers. One seed is one run, always the same.
"""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.history import Violation, check, tales_of
from tests.spread import PROCESSES, Progress, spread
from tests.store.cast import LEASE, Plot, Runner, Worker, operate, produce
from tests.store.stage import Process, Stage, Weather
from tests.store.witness import Witness
from tests.store.world import MemoryWorld, PushedClock, World
from windlass.clock import FakeClock
from windlass.store.contract import Store

STORMY = 40.0
"""Seconds in which things go wrong."""

QUIET = 150.0
"""Seconds after that in which every job must come to its end: two leases, the longest backoff, the longest job."""


class Simulation:
    """One run from one seed."""

    def __init__(self, seed: int, kind: type[World] = MemoryWorld) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self._folder = tempfile.TemporaryDirectory()
        self.world = kind(Path(self._folder.name))
        assert isinstance(self.world.clock, FakeClock)
        self.stage = Stage(self.rng, self.world.clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tell_time: Callable[[], None] = lambda: None
        if kind is MemoryWorld:  # without an event loop, because that is several times as fast
            self.world.add(make_inline(self.world))
        else:
            self._loop = asyncio.new_event_loop()
            self.stage.finish = self._finish
            self._loop.run_until_complete(self.world.open())
            self._tell_time_late()
        self.witness = Witness(self.world.store, self.stage)
        self.plot = Plot(self.stage, self.witness)
        self._shifted = 0.0
        self._outside = Process("outside")
        self._over = False
        count = self.rng.choice((2, 2, 3))
        self.workers = [Worker(self.plot, self.rng.choice((1, 1, 2)), self.rng.choice((1, 2, 3))) for _ in range(count)]

    def run(self) -> None:
        """The whole run. Raises `Violation`."""
        try:
            self._play()
        finally:
            self.stage.close()
            self.close()

    def _finish(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop
        self._tell_time()
        return self._loop.run_until_complete(work)

    def _tell_time_late(self) -> None:
        """Tell a server the time when it is asked something, not whenever it passes."""
        clock = self.world.clock
        if isinstance(clock, PushedClock):
            push = clock.push
            told = [(clock.now(), clock.boot())]

            def tell() -> None:
                if told[0] != (clock.now(), clock.boot()):
                    told[0] = (clock.now(), clock.boot())
                    push()

            clock.push = lambda: None
            self._tell_time = tell

    def close(self) -> None:
        """Let go of the store."""
        if self._loop:
            self._loop.run_until_complete(self.world.close())
            self._loop.close()
        else:
            self.world.store.close_now()  # type: ignore[attr-defined]
        self._folder.cleanup()

    def _play(self) -> None:
        self._set_weather()
        for worker in self.workers:
            worker.start()
        jobs = self.rng.randrange(5, 14)
        self.stage.spawn(self._outside, produce(self.plot, self._outside, jobs, STORMY * 0.8))
        self.stage.spawn(self._outside, operate(self.plot, self._outside, STORMY))
        self._plan_troubles()
        for at in (STORMY / 3, STORMY * 2 / 3):
            self.stage.after(at, self.witness.audit)
        self.stage.after(STORMY, self._calm)
        self.stage.run(STORMY + QUIET, lambda: self._over)
        self.witness.audit()
        for id, life in self.witness.lives.items():
            if not life.over:
                raise Violation(id, f"not over {QUIET:.0f} s after the last fault")
        self.witness.look()
        for violation in check(self.witness.events):
            raise violation

    def _set_weather(self) -> None:
        """Each run has a part of the faults, so that none hides another."""
        rates = {"dropped": 0.06, "unanswered": 0.08, "late": 0.06, "doubled": 0.06, "fatal": 0.03, "slow": 0.1}
        chosen = {name: rate * self.rng.uniform(0.5, 2.0) for name, rate in rates.items() if self.rng.random() < 0.5}
        self.stage.weather = Weather(**chosen)

    def _plan_troubles(self) -> None:
        kinds = [
            self._crash,
            self._crash_runner,
            self._pause,
            self._pause_runner,
            self._stop,
            self._overrun,
            self._step,
            self._cut,
        ]
        active = self.rng.sample(kinds, self.rng.randrange(len(kinds) + 1))
        for _ in range(self.rng.randrange(9) if active else 0):
            self.stage.after(self.rng.uniform(0.0, STORMY), self.rng.choice(active))

    # Troubles

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.process.alive]

    def _a_runner(self) -> Runner | None:
        runners = [runner for worker in self._alive() for runner in worker.runners if runner.process.alive]
        return self.rng.choice(runners) if runners else None

    def _crash(self) -> None:
        """A whole worker dies; another takes its place after a while."""
        if workers := self._alive():
            self._restart(self.rng.choice(workers), self.rng.uniform(0.0, 20.0))

    def _restart(self, worker: Worker, pause: float) -> None:
        worker.process.kill()
        process = worker.process
        self.stage.after(pause, lambda: worker.start() if worker.process is process else None)

    def _crash_runner(self) -> None:
        if runner := self._a_runner():
            runner.process.kill()

    def _pause(self) -> None:
        """A supervisor is frozen, with its runners or alone, for longer than its lease or not."""
        if workers := self._alive():
            worker = self.rng.choice(workers)
            seconds = self.rng.uniform(1.0, self.rng.choice((10.0, 40.0, 40.0, 120.0)))
            runners = worker.runners if self.rng.random() < 0.5 else []
            for process in (worker.process, *(runner.process for runner in runners)):
                self.stage.freeze(process, seconds)

    def _pause_runner(self) -> None:
        if runner := self._a_runner():
            self.stage.freeze(runner.process, self.rng.uniform(1.0, 30.0))

    def _stop(self) -> None:
        """A worker is told to stop, and started again."""
        if workers := self._alive():
            worker = self.rng.choice(workers)
            if not worker.stopping and worker.id:
                self.stage.spawn(worker.process, worker.stop())
                process = worker.process
                self.stage.after(25.0, lambda: self._restart(worker, 0.0) if worker.process is process else None)

    def _cut(self) -> None:
        """A supervisor cannot reach the store for a while, or only cannot hear it."""
        if workers := self._alive():
            process = self.rng.choice(workers).process
            process.cut_until = self.stage.now + self.rng.uniform(5.0, 40.0)
            process.cut_fate = self.rng.choice(("dropped", "dropped", "unanswered"))

    def _overrun(self) -> None:
        if runner := self._a_runner():
            runner.overrun()

    def _step(self) -> None:
        """Somebody sets the wall clock."""
        jump = self.rng.choice((-20.0, -5.0, 5.0, 20.0))
        self._shifted += jump
        self.stage.clock.shift(jump)

    # The quiet time

    def _calm(self) -> None:
        self.stage.weather = Weather()
        self.stage.clock.shift(-self._shifted)
        for worker in self.workers:
            for process in (worker.process, *(runner.process for runner in worker.runners)):
                self.stage.thaw(process)
                process.cut_until = 0.0
            if not worker.process.alive:
                worker.start()
        self._look()

    def _look(self) -> None:
        self.witness.audit()
        self._over = self.witness.all_over() and self.stage.now > STORMY + LEASE
        self.stage.after(3.0, self._look)
        for worker in self.workers:
            if not worker.process.alive:
                worker.start()


def make_inline(world: World) -> Store:
    """An open store in this process's memory."""
    store = world.connect()
    store.open_now()  # type: ignore[attr-defined]
    return store


def failing(seeds: Iterable[int], kind: type[World] = MemoryWorld) -> tuple[Simulation, Violation] | None:
    """The first run that violates something."""
    for seed in seeds:
        simulation = Simulation(seed, kind)
        try:
            simulation.run()
        except Violation as violation:
            return simulation, violation
    return None


def report(simulation: Simulation, violation: Violation) -> str:
    """The seed, what was violated, and the story of that job."""
    story = violation.story
    if not story and violation.job:
        story = tales_of(simulation.witness.events)[violation.job].story()
    told = Violation(violation.job, violation.text, story)
    return f"seed {simulation.seed}, {simulation.stage.now:.3f} s: {told}"


PART = 10
"""Seeds that a process runs at a time."""


@dataclass(frozen=True)
class Part:
    """Some seeds on a kind of store, to be run by any process."""

    seeds: range
    store: str


def run_part(part: Part) -> tuple[Counter[str], str]:
    """What happened in the runs of a part, and the report of the first that violates something."""
    from tests.store.kinds import KINDS

    logging.getLogger("windlass").setLevel(logging.ERROR)  # every seed's store would say again how safe its server is
    events = Counter[str]()
    for seed in part.seeds:
        simulation = Simulation(seed, KINDS[part.store])
        try:
            simulation.run()
        except Violation as violation:
            return events, report(simulation, violation)
        events += simulation.witness.counts()
    return events, ""


def main() -> int:
    from tests.store.kinds import KINDS

    parser = argparse.ArgumentParser(prog="python -m tests.store.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--store", default="memory", choices=sorted(KINDS), help="on which kind of store")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="how many at a time")
    given = parser.parse_args()
    end = given.start + given.seeds
    parts = [Part(range(at, min(at + PART, end)), given.store) for at in range(given.start, end, PART)]
    progress, events = Progress(given.seeds, "seeds"), Counter[str]()
    with spread(run_part, parts, given.processes) as results:
        for part, (counts, violated) in zip(parts, results, strict=True):
            if violated:
                print(violated)
                return 1
            events += counts
            progress.add(len(part.seeds), f"; go on with --start {part.seeds.stop} --seeds {end - part.seeds.stop}")
    print(f"{progress} without a violation on {given.store}")
    print(", ".join(f"{count} {what}" for what, count in events.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
