"""What `/metrics` tells of a store: looked at seldom, whoever asks and however often, and never waited for long."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from windlass import metrics
from windlass.clock import Clock
from windlass.metrics import MOST, Found, Samples
from windlass.model import Line, State, WorkerInfo
from windlass.store.contract import OTHER, SCHEDULE, Store

FRESH = 0.5
"""Seconds for which what was read is not read again."""

REST = 5
"""A look that takes long is not repeated before so many times as long."""

PATIENCE = 0.02
"""Seconds that whoever asks waits for a look; then the one before has to do."""

GOOD_FOR = 120.0
"""Seconds for which it will do."""

SILENT = 10.0
"""Seconds without an answer after which the store counts as gone."""

LIMIT = 60.0
"""Seconds after which a look is given up, and the next one begins."""


class Seen(Struct, frozen=True):
    """The live jobs, the workers, and by how many seconds the latest schedule is late. `at`: when it was
    read, by the boot clock, and `now` by the store's."""

    at: float
    now: float
    lines: Sequence[Line]
    workers: Sequence[WorkerInfo]
    lag: float

    @property
    def living(self) -> list[WorkerInfo]:
        """The workers whose lease is not over."""
        return [worker for worker in self.workers if worker.beat_age <= worker.lease]


class Overview:
    """Looks at a store, at most every FRESH seconds and never twice at a time."""

    def __init__(self, connect: Callable[[], Awaitable[Store]], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._work: asyncio.Task[None] | None = None
        self._began = self._took = 0.0
        self._seen: Seen | None = None
        self._up: bool | None = None

    @property
    def up(self) -> bool | None:
        """Whether the store answers; None before it had the time to."""
        if self._work is not None and self._clock.boot() - self._began > SILENT:
            return False
        return self._up

    async def look(self, patience: float = PATIENCE) -> Seen | None:
        """What the store holds; None if it does not answer, or has not yet."""
        now = self._clock.boot()
        if self._work is not None and self._work.get_loop() is not asyncio.get_running_loop():
            self._work = None  # of a loop that is over
        if self._work is None and (not self._began or now - self._began >= max(FRESH, REST * self._took)):
            self._began = now
            self._work = asyncio.create_task(self._read())
        if self._work is not None:
            await asyncio.wait({self._work}, timeout=patience)
        fits = self._seen and self.up and self._clock.boot() - self._seen.at < GOOD_FOR
        return self._seen if fits else None

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(LIMIT):
                store = await self._connect()
                lines, workers = await store.stats(), await store.workers()
                shelf = await store.load(SCHEDULE, due=0)
            lag = max((shelf.now - doc.due for doc in shelf.docs[:1] if doc.due is not None), default=0.0)
            self._seen, self._up = Seen(self._clock.boot(), shelf.now, lines, workers, max(0.0, lag)), True
        except Exception:  # whatever it is: that is what `up` tells, and the next look may be better
            self._up = False
            self._took = 0.0
        else:
            self._took = self._clock.boot() - self._began
        finally:
            self._work = None

    async def found(self) -> Found:
        """The series, as far as they are known."""
        seen = await self.look()
        found: dict[metrics.Series, Samples] = {}
        if self.up is not None:
            found[metrics.UP] = {(): float(self.up)}
        if seen:
            found |= {metrics.AGE: {(): self._clock.boot() - seen.at}, **queues(seen.lines)}
            found[metrics.LAG] = {(): seen.lag}
            found[metrics.WORKERS] = {(): float(len(seen.living))}
            found[metrics.ALL_SLOTS] = {(): float(sum(worker.concurrency for worker in seen.living))}
        return found


def opened(store: Store) -> Callable[[], Awaitable[Store]]:
    """What connects to a store that is open already."""

    async def connect() -> Store:
        return store

    return connect


def queues(lines: Sequence[Line]) -> Found:
    """The jobs of each queue by state, and how long the oldest ready one waits; of the queues with the most jobs."""
    sizes: dict[str, int] = {}
    for line in lines:
        sizes[line.queue] = sizes.get(line.queue, 0) + line.count
    known = set(sorted(sizes, key=lambda queue: (-sizes[queue], queue))[:MOST])
    depth: dict[tuple[str, ...], float] = {}
    oldest: dict[tuple[str, ...], float] = {}
    for line in lines:
        queue = line.queue if line.queue in known else OTHER
        depth[queue, str(line.state)] = depth.get((queue, str(line.state)), 0.0) + line.count
        waits = line.oldest if line.state is State.READY else 0.0
        oldest[(queue,)] = max(oldest.get((queue,), 0.0), waits)
    return {metrics.DEPTH: depth, metrics.OLDEST: oldest}
