"""The same random history on several kinds of stores side by side: all must give the same answers, at every step.

`python -m tests.store.differential --stores sqlite,postgres,redis --seeds 1000` plays that many histories, in all
processors, and prints the shortest story of the first difference; it tells how to go on when it is stopped. One seed is
one history, always the same, from `author.py`. After each step all jobs and all workers are read and compared, too.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tests.spread import PROCESSES, Progress, spread
from tests.store.author import Call, Scene, write
from tests.store.kinds import KINDS
from tests.store.world import World
from windlass.clock import FakeClock
from windlass.errors import WindlassError
from windlass.model import Doc, Exchanged, Filter, JobRecord, Orders, Shelf, State, WorkerInfo

STEPS = 80
STORES = ("memory", "sqlite", "postgres", "redis")
OWN = ("advance", "shift", "reopen")
"""What a world does, and no store."""

PATIENCE = 60.0
"""Seconds within which a store answers."""


@dataclass(frozen=True)
class Difference:
    """Where two stores answered differently, and what was done before."""

    seed: int
    steps: tuple[int, ...]
    story: str


@dataclass
class Side:
    """One store with its world."""

    world: World
    answers: list[Any] = field(default_factory=list)
    before: dict[tuple[str, str], int] = field(default_factory=dict)
    """The version before the first of each document, which is any number: histories count from 1."""

    async def call(self, call: Call) -> Any:
        """What it answers; an error of ours is an answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._call(call)
        except WindlassError as error:
            return error

    async def _call(self, call: Call) -> Any:
        store = self.world.store
        if call.method == "reopen":
            await self.world.crash()
            return None
        if call.method in OWN:
            return await getattr(self.world, call.method)(*call.args)
        if call.method == "find":
            return await self._pages(*call.args)
        if call.method == "put_now":
            return await asyncio.to_thread(store.put_now, *call.args)
        if call.method in ("put", "save"):
            return await self._write(call)
        answer = await getattr(store, call.method)(*call.args, **call.more)
        return self._counted(answer) if call.method == "load" else answer

    async def _write(self, call: Call) -> Any:
        """A call that may bring documents, in the versions that they have here."""
        at = 2 if call.method == "put" else 0
        docs = call.args[at] if len(call.args) > at else ()
        args = [*call.args[:at], [self._here(doc) for doc in docs], *call.args[at + 1 :]] if docs else call.args
        answer = await getattr(self.world.store, call.method)(*args, **call.more)
        for doc in docs:
            if doc.version == 0:
                for found in (await self.world.store.load(doc.kind, names=[doc.name])).docs:  # none, if dropped again
                    self.before[doc.kind, doc.name] = found.version - 1
        return answer

    def _here(self, doc: Doc) -> Doc:
        before = self.before.get((doc.kind, doc.name), 0)
        return msgspec.structs.replace(doc, version=before + doc.version) if doc.version else doc

    def _counted(self, shelf: Shelf) -> Shelf:
        docs = [
            msgspec.structs.replace(doc, version=doc.version - self.before[doc.kind, doc.name]) for doc in shelf.docs
        ]
        return msgspec.structs.replace(shelf, docs=tuple(docs))

    async def _pages(self, filter: Filter, limit: int) -> list[list[JobRecord]]:
        """All pages that there are."""
        pages: list[list[JobRecord]] = []
        after = None
        while not pages or after:
            page = await self.world.store.find(filter, limit, after)
            pages.append(list(page.jobs))
            after = page.after
        return pages

    async def look(self, ids: Sequence[str]) -> tuple[list[JobRecord], list[WorkerInfo]]:
        """All jobs and all workers."""
        return await self.world.store.get(ids), list(await self.world.store.workers())


# What may differ


def shown(call: Call, answer: Any, orderly: bool) -> Any:
    """An answer as plain values, without what may differ from store to store.

    Errors: their kind, not their words. Refused ids, cancel orders, the ids of a verb and the reaped: a set, as the
    contract gives them no order. Pages: see `in_order`.
    """
    if isinstance(answer, Exception):
        return type(answer).__name__
    if isinstance(answer, Exchanged):
        answer = msgspec.structs.replace(answer, refused=tuple(sorted(answer.refused)))
    elif isinstance(answer, Orders):
        cancel = sorted(answer.cancel, key=lambda order: (order.runner, order.id))
        answer = msgspec.structs.replace(answer, cancel=tuple(cancel))
    elif call.method in ("act", "reap"):
        answer = sorted(answer)
    elif call.method == "find":
        sizes = [len(page) for page in answer]
        return sizes, plain(in_order(call.args[0], [job for page in answer for job in page], orderly))
    return plain(answer)


def in_order(filter: Filter, jobs: list[JobRecord], orderly: bool) -> list[JobRecord]:
    """Jobs of pages, with those sorted among themselves that no rule sets apart.

    Of jobs that started or ended in the same moment the contract does not say which comes first. What is newest is told
    by the id, by the row or by when it was put: one order, but for jobs that were moved and clocks that were set back.
    """
    if filter.state is None:
        return jobs if orderly else sorted(jobs, key=lambda job: job.id)
    if filter.state is State.RUNNING:
        return same_order(jobs, lambda job: job.started_at)
    if filter.state.final:
        return same_order(jobs, lambda job: job.finished_at)
    return jobs


