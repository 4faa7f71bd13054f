"""Writes into the store what a worker's jobs came to, and how deep queues are: the figures behind charts."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence

from windlass.model import Depth, Line, State, Tally
from windlass.overview import Overview
from windlass.store.contract import Store
from windlass.store.tallies import MINUTE
from windlass.worker.counts import added

logger = logging.getLogger("windlass.worker")

OFTEN, SELDOM = 3.0, 12.0
"""Seconds between two writes of one of few workers, whose dashboard can then follow within seconds; of one of many."""

WRITES = 8
"""Writes a second of all workers, up to which each writes more often than that."""

UNEVEN = 0.2
"""The share by which the time between two writes varies, so that workers do not come all at once."""

WITHIN = 3.0
"""Seconds that one may take, so that it does not hold up the end of a worker."""

DEPTHS_EVERY, DEPTHS_ELSE = 36.0, 360.0
"""Seconds between two looks at the queues: of the worker that writes down how deep they are, and of all others, to see
whether it is theirs to do so."""

MOST = 10_000
"""Rows that are kept while the store is away; then the oldest are dropped."""


class Tallies:
    """Collects rows, and writes them. `worker`: the id of this one, once it has one."""

    def __init__(self, store: Store, overview: Overview, worker: Callable[[], str]) -> None:
        self._store = store
        self._overview = overview
        self._worker = worker
        self._rows: dict[tuple[int, str, str], Tally] = {}
        self._every = OFTEN
        self._rest = 0.0

    def add(self, rows: Iterable[Tally]) -> None:
        """This happened."""
        for row in rows:
            key = (row.minute, row.queue, row.task)
            self._rows[key] = added(self._rows[key], row) if key in self._rows else row
        while len(self._rows) > MOST:
            del self._rows[next(iter(self._rows))]

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            pause = self._every * random.uniform(1 - UNEVEN, 1 + UNEVEN)  # noqa: S311 - spreads load
            await asyncio.sleep(pause)
            self._rest -= pause
            await self.flush(await self._depths())

    async def flush(self, depths: Sequence[Depth] = ()) -> None:
        """Write what there is. What is not written is kept for the next time; a lost reply has it count twice."""
        rows, self._rows = self._rows, {}
        if not rows and not depths:
            return
        try:
            await asyncio.wait_for(self._store.tally(list(rows.values()), depths), WITHIN)
        except Exception as error:
            logger.debug("figures could not be written this time: %s", error)
            newer, self._rows = self._rows, rows
            self.add(newer.values())

    async def _depths(self) -> Sequence[Depth]:
        """How deep queues are, if it is this worker's turn to say so: that whose id comes first."""
        if self._rest > 0:
            return ()
        seen = await self._overview.look(WITHIN)
        if seen is not None:
            self._every = rhythm(len(seen.living))
        mine = seen is not None and self._worker() == min((one.id for one in seen.living), default="")
        self._rest = DEPTHS_EVERY if mine or seen is None else DEPTHS_ELSE
        return depths(seen.lines, int(seen.now // MINUTE)) if seen and mine else ()


def rhythm(workers: int) -> float:
    """Seconds between two writes of each of so many workers."""
    return min(SELDOM, max(OFTEN, workers / WRITES))


def depths(lines: Sequence[Line], minute: int) -> list[Depth]:
    """The jobs of each queue by state."""
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        queue = found.setdefault(line.queue, {})
        queue[line.state] = queue.get(line.state, 0) + line.count
        if line.state is State.READY:
            queue["oldest"] = max(queue.get("oldest", 0.0), line.oldest)
    return [
        Depth(
            minute=minute,
            queue=queue,
            ready=int(of.get(State.READY, 0)),
            waiting=int(of.get(State.WAITING, 0)),
            scheduled=int(of.get(State.SCHEDULED, 0)),
            running=int(of.get(State.RUNNING, 0)),
            oldest=of.get("oldest", 0.0),
        )
        for queue, of in found.items()
    ]
