"""PURE: the last minute in steps of a few seconds, from sums by minute that are read again and again.

A store sums up by minute. What happened within one is the difference between two readings; when between them nobody
knows, so it is spread evenly over that time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from windlass.model import Line, State, Tally
from windlass.web.chart import Point, quantile
from windlass.worker.tallies import UNEVEN, rhythm
from windlass.worker.telling import TELL_EVERY

LONG, STEP = 60, 5
"""How far back it goes, and its steps; in seconds."""

EVERY = 1.5
"""Seconds between two readings at least."""

BACK, AHEAD = 120, 60
"""Seconds before and after now of which sums are read: what is told late counts, and what another clock says is now."""

COUNTED = (State.READY, State.WAITING)

Key = TypeVar("Key")

Sums = Sequence[float]
"""Jobs that succeeded, jobs that failed, waits and runs by bucket."""

ByMinute = Mapping[tuple[int, str], Sums]
"""Sums by minute of the epoch and queue."""

Name = str | None
"""A queue; None for all of them together."""


class Minute:
    """What was seen of the last minute: no more than that is kept, whatever is read."""

    def __init__(self) -> None:
        self._read: dict[tuple[int, str], Sums] = {}
        self._first = self._at = self._lag = self._late = 0.0
        self._known: dict[Name, float] = {}
        self._steps: dict[int, dict[Name, Sums]] = {}
        self._depths: dict[int, dict[Name, int]] = {}
        self._before = (0.0, 0.0)

    def add(self, now: float, rows: Iterable[Tally], lines: Iterable[Line], workers: int) -> None:
        """What the store says `now`, from BACK ago until AHEAD: sums, and live jobs, with so many workers at work."""
        if 0 <= now - self._at < EVERY / 2:
            return
        every = rhythm(workers)
        self._late, self._lag = every * (1 + UNEVEN), (every + TELL_EVERY) / 2
        read: dict[tuple[int, str], Sums] = {}
        for row in rows:
            put(read, (row.minute, row.queue), (row.succeeded, row.failed, *row.waits, *row.runs))
        if 0 < now - self._at < LONG and (grown := differences(self._read, read)) is not None:
            self._go_on(now, grown)
        else:
            self._begin(now, read)
        self._read, self._at = read, now
        self._look(now, lines)
        for kept in (self._steps, self._depths):
            for at in [at for at in kept if at + STEP <= now - LONG]:
                del kept[at]

    def _begin(self, now: float, read: ByMinute) -> None:
        """Nobody has looked: all that is known is how much came in this minute and in the last."""
        self._known, self._steps, self._depths, self._first = {}, {}, {}, now
        since, until = (now // 60 - 1) * 60, now - self._lag
        self._before = since, until
        for (minute, queue), sums in read.items():
            if minute * 60 >= since:
                self._spread(queue, sums, since, until, now)

    def _go_on(self, now: float, grown: Mapping[str, Sums]) -> None:
        """What came since the last reading: since the queue grew before, and no worker tells later than `late`. What is
        told happened `lag` before, on the average."""
        soonest = self._at - self._late
        for queue, sums in grown.items():
            since = max(self._known.get(queue, self._first), soonest)
            self._spread(queue, sums, since - self._lag, now - self._lag, now)
            self._known[queue] = self._known[None] = now
        self._known = {queue: at for queue, at in self._known.items() if at > now - LONG}

    def _spread(self, queue: str, sums: Sums, since: float, until: float, now: float) -> None:
        """So much came at an even pace, as far as that is within the last minute."""
        at = int(max(since, now - LONG) // STEP) * STEP
        while at < until:
            share = (min(until, at + STEP) - max(since, at)) / (until - since)
            part = [share * one for one in sums]
            for name in (queue, None):
                put(self._steps.setdefault(at, {}), name, part)
            at += STEP

    def _look(self, now: float, lines: Iterable[Line]) -> None:
        """How many jobs are due and do not run; of several looks in a step, the most."""
        found: dict[Name, int] = {None: 0}
        for line in lines:
            if line.state in COUNTED:
                for name in (line.queue, None):
                    found[name] = found.get(name, 0) + line.count
        most = self._depths.setdefault(int(now // STEP) * STEP, {})
        for name, count in found.items():
            most[name] = max(most.get(name, 0), count)

    def before(self, now: float) -> tuple[float, float] | None:
        """From when until when only the average is known; None if that is over."""
        return self._before if self._before[1] > now - LONG else None

    def points(self, now: float, queue: Name = None) -> list[Point]:
        """The steps of the last minute, oldest first. What workers have not told of yet is None."""
        known = max(self._known.get(queue, self._first), self._at - self._late) - self._lag
        first = int((now - LONG) // STEP) * STEP
        return [self._point(at, queue, known) for at in range(first, int(now // STEP) * STEP + 1, STEP)]

    def _point(self, at: int, queue: Name, known: float) -> Point:
        depths = self._depths.get(at)
        depth = None if depths is None else depths.get(queue, 0)
        seconds = min(STEP, known - at)
        if seconds <= 0:
            return Point(at=at, succeeded=None, failed=None, depth=depth)
        succeeded, failed, *times = self._steps.get(at, {}).get(queue) or (0, 0)
        waits, runs = times[: len(times) // 2], times[len(times) // 2 :]
        return Point(
            at=at,
            succeeded=succeeded * 60 / seconds,
            failed=failed * 60 / seconds,
            wait_p50=quantile(waits, 0.5),
            wait_p95=quantile(waits, 0.95),
            run_p95=quantile(runs, 0.95),
            depth=depth,
        )


def put(found: dict[Key, Sums], key: Key, sums: Sums) -> None:
    """Add to what is there."""
    known = found.get(key)
    found[key] = sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]


def differences(before: ByMinute, now: ByMinute) -> dict[str, Sums] | None:
    """By how much each queue grew, of those that did; None if any shrank: then the store is another."""
    found: dict[str, Sums] = {}
    for key, sums in now.items():
        grown = [b - a for a, b in zip(before.get(key, [0] * len(sums)), sums, strict=True)]
        if min(grown) < 0:
            return None
        if any(grown):
            put(found, key[1], grown)
    return found
