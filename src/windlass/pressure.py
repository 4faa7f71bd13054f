"""Back-pressure: how many jobs may stand in a queue, and what happens to those who enqueue more.

The depth is asked of the store, and a process adds to it what it has stored since. It asks again after FRESH seconds,
or when it has taken a good part of the room: others may have done the same. But asking takes no more than a tenth of
its time; so with several processes the bound is soft, more so where the store takes long to count.
"""

import asyncio
import contextlib
import math
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from windlass import blocking
from windlass.access import Access
from windlass.description import Most
from windlass.errors import QueueFull
from windlass.model import IDLE, Clash, Filter, NewJob, Placed

FRESH = 0.2
"""Seconds for which a depth that was read is good enough."""

PART = 4
"""One such part of the room that there was may be filled by a process before it looks again."""

SHARE = 10
"""A depth is good for so many times as long as reading it took, come what may: the store has better things to do."""

BEYOND = 10_000
"""Jobs beyond its bound up to which those of a full queue are counted."""

SPARE = 100
"""One such part of a queue's `max_length` is made free at a time, where jobs are dropped to make room: to choose them
takes the store a look at all of them."""

LOOKS = 3
"""How often a queue that seems full only because of what was stored while it was counted is counted again."""


@dataclass(slots=True)
class Level:
    """How full a queue was when somebody looked, and what this process has stored (`base` of it before), or is about
    to. `doubt`: so many of those were stored while the depth was read, and may have been counted with it."""

    depth: int = 0
    read_at: float = -math.inf
    stored: int = 0
    base: int = 0
    coming: int = 0
    doubt: int = 0
    took: float = 0.0

    @property
    def since(self) -> int:
        """How many this process has stored since the look."""
        return self.stored - self.base

    @property
    def now(self) -> int:
        """How full it should be now."""
        return self.depth + self.since + self.coming

    def fresh(self, most: int) -> bool:
        """Whether it is good enough, in a queue that takes so many."""
        age = time.monotonic() - self.read_at
        return age < SHARE * self.took or (age < FRESH and self.now - self.depth <= (most - self.depth) // PART)


class Room:
    """Room that was taken for jobs which are being stored now; let go of at the end of the `with`."""

    def __init__(self, lock: threading.Lock, levels: Mapping[str, Level], taken: Mapping[str, int]) -> None:
        self._lock = lock
        self._levels = levels
        self._taken = taken

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> None:
        with self._lock:
            for queue, number in self._taken.items():
                self._levels[queue].coming -= number
                self._levels[queue].stored += number


class Pressure:
    """Keeps jobs out of queues that are full. `bounds` are those of the app's queues."""

    def __init__(self, access: Access) -> None:
        self.bounds: dict[str, Most] = {}
        self._access = access
        self._levels: dict[str, Level] = {}
        self._reading: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[None]] = {}
        self._lock, self._pid = threading.Lock(), os.getpid()

    def touches(self, jobs: Sequence[NewJob]) -> bool:
        """Whether any of these goes into a queue with a bound."""
        if self._pid != os.getpid():  # forked: another thread may have held the lock then
            self._lock, self._pid = threading.Lock(), os.getpid()
        return bool(self.bounds) and any(job.queue in self.bounds for job in jobs)

    async def admit(self, jobs: Sequence[NewJob], *, wait: bool, drop: bool = True) -> tuple[int, Room]:
        """Take room for as many of the first of these as there is, waiting for the first, or dropping others (unless
        `drop` says no), where its queue says so.

        Without `wait`, and with jobs of a queue that does not block among them, all come or none. Raises `QueueFull`.
        """
        began, looks = time.monotonic(), 0
        bounds = {queue: bound for queue, bound in self.bounds.items() if any(job.queue == queue for job in jobs)}
        there: frozenset[str] = frozenset()
        known = False
        wait = wait and all(bound.when_full == "block" for bound in bounds.values())
        while True:
            await self._look(jobs)
            with self._lock:
                number = self._fitting(jobs, there)
                full = jobs[min(number, len(jobs) - 1)].queue
                if number == len(jobs) or (wait and number):
                    return number, self._take(jobs[:number], there)
                level = self._levels[full]
                depth = level.now
                if level.doubt and looks < LOOKS and SHARE * level.took < FRESH:
                    level.read_at, looks = -math.inf, looks + 1
                    continue
            if not known:
                there, known = await self._already(jobs), True
                continue
            if drop and bounds[full].drops and await self._drop(full, [job for job in jobs if job.id not in there]):
                continue
            limit = bounds[full].max_wait if wait else 0.0
            left = None if limit is None else began + limit - time.monotonic()
            if left is not None and left <= 0:
                raise too_full(full, depth, bounds[full], len(jobs) if not wait else 1)
            pause = FRESH * random.uniform(1, 1.5)  # noqa: S311 - spreads load
            await asyncio.sleep(pause if left is None else min(pause, left))

    def admit_now(self, jobs: Sequence[NewJob]) -> Room:
        """Take room for all of these, blocking this thread while the depth is read, even in an event loop: for whoever
        has a transaction open, which blocks it anyway. Raises `QueueFull`."""
        work = self.admit(jobs, wait=False, drop=False)
        return asyncio.run_coroutine_threadsafe(work, blocking.background_loop()).result()[1]

    async def _look(self, jobs: Sequence[NewJob]) -> None:
        """Read the depth of queues of which it was not read just now."""
        for queue in {job.queue for job in jobs} & self.bounds.keys():
            level = self._level(queue)
            if not level.fresh(self.bounds[queue].max_length):
                place = (asyncio.get_running_loop(), queue)
                if (reading := self._reading.get(place)) is None:
                    reading = self._reading[place] = asyncio.create_task(self._read(queue, level))
                    reading.add_done_callback(partial(self._over, place))
                await asyncio.shield(reading)

    def _over(self, place: tuple[asyncio.AbstractEventLoop, str], reading: asyncio.Task[None]) -> None:
        self._reading.pop(place, None)
        if not reading.cancelled():
            reading.exception()  # told to those who still wait

    async def _read(self, queue: str, level: Level) -> None:
        store = await self._access.connect()
        began, before = time.monotonic(), level.stored
        most = self.bounds[queue].max_length + BEYOND
        depth = sum([await store.count(Filter(queue=queue, state=state), most) for state in IDLE])
        self._tell(level, depth, began, before)

    def _level(self, queue: str) -> Level:
        with self._lock:
            return self._levels.setdefault(queue, Level())

    def _tell(self, level: Level, depth: int, began: float, before: int) -> None:
        """Note a depth that was read since `began`, when this process had stored `before` jobs."""
        with self._lock:
            if began >= level.read_at:  # else somebody has looked later, and was told sooner
                level.depth, level.base, level.read_at = depth, before, began
                level.doubt, level.took = level.since + level.coming, time.monotonic() - began

    async def _drop(self, queue: str, jobs: Sequence[NewJob]) -> bool:
        """Make room for these in a queue by cancelling others; whether there may be room now."""
        bound, level = self.bounds[queue], self._level(queue)
        ours = [job.priority for job in jobs if job.queue == queue]
        below = min(ours) if bound.when_full == "shed_lowest" else None
        if len(ours) > bound.max_length:
            return False
        store = await self._access.connect()
        for spare in sorted({bound.max_length // SPARE, 0}, reverse=True):
            began, before, coming = time.monotonic(), level.stored, level.coming
            most = bound.max_length - len(ours) - coming
            if most < 0:
                break
            reason = f"dropped to make room: queue {queue} was full (max_length {bound.max_length}, {bound.when_full})"
            shed = await store.shed(queue, max(0, most - spare), below=below, reason=reason)
            self._tell(level, shed.left, began, before)
            if shed.left <= most:
                return True
        if not coming:
            return False
        await asyncio.sleep(FRESH / 10)  # what is being stored just now may have been counted twice
        return True

    async def _already(self, jobs: Sequence[NewJob]) -> frozenset[str]:
        """The ids of those that need no room: there is such a job, or another that stands for it."""
        store = await self._access.connect()
        known = [job.id for job in jobs if not job.fresh]
        keys = [job.unique for job in jobs if job.unique is not None and job.clash is not Clash.CANCEL]
        there = [job.id for job in await store.get(known)] if known else []
        held = await store.holders(keys) if keys else {}
        return frozenset(there).union(job.id for job in jobs if job.unique in held and job.clash is not Clash.CANCEL)

    def _take(self, jobs: Sequence[NewJob], there: Collection[str]) -> Room:
        taken = Counter(job.queue for job in jobs if job.queue in self.bounds and job.id not in there)
        for queue, number in taken.items():
            self._levels[queue].coming += number
        return Room(self._lock, self._levels, taken)

    def _fitting(self, jobs: Sequence[NewJob], there: Collection[str]) -> int:
        """How many of the first of these find room."""
        rest = {queue: self.bounds[queue].max_length - level.now for queue, level in self._levels.items()}
        for at, job in enumerate(jobs):
            if job.queue in rest and job.id not in there:
                rest[job.queue] -= 1
                if rest[job.queue] < 0:
                    return at
        return len(jobs)


NOTHING_LOWER = "; not enough of those that are due have a lower priority"


def too_full(queue: str, depth: int, bound: Most, came: int) -> QueueFull:
    """The error of a queue that has no room for so many."""
    more = f"{came:,} jobs came at once" if came > 1 else "a job came"
    return QueueFull(
        f"queue {queue} is full: {depth:,} jobs wait in it, its max_length is {bound.max_length:,}, and {more}"
        f"{NOTHING_LOWER if bound.when_full == 'shed_lowest' else ''}. Try again later, or start more workers",
        queue,
        depth,
    )


@contextlib.contextmanager
def full_after(placed: Sequence[Placed]) -> Iterator[None]:
    """Have the error of a full queue tell what was stored before."""
    try:
        yield
    except QueueFull as error:
        error.stored = tuple(one.id for one in placed)
        if placed:
            error.add_note(f"{len(placed):,} calls of the same bulk were stored before: .stored has their ids")
        raise
