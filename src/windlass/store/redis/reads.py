"""What is only read: jobs for people, page by page, and counts. No script looks at more than a batch."""

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from windlass.model import Filter, JobRecord, Line, Page, State, Verb
from windlass.store.census import FRONT
from windlass.store.contract import BATCH
from windlass.store.redis.records import LETTERS, encode, filter_arguments, raw, read_jobs, text
from windlass.store.rows import MICRO, is_over, is_sparse, micros, read_cursor, strange

Run = Callable[..., Awaitable[Any]]
Place = tuple[str, str]
"""Where a job stands in an index: score and id."""

Stretch = tuple[list[Place], Place | None]
"""Some jobs that match, and where to go on in their index; None: not this way, or there are no more."""

FINISHED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
LIVE = (State.READY, State.SCHEDULED, State.RUNNING, State.WAITING)
STANDING = {State.READY: "l", State.WAITING: "x"}
"""The indexes by line, of jobs that stand in the order of claiming."""

ORDER = 21
"""Characters in front of the id in a line's member; as in keys.lua."""

WHOLE, NUMBER = re.compile(r"-?[0-9]{1,19}"), re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,19})?(e[+-]?[0-9]{1,3})?")
"""Scores as a cursor has them."""


def index_of(filter: Filter) -> tuple[str, str]:
    """The index that has the jobs of a filter, and which way it is read."""
    if filter.error is not None:
        return f"error:{filter.error}", "down"
    if filter.state is State.SCHEDULED:
        return "due", "up"
    if filter.state is not None:
        return f"over:{LETTERS[filter.state]}", "down"
    return (f"tag:{filter.tag}" if filter.tag else "all"), "down"


def place_in_line(member: str) -> Place:
    """What a line has of a job, as a place."""
    return member[:ORDER], member[ORDER:]


