"""What a runner's jobs did, added up by queue and task: a few additions for each job."""

import time
from bisect import bisect_left
from collections.abc import Collection

from windlass.model import BUCKETS, Claim, Ending, Tally
from windlass.store.contract import OTHER, PAUSE, Store
from windlass.store.tallies import MINUTE, read_tally, values_of

OUTCOMES = {
    Ending.SUCCEEDED: "succeeded",
    Ending.FAILED: "failed",
    Ending.CANCELLED: "cancelled",
    Ending.RETRY: "retried",
    Ending.LOST: "lost",
}
"""The fields of a `Tally` by how an attempt ended. One that was put off or handed back has no outcome yet."""

Key = tuple[str, str]


class Cell:
    """The sums of one queue and task."""

    __slots__ = ("ended", "ran", "runs", "started", "waited", "waits")

    def __init__(self) -> None:
        self.started = 0
        self.waited = self.ran = 0.0
        self.waits = [0] * (len(BUCKETS) + 1)
        self.runs = [0] * (len(BUCKETS) + 1)
        self.ended: dict[Ending, int] = {}

    def row(self, minute: int, queue: str, task: str) -> Tally:
        """All of it."""
        outcomes = {OUTCOMES[ending]: count for ending, count in self.ended.items() if ending in OUTCOMES}
        return Tally(
            minute=minute,
            queue=queue,
            task=task,
            started=self.started,
            waited=self.waited,
            ran=self.ran,
            waits=tuple(self.waits),
            runs=tuple(self.runs),
            **outcomes,
        )


class Counts:
    """Counts between two looks. All calls come from one thread. `ahead`: seconds that the store's clock is ahead of
    this host's."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._cells: dict[Key, Cell] = {}

    def began(self, claim: Claim) -> None:
        """An attempt begins."""
        cell = self._cells.get((claim.queue, claim.task)) or self._new(claim.queue, claim.task)
        waited = max(0.0, time.time() + self.ahead - claim.run_at)
        cell.started += 1
        cell.waited += waited
        cell.waits[bisect_left(BUCKETS, waited)] += 1

    def ended(self, claim: Claim, ending: Ending, seconds: float) -> None:
        """An attempt is over, after so many seconds."""
        cell = self._cells.get((claim.queue, claim.task)) or self._new(claim.queue, claim.task)
        cell.ran += seconds
        cell.runs[bisect_left(BUCKETS, seconds)] += 1
        cell.ended[ending] = cell.ended.get(ending, 0) + 1

    def refused(self) -> None:
        """A job failed that could not even be looked at; what it calls itself is nobody's word."""
        ended = (self._cells.get((OTHER, OTHER)) or self._new(OTHER, OTHER)).ended
        ended[Ending.FAILED] = ended.get(Ending.FAILED, 0) + 1

    def _new(self, queue: str, task: str) -> Cell:
        cell = self._cells[queue, task] = Cell()
        return cell

    def take(self) -> list[Tally]:
        """What happened since the last look, as of the minute that it is now by the store's clock."""
        cells, self._cells = self._cells, {}
        minute = int((time.time() + self.ahead) // MINUTE)
        return [cell.row(minute, queue, task) for (queue, task), cell in cells.items()]

    async def set_clock(self, store: Store) -> None:
        """Ask the store what time it is; what is less than the answer took is no difference. Raises `StoreError`."""
        began, before = time.time(), time.monotonic()
        there = (await store.load(PAUSE, names=("clock",))).now
        took = time.monotonic() - before
        ahead = there - (began + took / 2)
        self.ahead = ahead if abs(ahead) > took else 0.0


def added(one: Tally, other: Tally) -> Tally:
    """Both, under the names and the minute of the first."""
    values = [a + b for a, b in zip(values_of(one), values_of(other), strict=True)]
    return read_tally(one.minute, one.queue, one.task, values)


def key_of(known: Collection[Key], key: Key, most: int) -> Key:
    """This key if it is known or there is room for it, else that of all others."""
    return key if key in known or len(known) < most else (OTHER, OTHER)
