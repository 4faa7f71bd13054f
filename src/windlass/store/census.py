"""Live jobs by line: short lines are counted whenever somebody asks, long ones rarely."""

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
"""The jobs in front of a line, of each priority, of which the oldest is looked for."""

ALL = 2**62
"""A bound that no count reaches."""

SHARE = 20
"""Counting everything is not repeated before so many times as long as it took."""

PATIENCE = 0.25
"""Seconds that whoever asks waits for it."""

AGAIN = 3_600.0
"""Seconds after which a count that never ended is begun anew."""

Key = tuple[str, str, State]
Rows = Sequence[Sequence[Any]]
"""(state, line, count, when the first became due), in microseconds."""


@dataclass
class Found:
    """What was found of one queue, task and state."""

    count: int = 0
    first: int = ALL
    exact: bool = True


class Census:
    """Counts the jobs of a store. `read`, with a bound, gives the time and the rows."""

    def __init__(self, read: Callable[[int], Awaitable[tuple[int, Rows]]]) -> None:
        self._read = read
        self._known: dict[Key, int] = {}
        self._next = 0.0
        self._counting: asyncio.Task[None] | None = None

    async def take(self) -> list[Line]:
        """`Store.stats`. While long lines are counted for the first time, they have at least so many jobs."""
        lines = told(*await self._read(COUNTED + 1), COUNTED)
        if all(line.exact for line in lines):
            return lines
        now = await self._count_soon()
        return [line if line.exact else self._latest(line, exact=now) for line in lines]

    async def _count_soon(self) -> bool:
        """Count everything if it is time to; whether that is done already."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + AGAIN
        work = self._counting = asyncio.create_task(self._count())
        work.add_done_callback(lambda over: over.cancelled() or over.exception())  # it is tried again
        await asyncio.wait({work}, timeout=PATIENCE)
        return work.done() and not work.cancelled() and work.exception() is None

    async def _count(self) -> None:
        began = time.monotonic()
        try:
            self._known = {key_of(line): line.count for line in told(*await self._read(ALL), ALL)}
        finally:
            self._next = time.monotonic() + SHARE * (time.monotonic() - began)

    def _latest(self, line: Line, *, exact: bool) -> Line:
        known = self._known.get(key_of(line))
        if known is None or known < line.count:
            return line
        return replace(line, count=known, exact=exact)

    def stop(self) -> None:
        """Count no further."""
        if self._counting is not None and self._counting.get_loop() is asyncio.get_running_loop():
            self._counting.cancel()


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
