"""Virtual time, processes that freeze and die, a network that loses, delays and repeats calls: all from a seed."""

import heapq
import random
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from windlass.clock import FakeClock
from windlass.errors import WindlassError

T = TypeVar("T")
Resume = Callable[[Any, Exception | None], None]
Actor = Coroutine[Any, Any, None]
TIMEOUT = 2.0
"""Seconds after which a caller gives up on an answer."""

STRAGGLE = 30.0
"""The most seconds that a call, or its double, stays on the way."""


class Lost(Exception):
    """No answer came in time; the call may have been carried out, or will be."""


def finish_inline(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise RuntimeError("it waits for something: give the stage a `finish` that runs an event loop")


@dataclass
class Process:
    """Something that can be frozen and killed."""

    name: str
    alive: bool = True
    thaw_at: float = 0.0
    cut_until: float = 0.0
    cut_fate: str = "dropped"
    on_death: Callable[[], None] = lambda: None
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.on_death()


@dataclass
class Weather:
    """How often what goes wrong; 0 switches a fault off."""

    dropped: float = 0.0
    unanswered: float = 0.0
    late: float = 0.0
    doubled: float = 0.0
    fatal: float = 0.0
    slow: float = 0.0

    def fate(self, rng: random.Random) -> str:
        """What happens to one call."""
        draw = rng.random()
        for name in ("dropped", "unanswered", "late", "doubled", "fatal", "slow"):
            draw -= getattr(self, name)
            if draw < 0:
                return name
        return "fine"


class Wait:
    """Suspends an actor; `arrange` gets the function that resumes it."""

    def __init__(self, arrange: Callable[[Resume], None]) -> None:
        self._arrange = arrange

    def __await__(self) -> Generator[Callable[[Resume], None], Any, Any]:
        return (yield self._arrange)


@dataclass
class Stage:
    """The agenda of everything that happens, in the order of time."""

    rng: random.Random
    clock: FakeClock = field(default_factory=FakeClock)
    weather: Weather = field(default_factory=Weather)
    now: float = 0.0
    _agenda: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _entries: int = 0
    _actors: set[Actor] = field(default_factory=set)
    finish: Callable[[Coroutine[Any, Any, Any]], Any] = finish_inline
    told: Callable[[str, Process], None] = lambda what, process: None

    def after(self, seconds: float, work: Callable[[], object]) -> None:
        """Do `work` when `seconds` have passed."""
        self._entries += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._entries, work))

    def run(self, until: float, over: Callable[[], bool]) -> None:
        """Let time pass until `until`, or until `over`, which is asked after every event."""
        while self._agenda and self._agenda[0][0] <= until and not over():
            at, _, work = heapq.heappop(self._agenda)
            if at > self.now:
                self.clock.advance(at - self.now)
                self.now = at
            work()

    def close(self) -> None:
        """End all actors."""
        for actor in tuple(self._actors):
            actor.close()

    # Actors

    def spawn(self, process: Process, actor: Actor) -> None:
        """Let an actor act, as part of a process."""
        self._actors.add(actor)
        self.after(0.0, lambda: self._go(process, actor, None, None))

    def _go(self, process: Process, actor: Actor, value: Any, error: Exception | None) -> None:
        if process.alive and process.thaw_at > self.now:
            process.waiting.append(lambda: self._go(process, actor, value, error))
            return
        if not process.alive:
            self._actors.discard(actor)
            actor.close()
            return
        try:
            arrange = actor.throw(error) if error else actor.send(value)
        except StopIteration:
            self._actors.discard(actor)
            return
        arrange(lambda value, error: self._go(process, actor, value, error))

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process; what happens to it meanwhile, it learns when it thaws."""
        self.told("frozen", process)
        process.thaw_at = max(process.thaw_at, self.now + seconds)
        self.after(seconds, lambda: self.thaw(process) if process.thaw_at <= self.now else None)

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on."""
        self.told("thawed", process)
        process.thaw_at = min(process.thaw_at, self.now)
        waiting, process.waiting = process.waiting, []
        for work in waiting:
            self.after(0.0, work)

    async def sleep(self, seconds: float) -> None:
        """Let an actor wait."""
        await Wait(lambda resume: self.after(seconds, lambda: resume(None, None)))

    # The network

    async def call(self, process: Process, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have the store do something, as `process`. Raises `Lost`, or what the store raises."""
        answer: T = await Wait(lambda resume: self._send(process, work, resume))
        return answer

    def _send(self, process: Process, work: Callable[[], Coroutine[Any, Any, Any]], resume: Resume) -> None:
        fate = process.cut_fate if process.cut_until > self.now else self.weather.fate(self.rng)
        delay = self.rng.uniform(0.3, 1.0) if fate == "slow" else self.rng.random() * 0.005
        if fate in ("dropped", "unanswered", "late"):
            self.after(TIMEOUT, lambda: resume(None, Lost(fate)))
            if fate != "dropped":
                self.after(
                    delay if fate == "unanswered" else self.rng.uniform(0.1, STRAGGLE), lambda: self.carry_out(work)
                )
            return
        if fate == "doubled":
            self.after(self.rng.uniform(0.0, STRAGGLE), lambda: self.carry_out(work))

        def arrive() -> None:
            value, error = self.carry_out(work)
            if fate == "fatal":
                process.kill()
            self.after(delay, lambda: resume(value, error))

        self.after(delay, arrive)

    def carry_out(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[Any, WindlassError | None]:
        """Do it now: its value, or the error that the caller gets to see."""
        try:
            return self.finish(work()), None
        except WindlassError as error:
            return None, error


class Bell:
    """Wakes one actor. A ring that nobody waits for is kept."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._rung = False
        self._resume: Resume | None = None

    def ring(self) -> None:
        self._rung = True
        if self._resume:
            resume, self._resume = self._resume, None
            self._stage.after(0.0, lambda: resume(None, None))

    async def heard(self, timeout: float) -> None:
        """Wait for a ring, at most `timeout` seconds."""
        if not self._rung:
            await Wait(lambda resume: self._listen(resume, timeout))
        self._rung = False

    def _listen(self, resume: Resume, timeout: float) -> None:
        self._resume = resume

        def give_up() -> None:
            if self._resume is resume:
                self._resume = None
                resume(None, None)

        self._stage.after(timeout, give_up)