def same_order(jobs: list[JobRecord], moment: Callable[[JobRecord], float | None]) -> list[JobRecord]:
    """Jobs as they are, those of one moment by id."""
    moments = {at: n for n, at in reversed(list(enumerate(map(moment, jobs))))}
    return sorted(jobs, key=lambda job: (moments[moment(job)], job.id))


def plain(value: Any) -> Any:
    """Values that compare: moments and ages to 10 µs, as they went through whole microseconds."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


# A history


async def play(seed: int, steps: Sequence[int], kinds: Sequence[str]) -> tuple[str, int]:
    """Do these steps on all kinds: the story up to the first difference ("" if there was none), and the last step."""
    orderly = seed % 2 == 0
    async with contextlib.AsyncExitStack() as stack:
        sides = []
        for kind in kinds:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            side = Side(KINDS[kind](folder))
            await side.world.open()
            stack.push_async_callback(side.world.close)
            sides.append(side)
        clock = sides[0].world.clock
        assert isinstance(clock, FakeClock)
        scene = Scene(orderly, timed=seed % 4 < 2, now=clock.now())
        lines: list[str] = []
        for step in steps:
            call = write(scene, seed, step)
            if call is None:
                continue
            lines.append(f"{step:3}. {call}")
            answers = await asyncio.gather(*(side.call(call) for side in sides))
            if told := differ(sides, [shown(call, answer, orderly) for answer in answers]):
                return "\n".join([*lines, "answered", *told]), step
            scene.learn(call, answers[0])
            looks = await asyncio.gather(*(side.look(scene.ids) for side in sides))
            if told := differ(sides, [plain(look) for look in looks]):
                return "\n".join([*lines, "then jobs and workers were", *told]), step
            scene.see(clock.now(), *looks[0])
    return "", 0


def differ(sides: Sequence[Side], answers: Sequence[Any]) -> list[str]:
    """Where the answers are not all the same, that part of each; nothing where they are."""
    if all(answer == answers[0] for answer in answers):
        return []
    path = ""
    while True:
        step = part(answers)
        if step is None:
            break
        path += f"[{step!r}]"
        answers = [answer[step] for answer in answers]
    return [f"  {side.world.kind:8} {path} {answer!r}" for side, answer in zip(sides, answers, strict=True)]


def part(answers: Sequence[Any]) -> Any:
    """The first part that all have and that is not the same everywhere; None if there is none."""
    first = answers[0]
    if isinstance(first, dict):
        return next(name for name in first if any(answer[name] != first[name] for answer in answers))
    if isinstance(first, list | tuple) and all(
        isinstance(answer, list | tuple) and len(answer) == len(first) for answer in answers
    ):
        return next(n for n in range(len(first)) if any(answer[n] != first[n] for answer in answers))
    return None


def compare(seed: int, steps: Sequence[int], kinds: Sequence[str]) -> tuple[str, int]:
    """`play`, on an event loop of its own."""
    return asyncio.run(play(seed, steps, kinds))


def difference(seed: int, steps: int, kinds: Sequence[str], *, shortest: bool = True) -> Difference | None:
    """The first difference in the history of a seed, its story as short as leaving out steps makes it."""
    story, last = compare(seed, range(steps), kinds)
    if not story:
        return None
    kept = list(range(last + 1))
    if shortest:
        kept, story = shortened(seed, kept, story, kinds)
    return Difference(seed, tuple(kept), story)


def shortened(seed: int, kept: list[int], story: str, kinds: Sequence[str]) -> tuple[list[int], str]:
    """Fewer steps that end in a difference: pieces are left out, halves first, then ever smaller ones."""
    size = len(kept) // 2
    while size:
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            told, last = compare(seed, fewer, kinds)
            if told:
                kept, story = [step for step in fewer if step <= last], told
            else:
                at += size
        size //= 2
    return kept, story


# The command


@dataclass(frozen=True)
class Part:
    """Some seeds, to be played by any process."""

    seeds: range
    steps: int
    kinds: tuple[str, ...]


PART = 5
"""Seeds that a process plays at a time."""


def play_part(part: Part) -> Difference | None:
    """The first difference in a part."""
    logging.getLogger("windlass").setLevel(logging.ERROR)  # every seed's store would say again how safe its server is
    found = (difference(seed, part.steps, part.kinds) for seed in part.seeds)
    return next((one for one in found if one), None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.store.differential", description=__doc__)
    parser.add_argument("--stores", default=",".join(STORES), help=f"two or more of {', '.join(KINDS)}")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each history")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="how many at a time")
    given = parser.parse_args()
    kinds = tuple(given.stores.split(","))
    if len(kinds) < 2 or not set(kinds) <= set(KINDS):
        parser.error(f"--stores: expected two or more of {', '.join(KINDS)}, got {given.stores}")
    end = given.first + given.seeds
    parts = [Part(range(at, min(at + PART, end)), given.steps, kinds) for at in range(given.first, end, PART)]
    progress = Progress(given.seeds, "histories")
    with spread(play_part, parts, given.processes) as results:
        for one, found in zip(parts, results, strict=True):
            if found:
                print(f"seed {found.seed}, steps {', '.join(map(str, found.steps))}:\n{found.story}")
                return 1
            left = end - one.seeds.stop
            progress.add(len(one.seeds), f"; go on with --first {one.seeds.stop} --seeds {left}")
    print(f"{progress} of {given.steps} steps without a difference between {given.stores}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
