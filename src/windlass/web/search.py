"""Reading jobs newest first, for what no store has an index of, and telling how far that went."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec import Struct

from windlass.jobs import Job, Jobs
from windlass.model import Filter
from windlass.web.look import Causes
from windlass.web.which import Which, when

PIECE = 250
"""Jobs that are read at a time, and held in memory."""

FAR = 10_000
"""The most jobs that are read to group them by cause, or to act on those of one."""

LOOK = 0.25
"""Seconds that a search, or grouping, may take before it says how far it came."""


class Reach(Struct):
    """How far somebody has read: so many jobs, down to one of that moment; `after` leads on (None: that was all)."""

    looked: int = 0
    last: float | None = None
    after: str | None = None


class Found(Struct):
    """Some jobs; `after` leads to more. `reach`: how far was read for them, if they had to be looked for."""

    jobs: list[Job[Any]]
    after: str | None
    reach: Reach | None = None


async def page_of(jobs: Jobs, which: Filter, limit: int, after: str | None) -> Found:
    """Jobs that a store finds."""
    page = await (await jobs.store()).find(which, limit, after)
    return Found([jobs.handle(record) for record in page.jobs], page.after)


async def newest(
    jobs: Jobs, which: Filter, reach: Reach, *, most: int | None = FAR, seconds: float | None = None
) -> AsyncIterator[list[Job[Any]]]:
    """Jobs that match in pieces, on from `reach`, which moves with it; until `most` were read, or so many seconds are
    over."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        limit = PIECE if most is None else min(PIECE, most - reach.looked)
        page = await page_of(jobs, which, limit, reach.after)
        reach.looked += len(page.jobs)
        reach.after = page.after
        if page.jobs:
            reach.last = when(page.jobs[-1].record)
        yield page.jobs
        if page.after is None or reach.looked == most or (end is not None and time.monotonic() >= end):
            return


async def causes_of(jobs: Jobs, which: Filter) -> tuple[Causes, Reach]:
    """Failed jobs by what went wrong, and how far was read."""
    causes, reach = Causes(), Reach()
    async for piece in newest(jobs, which, reach, seconds=LOOK):
        causes.add(piece)
    return causes, reach


async def count(jobs: Jobs, which: Which, states: Sequence[Filter]) -> int:
    """How many match, of the FAR newest of each filter."""
    return sum([sum(map(which.fits, piece)) for one in states async for piece in newest(jobs, one, Reach())])


async def find(jobs: Jobs, which: Which, want: int, after: str | None, seconds: float = LOOK) -> Found:
    """Jobs that match, from `after` on: of those that `seconds` suffice to read, until there are `want` or more."""
    if not which.reads:
        return await page_of(jobs, which.filter, want, after)
    found, reach = Found([], None), Reach(after=after)
    found.reach = reach
    async for piece in newest(jobs, which.filter, reach, most=None, seconds=seconds):
        found.jobs += filter(which.fits, piece)
        if len(found.jobs) >= want:
            break
    found.after = reach.after
    return found
