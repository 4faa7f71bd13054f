"""What all open pages share: one look at the store a second, and the news that something changed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from windlass.clock import Clock
from windlass.errors import StoreError
from windlass.model import Line, WorkerInfo
from windlass.queues import Paused, drains_of, held_in, pauses_of
from windlass.store.contract import Store

logger = logging.getLogger("windlass.web")

T = TypeVar("T")

EVERY = 0.8
"""Seconds between two looks at the store, and the youngest age at which a look is not good enough for an open page."""

RATE = 4
"""Looks of open pages' own a second, in all of them: with more to look at, each is looked at less often."""

IN_USE = 15.0
"""Seconds for which what a page looked at counts as still looked at."""

REST = 5
"""A look that took long twice is not repeated before so many times as long, at most MOST seconds."""

MOST = 30.0

AT_LEAST, LIVELY = 10.0, 2.0
"""Seconds after which pages look again, whatever is known to have changed; while one of them shows what no look tells
to have changed."""

SNAPSHOT = "snapshot"
"""The key of what all pages share, whatever else is looked at."""

KEPT = 1_000
"""Looks that are kept."""


class Snapshot(Struct, frozen=True):
    """The live jobs, the workers and what is paused or drained at one moment, in seconds since the epoch."""

    lines: list[Line]
    workers: list[WorkerInfo]
    read_at: float
    paused: tuple[Paused, ...] = ()
    draining: tuple[Paused, ...] = ()

    @property
    def mark(self) -> object:
        """What differs when there is something new to see."""
        return (
            [(line.queue, line.task, line.state, line.count) for line in self.lines],
            [(one.id, one.beat_age <= one.lease, [(it.id, it.running) for it in one.runners]) for one in self.workers],
            self.paused,
            self.draining,
        )

    @property
    def busy(self) -> bool:
        """Whether any job runs: those move without a change in numbers."""
        return any(runner.running for worker in self.workers for runner in worker.runners)


class Look(Struct):
    """Something read from the store, when, and the seconds that this took, and the look before it."""

    work: "asyncio.Future[Any]"
    began: float
    used: float
    before: float = 0.0
    took: float = 0.0


def good_for() -> float:
    """Seconds for which what was read, or made of it, is good enough at least: until the next look."""
    return 0.9 * EVERY


def begun(work: Awaitable[T]) -> "asyncio.Future[T]":
    """What goes on whoever stops to wait for it; how it fails is told to those who still do."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda over: over.cancelled() or over.exception())
    return task


class Watch:
    """Reads for pages, each thing once for all who ask at about the same time."""

    def __init__(self, connect: Callable[[], Awaitable[Store]], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._looks: dict[object, Look] = {}
        self._streams: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        self._hurried = -IN_USE
        self.news = 0

    async def snapshot(self) -> Snapshot:
        """The live jobs, the workers and what is paused, at most EVERY seconds old unless reading them takes long."""
        return await self.look(SNAPSHOT, self._read, live=True)

    async def _read(self) -> Snapshot:
        store = await self._connect()
        held = await held_in(store)
        paused, draining = tuple(pauses_of(held)), tuple(drains_of(held))
        return Snapshot(await store.stats(), await store.workers(), self._clock.now(), paused, draining)

    async def look(self, key: object, read: Callable[[], Awaitable[T]], live: bool, fresh: float = 0.0) -> T:
        """What `read` gives. With `live`, what it gave a moment ago, to whoever asked under this key, will do; it is
        good enough for at least `fresh` seconds."""
        now = self._clock.boot()
        known = self._looks.get(key)
        if known is None or not live or now - known.began >= max(fresh, self._patience(key, known, now)):
            work = begun(read())
            self._looks.pop(key, None)
            known = self._looks[key] = Look(work, now, now, known.took if known else 0.0)
            work.add_done_callback(partial(self._time, known))
            while len(self._looks) > KEPT:
                self._looks.pop(next(iter(self._looks)))
        known.used = now
        try:
            found: T = await asyncio.shield(known.work)
        except BaseException:
            if known.work.done() and self._looks.get(key) is known:
                del self._looks[key]
            raise
        return found

    def _patience(self, key: object, known: Look, now: float) -> float:
        """Seconds for which what was read is good enough."""
        wanted = 0 if key == SNAPSHOT else sum(now - look.used < IN_USE for look in self._looks.values())
        return max(good_for(), wanted / RATE, min(MOST, REST * min(known.took, known.before)))

    def _time(self, look: Look, _: object) -> None:
        look.took = self._clock.boot() - look.began

    def hurry(self) -> None:
        """Pages shall look again every LIVELY seconds, until a while after nobody says so any more."""
        self._hurried = self._clock.boot()

    def forget(self) -> None:
        """Somebody changed something: what was read is old, and pages shall look."""
        self._looks.clear()
        self._tell()

    # News

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events: one whenever a page should look again."""
        wake = asyncio.Event()
        self._streams.add(wake)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            yield b"retry: 2000\n\n"
            while await wake.wait() and not self._ended:
                wake.clear()
                yield f"data: {self.news}\n\n".encode()
        finally:
            self._streams.discard(wake)

    def _tell(self) -> None:
        self.news += 1
        for wake in self._streams:
            wake.set()

    async def _poll(self) -> None:
        """Look at the store for as long as somebody watches."""
        seen: object = None
        told = 0.0
        while self._streams:
            try:
                snapshot = await self.snapshot()
                mark, busy = snapshot.mark, snapshot.busy
            except StoreError as error:
                mark, busy = str(error), False
            except Exception as error:
                logger.exception("the store could not be looked at")
                mark, busy = repr(error), False
            now = self._clock.boot()
            if mark != seen or busy or now - told >= (LIVELY if now - self._hurried < IN_USE else AT_LEAST):
                seen, told = mark, now
                self._tell()
            await asyncio.sleep(EVERY)

    def end(self) -> None:
        """End every stream: a server waits for them when it stops."""
        self._ended = True
        self._tell()

    async def close(self) -> None:
        """End the looking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