class Reads:
    """Reading, by a function that runs a script."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """`Store.get`."""
        found: dict[str, JobRecord] = {}
        for start in range(0, len(ids), BATCH):
            found |= read_jobs(await self._run("get", encode(list(ids[start : start + BATCH]))))
        return [found[id] for id in ids if id in found]

    async def holders(self, keys: Sequence[str]) -> dict[str, str]:
        """`Store.holders`."""
        found = await self._run("holders", encode(list(keys)))
        return {key: text(job) for key, job in zip(keys, found, strict=True) if job}

    # Pages

    async def find(self, filter: Filter, limit: int, after: str | None, far: int | None) -> Page:
        """`Store.find`: one page by key, never by offset."""
        cursor = None if after is None else cursor_of(filter, after)
        found: list[Place] = []
        looked, end = 0, cursor
        async for places, on in self._stretches(filter, cursor, limit + 1):
            found, looked, end = found + places, looked + BATCH, on
            if len(found) > limit or (far is not None and is_sparse(filter) and looked >= far):
                break
        page = found[:limit]
        jobs = tuple(await self.get([id for _, id in page]))
        if len(found) > limit or end is None:
            return Page(jobs=jobs, after=json.dumps(page[-1]) if len(found) > limit else None)
        moments = filter.state is None or is_over(filter)
        return Page(jobs=jobs, after=json.dumps(end), back_to=float(end[0]) / MICRO if moments else None)

    def _stretches(self, filter: Filter, cursor: Place | None, wanted: int) -> AsyncIterator[Stretch]:
        """Jobs that match, in order, some at a time."""
        if filter.error is not None:
            return self._walk(filter, cursor, wanted)
        if filter.state in STANDING:
            return self._standing(STANDING[filter.state], filter, cursor, wanted)
        if filter.state is State.RUNNING:
            return self._running(filter, cursor)
        return self._walk(filter, cursor, wanted)

    async def _walk(self, filter: Filter, cursor: Place | None, wanted: int) -> AsyncIterator[Stretch]:
        index, way = index_of(filter)
        by_tag = filter.state is None and filter.error is None
        rest = replace(filter, tag=None) if by_tag else replace(filter, error=None)
        if filter.error is None or filter.state is State.FAILED:
            rest = replace(rest, state=None)
        if filter.ended_by is not None and is_over(filter):
            rest, cursor = replace(rest, ended_by=None), cursor or (str(micros(filter.ended_by) + 1), "")
        count = min(wanted, BATCH) if rest == Filter() else BATCH
        more = True
        while more:
            more, score, id, flat = await self._run(
                "walk", index, way, count, filter_arguments(rest), *map(raw, cursor or ())
            )
            cursor = (text(score), text(id))
            yield places(flat), cursor if more else None

    async def _standing(self, index: str, filter: Filter, cursor: Place | None, wanted: int) -> AsyncIterator[Stretch]:
        count = BATCH if filter.tag else min(wanted, BATCH)
        member = "".join(cursor) if cursor else None
        while True:
            flat = await self._run("ready", count, filter_arguments(filter), index, *((raw(member),) if member else ()))
            heads = sorted(zip(flat[::2], flat[1::2], strict=True))[:count]
            members = [text(head) for head, fits in heads if fits]
            member = text(heads[-1][0]) if len(heads) == count else None
            yield [place_in_line(one) for one in members], place_in_line(member) if member else None
            if member is None:
                return

    async def _running(self, filter: Filter, cursor: Place | None) -> AsyncIterator[Stretch]:
        flat = await self._run("running", filter_arguments(filter))
        rows = sorted((-at, text(id)) for at, id in zip(flat[::2], flat[1::2], strict=True))
        after = (int(cursor[0]), cursor[1]) if cursor else None
        yield [(str(at), id) for at, id in rows if after is None or (at, id) > after], None

    # Numbers

    async def count(self, filter: Filter, most: int | None = None) -> int:
        """`Store.count`."""
        if filter.state is None and (filter.task or filter.queue) and not filter.tag and filter.error is None:
            each = [replace(filter, state=state) for state in (*LIVE, *FINISHED)]
        else:
            each = [filter]
        found = 0
        for one in each:
            if most is None or found <= most:
                found += await self._count(one, None if most is None else most - found)
        return found if most is None else min(found, most + 1)

    async def _count(self, filter: Filter, most: int | None) -> int:
        if filter.state in (*STANDING, State.SCHEDULED) and not filter.tag and filter.error is None:
            return sum(line.count for line in await self.stats() if matches(line, filter))
        whole = (
            Filter(),
            Filter(tag=filter.tag),
            Filter(error=filter.error),
            Filter(state=State.FAILED, error=filter.error),
        )
        if filter in (*whole, *(Filter(state=state) for state in FINISHED)):
            return int(await self._run("size", index_of(filter)[0]))
        found = 0
        async for stretch, _ in self._stretches(filter, None, BATCH):
            found += len(stretch)
            if most is not None and found > most:
                break
        return found

    async def stats(self) -> list[Line]:
        """`Store.stats`."""
        now, *flat = await self._run("stats", FRONT)
        counts: defaultdict[tuple[str, str, State], int] = defaultdict(int)
        firsts: dict[tuple[str, str, State], int] = {}
        for at in range(0, len(flat), 4):
            line, state, count, first = flat[at : at + 4]
            queue, _, task = text(line).removesuffix("!").partition("/")
            key = (queue, task, State(state.decode()))
            counts[key] += count
            firsts[key] = min(first, firsts.get(key, first))
        return [
            Line(queue=key[0], task=key[1], state=key[2], count=count, oldest=max(0.0, (now - firsts[key]) / MICRO))
            for key, count in sorted(counts.items())
        ]

    # For operators

    async def targets(self, filter: Filter, verb: Verb) -> AsyncIterator[list[str]]:
        """Ids of jobs that match and that a verb may fit, at most a batch at a time."""
        for one in self._parts(filter, verb):
            async for found, _ in self._stretches(one, None, BATCH):
                for start in range(0, len(found), BATCH):
                    yield [id for _, id in found[start : start + BATCH]]

    def _parts(self, filter: Filter, verb: Verb) -> list[Filter]:
        """A filter for each of the states that a verb can fit."""
        states: Sequence[State | None] = {
            Verb.CANCEL: LIVE,
            Verb.RETRY: (State.SCHEDULED, *FINISHED),
            Verb.DELETE: (None,),
        }[verb]
        if filter.state is not None:
            states = (filter.state,)
        elif filter.error is not None:
            states = [state for state in states if state in (None, State.FAILED)]
        return [replace(filter, state=state) for state in states]


def cursor_of(filter: Filter, after: str) -> Place:
    """A cursor as the place where a job stands. Raises `ConfigError`."""
    score, id = read_cursor(after, str, str)
    number = WHOLE if filter.state is State.RUNNING else NUMBER
    if filter.state not in STANDING and not number.fullmatch(score):
        raise strange(after)
    return score, id


def places(flat: Sequence[bytes]) -> list[Place]:
    """(score, id) pairs that came flat."""
    return [(text(flat[at]), text(flat[at + 1])) for at in range(0, len(flat), 2)]


def matches(line: Line, filter: Filter) -> bool:
    """Whether a line of `stats` is of a filter's state, queue and task."""
    wanted = (filter.state, filter.queue, filter.task)
    return all(want in (None, had) for want, had in zip(wanted, (line.state, line.queue, line.task), strict=True))
