"""Live jobs by line: short lines are counted whenever somebody asks, long ones rarely."""

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

    async def take(self) -> list[Line]:
        """`Store.stats`."""
        lines = told(*await self._read(COUNTED + 1), COUNTED)
        if all(line.exact for line in lines):
            return lines
        if (began := time.monotonic()) >= self._next:
            self._next = began + SHARE  # who asks meanwhile does not count as well
            lines = told(*await self._read(ALL), ALL)
            self._next = time.monotonic() + SHARE * (time.monotonic() - began)
            self._known = {key_of(line): line.count for line in lines}
            return lines
        return [line if line.exact else replace(line, count=self._latest(line)) for line in lines]

    def _latest(self, line: Line) -> int:
        return max(line.count, self._known.get(key_of(line), 0))


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
