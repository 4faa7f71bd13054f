"""Which ready jobs a demand takes: the heads of its lines, merged. Pure, but for the function that reads heads."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from windlass.model import Demand, Lane

Head = tuple[int, int, str, int | None, str | None]
"""(-priority, rank, id, expires_at, gates): sorts in the order of claiming."""

Served = tuple[str, int]
"""A line, and the lane that takes its jobs."""

FIRST_READ = 8
"""Heads that are read of a line at first when it is one of several; four times as many each time more are needed."""


class Claiming:
    """One claim while it is made: what was taken, in order, what of that is behind gates, as (place, line, gates), and
    what was found expired on the way."""

    def __init__(self, demand: Demand, now: int, read: Callable[[str, int], list[Head]], at_most: int) -> None:
        self.ids: list[str] = []
        self.expired: list[str] = []
        self.gated: list[tuple[tuple[int, int, str], str, str]] = []
        self._demand = demand
        self._now = now
        self._read = read
        self._slots = min(demand.slots, at_most)
        self._at_most = at_most
        self._free = [lane.slots for lane in demand.lanes]

    def choose(self, lines: Iterable[str]) -> None:
        """Take heads of these ready lines: each queue's share first, in order, then what is left, in order."""
        quotas = self._demand.quotas
        served: defaultdict[str, list[Served]] = defaultdict(list)
        for line in lines:
            queue, _, task = line.partition("/")
            lane = lane_of(task, self._demand.lanes)
            if lane is not None:
                served["" if quotas is None else queue].append((line, lane))
        if quotas is None:
            self._take(self._merged(served[""]), self._slots)
            return
        streams = [self._merged(served[quota.queue]) for quota in quotas]
        for quota, stream in zip(quotas, streams, strict=True):
            self._take(stream, quota.share)
        for stream in streams:
            self._take(stream, self._slots)

    def serves(self, line: str) -> bool:
        """Whether the demand takes jobs of a line, as far as it has slots for them."""
        queue, _, task = line.partition("/")
        quotas = self._demand.quotas
        wanted = quotas is None or any(quota.queue == queue for quota in quotas)
        return wanted and lane_of(task, self._demand.lanes) is not None

    def _take(self, stream: Iterator[tuple[Head, Served]], most: int) -> None:
        most = min(most, self._slots - len(self.ids))
        while most > 0 and len(self.expired) < self._at_most:
            head, (line, lane) = next(stream, (None, ("", 0)))
            if head is None:
                return
            if head[3] is not None and head[3] <= self._now:
                self.expired.append(head[2])
            elif self._free[lane] > 0:
                self._free[lane] -= 1
                most -= 1
                self.ids.append(head[2])
                if head[4] is not None:
                    self.gated.append((head[:3], line, head[4]))

    def _merged(self, lines: list[Served]) -> Iterator[tuple[Head, Served]]:
        first = FIRST_READ if len(lines) > 1 else self._slots
        streams = [self._heads(served, first) for served in lines]
        return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=order)

    def _heads(self, served: Served, count: int) -> Iterator[tuple[Head, Served]]:
        """The heads of a line, read no further than they are asked for, and not at all once its lane is full."""
        line, lane = served
        given = 0
        while self._free[lane] > 0:
            heads = self._read(line, count)
            for head in heads[given:]:
                yield head, served
                if self._free[lane] <= 0:
                    return
            if len(heads) < count:
                return
            given, count = count, count * 4


def order(entry: tuple[Head, Served]) -> tuple[int, int, str]:
    """What heads are sorted by."""
    return entry[0][:3]


def lane_of(task: str, lanes: tuple[Lane, ...]) -> int | None:
    """The lane with free slots that runs the jobs of this line, if any."""
    suspect = task.endswith("!")
    name = task[:-1] if suspect else task
    for at, lane in enumerate(lanes):
        if lane.slots > 0 and name in (lane.suspects if suspect else lane.tasks):
            return at
    return None
