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

STRIDE = 1_000
"""Jobs that a store looks at for those of a queue or a task before it says how far it came; more when it is quick."""

LOOK = 0.2
"""Seconds that a search, or grouping, may take before it says how far it came."""


QUICK = LOOK / 8
"""Seconds in which a store looks at many jobs: it may look at twice as many then."""


class Reach(Struct):
    """How far somebody has looked: at so many jobs, back to one of that moment; `after` leads on (None: that was all).
    `exact`: whether it was just so many."""

    looked: int = 0
    last: float | None = None
    after: str | None = None
    exact: bool = True


class Found(Struct):
    """Some jobs; `after` leads to more. `reach`: how far was looked for them, if that took longer than a page may."""

    jobs: list[Job[Any]]
    after: str | None
    reach: Reach | None = None


async def newest(
    jobs: Jobs, which: Filter, reach: Reach, *, most: int | None = FAR, seconds: float | None = None, piece: int = PIECE
) -> AsyncIterator[list[Job[Any]]]:
    """Jobs that match in pieces, on from `reach`, which moves with it; until `most` were read, or so many seconds are
    over."""
    store, read = await jobs.store(), 0
    began = time.monotonic()
    end = None if seconds is None else began + seconds
    far = STRIDE
    while True:
        limit = piece if most is None else min(piece, most - read)
        page = await store.find(which, limit, reach.after, None if end is None else far)
        early = page.after is not None and (page.back_to is not None or len(page.jobs) < limit)
        read += len(page.jobs)
        reach.looked += far if early else len(page.jobs)
        reach.exact = reach.exact and not early
        reach.after = page.after
        if page.back_to is not None or page.jobs:
            reach.last = page.back_to or when(page.jobs[-1])
        yield [jobs.handle(record) for record in page.jobs]
        now = time.monotonic()
        if page.after is None or read == most or (end is not None and now >= end):
            return
        if now - began < QUICK:
            far *= 2
        began = now


async def causes_of(jobs: Jobs, which: Filter) -> tuple[Causes, Reach]:
    """Failed jobs by what went wrong, and how far was read."""
    causes, reach = Causes(), Reach()
    async for piece in newest(jobs, which, reach, seconds=LOOK):
        causes.add(piece)
    return causes, reach


async def count(jobs: Jobs, which: Which, states: Sequence[Filter]) -> int:
    """How many match, of the FAR newest of each filter."""
    return sum([sum(map(which.fits, piece)) for one in states async for piece in newest(jobs, one, Reach())])


async def find(jobs: Jobs, which: Which, want: int, after: str | None, seconds: float) -> Found:
    """Jobs that match, from `after` on: `want` of them or more, or those that `seconds` suffice to look for."""
    found, reach = Found([], None), Reach(after=after)
    piece, most = (PIECE, None) if which.reads else (want, want)
    async for some in newest(jobs, which.filter, reach, most=most, seconds=seconds, piece=piece):
        found.jobs += filter(which.fits, some) if which.reads else some
        if len(found.jobs) >= want:
            break
    found.after = reach.after
    if which.reads or not reach.exact:
        found.reach = reach
    return found
