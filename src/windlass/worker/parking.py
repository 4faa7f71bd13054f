"""Jobs that wait for others: they give their slots back meanwhile, and have them again before anything new begins."""

import asyncio
import concurrent.futures
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any

from windlass.errors import TooManyWaiting
from windlass.model import Rest
from windlass.worker.rests import Rests
from windlass.worker.run import Run

MANY = 200
"""With so many jobs of a runner waiting, it begins only jobs of tasks that are waited for."""

MOST = 2_000
"""The most jobs of a runner that may wait."""


class Parking:
    """Which of a runner's jobs wait for others, and which of those want their slots back.

    `vacant` is how many slots nobody has, `changed(run, waits)` is told of each that begins and ends to wait.
    """

    def __init__(self, vacant: Callable[[], int], changed: Callable[[Run, bool], None]) -> None:
        self._vacant = vacant
        self._changed = changed
        self._parked: set[Berth] = set()
        self._queue: deque[Berth] = deque()
        self._tasks: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many jobs are without a slot."""
        return len(self._parked)

    @property
    def wanting(self) -> int:
        """How many of those want one."""
        return len(self._queue)

    def only(self, tasks: frozenset[str]) -> frozenset[str]:
        """Which of these tasks jobs may begin of: with many who wait, those that are waited for."""
        return tasks if self.count < MANY else tasks & self._tasks.keys()

    def give(self) -> None:
        """Give free slots to those who want one, in order."""
        while self._queue and self._vacant() > 0:
            berth = self._queue.popleft()
            self.unpark(berth)
            berth.go()

    # For berths

    def expect(self, task: str, by: int) -> None:
        """So many more jobs of this task are waited for."""
        self._tasks[task] += by
        if not self._tasks[task]:
            del self._tasks[task]

    def park(self, berth: "Berth") -> None:
        """Let others have a slot."""
        if berth not in self._parked:
            self._parked.add(berth)
            self._changed(berth.run, True)
            self.give()

    def has(self, berth: "Berth") -> bool:
        """Whether it is without its slot."""
        return berth in self._parked

    def unpark(self, berth: "Berth") -> None:
        """Count its slot as taken again."""
        if berth in self._parked:
            self._parked.discard(berth)
            self._changed(berth.run, False)

    def want(self, berth: "Berth") -> None:
        """Give it a slot when there is one."""
        self._queue.append(berth)
        self.give()

    def leave(self, berth: "Berth") -> None:
        """It wants none any more."""
        if berth in self._queue:
            self._queue.remove(berth)


class Berth:
    """The slot of one running job, and what it takes of `gates`. Both are given back while the job waits in any of its
    coroutines and threads, and taken again when it waits in none."""

    def __init__(self, parking: Parking, run: Run, rests: Rests, gates: tuple[str, ...]) -> None:
        claim = run.claim
        self.run = run
        self._parking = parking
        self._rests = rests
        self._rest = Rest(id=claim.id, fence=claim.fence, seq=claim.seq, gates=gates) if gates else None
        self._away = False
        self._loop = asyncio.get_running_loop()
        self._waits: Counter[str] = Counter()
        self._turn: asyncio.Future[None] | None = None
        self._abroad: set[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = set()

    async def leave(self, task: str) -> None:
        """Let another job have it, while this one waits for a job of that task. Raises `TooManyWaiting`."""
        await self._at_home(self._leave(task))
        if (here := asyncio.get_running_loop()) is not self._loop:
            waiting = asyncio.current_task()
            assert waiting
            self._abroad.add((here, waiting))
            if self.run.context.stop is not None:
                waiting.cancel()

    async def take(self, task: str) -> None:
        """Wait for it, before going on; at once, if the job shall end."""
        try:
            await self._at_home(self._take(task))
        finally:
            waiting = asyncio.current_task()
            assert waiting
            self._abroad.discard((asyncio.get_running_loop(), waiting))

    async def _at_home(self, work: Coroutine[Any, Any, None]) -> None:
        if asyncio.get_running_loop() is self._loop:
            await work
        elif self._loop.is_closed():
            work.close()
        else:
            await self._carried(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _carried(self, work: "concurrent.futures.Future[None]") -> None:
        """Wait for what was sent home. It begins there, also if this wait is cancelled before: what is counted in it is
        counted once."""
        try:
            await asyncio.shield(asyncio.wrap_future(work))
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the job is over
                self._loop.call_soon_threadsafe(self._loop.call_soon, work.cancel)
            raise

    async def _leave(self, task: str) -> None:
        self._waits[task] += 1
        self._parking.expect(task, 1)
        if self._parking.count >= MOST and not self._parking.has(self):
            raise TooManyWaiting(
                f"{MOST:,} jobs of this runner wait for jobs of their own, and no more may. This one is tried again, "
                "if its retry allows that, and finds its children then. A rate(…) lets fewer begin at a time"
            )
        if self._turn is not None and not self._turn.done():  # it goes on while it waits for something else
            self._stand_back()
            self._turn.set_result(None)
        if self._waits.total() == 1 and not self.run.over and self.run.context.stop is None:
            self._parking.park(self)
            if self._rest:
                self._away = True
                self._rests.leave(self._rest)

    async def _take(self, task: str) -> None:
        self._waits[task] -= 1
        self._parking.expect(task, -1)
        if self._waits.total() or self.run.over or not self._parking.has(self):
            return
        if self.run.context.stop is not None:
            self._parking.unpark(self)
            return
        self._turn = self._loop.create_future()
        if self._rest and self._away:  # before it has a slot: who has one waits for nothing
            self._rests.enter(self._rest, self._entered)
        else:
            self._parking.want(self)
        try:
            await self._turn
        except asyncio.CancelledError:
            self._stand_back()
            self._parking.unpark(self)
            raise

    def _entered(self) -> None:
        """It has its gates."""
        self._away = False
        self._parking.want(self)

    def _stand_back(self) -> None:
        self._rests.forget(self._rest)
        self._parking.leave(self)

    def go(self) -> None:
        """It has its slot."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def end(self) -> int:
        """End what waits in other event loops, as the job shall end; how many did."""
        abroad = tuple(self._abroad)
        for loop, waiting in abroad:
            loop.call_soon_threadsafe(waiting.cancel)
        return len(abroad)

    def over(self) -> None:
        """The job is over."""
        self._stand_back()
        self._parking.unpark(self)
