"""Live jobs by line: short lines are counted whenever somebody asks, long ones less often if that is slow."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from windlass.model import Line, State
from windlass.store.contract import COUNTED
from windlass.store.rows import MICRO, read_state

FRONT = 100
"""The jobs in front of a line, of each priority, of which the oldest is looked for. A line of no more is
counted always."""

ALL = 2**62
"""A bound that no count reaches."""

QUICK = 0.1
"""Seconds that counting may take to be done whenever somebody asks."""

SHARE = 20
"""Counting that takes longer is not repeated before so many times as long as it took."""

PATIENCE = 0.25
"""Seconds that whoever asks waits for it."""

AGAIN = 3_600.0
"""Seconds after which a count that never ended is begun anew."""

Key = tuple[str, str, State]
Rows = Sequence[Sequence[Any]]
"""(state, line, count, when the first became due), in microseconds."""

Read = Callable[[int], Awaitable[tuple[int, Rows]]]


@dataclass
class Found:
    """What was found of one queue, task and state."""

    count: int = 0
    first: int = ALL
    exact: bool = True


class Census:
    """Counts the jobs of a store. `read`, with a bound, gives the time and the rows."""

    def __init__(self, read: Read) -> None:
        self._some, self._all = Count(read), Count(read)
        self._read = read

    async def take(self) -> list[Line]:
        """`Store.stats`. While long lines are counted for the first time, they have at least so many jobs."""
        if self._some.took <= QUICK:
            lines = await self._some.count(COUNTED)
        else:
            lines = told(*await self._read(FRONT + 1), FRONT)
            if any(not line.exact for line in lines):
                now = await self._some.renew(COUNTED)
                lines = [self._some.of(line, now) for line in lines]
        if any(is_long(line) for line in lines):
            now = await self._all.renew(ALL)
            lines = [self._all.of(line, now) if is_long(line) else line for line in lines]
        return lines

    def stop(self) -> None:
        """Count no further."""
        self._some.stop()
        self._all.stop()


class Count:
    """What was counted the last time."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._known: dict[Key, Line] = {}
        self._next = 0.0
        self.took = 0.0
        """Seconds that it took the last time."""

        self._work: asyncio.Task[list[Line]] | None = None

    async def renew(self, most: int) -> bool:
        """Count up to so many jobs of each line, if it is time to; whether what is known now is of now."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + AGAIN
            self._work = asyncio.create_task(self.count(most))
            self._work.add_done_callback(lambda over: over.cancelled() or over.exception())  # it is tried again
        work = self._work
        if work is None or work.done() or work.get_loop() is not asyncio.get_running_loop():
            return False
        await asyncio.wait({work}, timeout=PATIENCE if self.took <= QUICK else 0)
        return work.done() and not work.cancelled() and work.exception() is None

    async def count(self, most: int) -> list[Line]:
        """Count."""
        began = time.monotonic()
        try:
            lines = told(*await self._read(min(most + 1, ALL)), most)
            self._known = {key_of(line): line for line in lines}
            self.took = time.monotonic() - began
        finally:
            took = time.monotonic() - began
            self._next = time.monotonic() + (SHARE * took if took > QUICK else 0)
        return lines

    def of(self, line: Line, now: bool) -> Line:
        """A line with what was counted, if that is more; `now`: a moment ago."""
        known = self._known.get(key_of(line))
        if line.exact or known is None or known.count < line.count:
            return line
        return replace(line, count=known.count, exact=known.exact and now)

    def stop(self) -> None:
        """Count no further."""
        if self._work is not None and self._work.get_loop() is asyncio.get_running_loop():
            self._work.cancel()


def is_long(line: Line) -> bool:
    """Whether it was not counted to its end."""
    return line.count > COUNTED and not line.exact


def key_of(line: Line) -> Key:
    """What a line is of."""
    return line.queue, line.task, line.state


def told(now: int, rows: Rows, most: int) -> list[Line]:
    """Rows as lines; a count over `most` is not exact, but of running jobs, of which all are counted."""
    found: dict[Key, Found] = {}
    for state, line, count, first in rows:
        queue, _, task = line.removesuffix("!").partition("/")
        one = found.setdefault((queue, task, read_state(state)), Found())
        one.count += count
        one.first = min(one.first, first)
        one.exact = one.exact and (count <= most or state == State.RUNNING)
    return [
        Line(
            queue=queue,
            task=task,
            state=state,
            count=one.count,
            oldest=max(0.0, (now - one.first) / MICRO),
            exact=one.exact,
        )
        for (queue, task, state), one in sorted(found.items())
    ]
