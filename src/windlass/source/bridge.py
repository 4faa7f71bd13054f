"""The bridge: read a batch, store its jobs, acknowledge it; pause, reconnect, go on, until told to stop."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from windlass.config import complaint
from windlass.errors import StoreUnavailable
from windlass.model import Filter, NewJob, State
from windlass.source.feed import Feed
from windlass.source.intake import Intake
from windlass.source.turn import Turn
from windlass.store.contract import Store
from windlass.worker.relay import put_once

logger = logging.getLogger("windlass.source")

MOST = 500
"""The most messages of a batch."""

WAIT = 1.0
"""Seconds that one look for messages waits; a stop waits as long."""

PATIENCE = 15.0
"""Seconds that connecting and acknowledging may take."""

PARTING, CLOSING = 6.0, 4.0
"""Seconds that a bridge which stops has to finish its batch and to disconnect; and to disconnect alone."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds until the next try after one that failed."""

LOOK_EVERY = 1.0
"""Seconds between two looks at how full the queue is. A look that is slow is not repeated before twenty times that."""

RESUME = 0.75
"""The part of its `max_ready` under which a source that was full reads again."""


class Bridged(Protocol):
    """A source, as its bridge sees it."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def url(self) -> str:
        """Where its messages are."""

    @property
    def queue(self) -> str:
        """The queue of its jobs."""

    @property
    def max_ready(self) -> int:
        """How many ready jobs of that queue are enough."""

    @property
    def intake(self) -> Intake:
        """Makes the jobs."""

    def feed(self) -> Feed:
        """A new connection, not opened yet."""


class Bridge:
    """Carries the messages of one source into one store until it is stopped."""

    def __init__(self, source: Bridged, store: Store) -> None:
        self._source = source
        self._store = store
        self._stopped = asyncio.Event()
        self._room = Room(source, store)
        self._pause = 0.0
        self._said = ""

    def stop(self) -> None:
        """Have it end after the batch that it has now."""
        self._stopped.set()

    async def run(self) -> None:
        """Read until stopped; errors are told and end nothing."""
        while not self._stopped.is_set():
            try:
                await self._session()
            except Exception as error:
                self._ill(error)
                await self._sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads many workers

    async def _session(self) -> None:
        """Read from one connection until it fails, the queue is full, or we stop."""
        feed = self._source.feed()
        async with Turn(self._store, self._source.name, needed=feed.alone) as turn:
            if not turn.ours:
                await self._sleep(turn.pause)
                return
            while not (feed.holds or await self._room.look() or self._stopped.is_set()):
                await self._sleep(LOOK_EVERY)
            try:
                async with asyncio.timeout(PATIENCE):
                    await feed.open()
                while turn.ours and not self._stopped.is_set():
                    if room := await self._room.look():
                        await self._carry(feed, min(room, MOST))
                        self._well()
                    elif feed.holds:
                        await self._sleep(LOOK_EVERY)
                    else:
                        return
            finally:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(CLOSING):
                        await feed.close()

    async def _carry(self, feed: Feed, most: int) -> None:
        """Store one batch and acknowledge it."""
        messages = await feed.read(most, WAIT)
        if not messages:
            return
        made = [self._source.intake.job(message, text=feed.text) for message in messages]
        self._room.took(await self._put([job for job, _ in made]))
        async with asyncio.timeout(PATIENCE):
            if refused := [message for message, (_, whole) in zip(messages, made, strict=True) if not whole]:
                many, name = len(refused), self._source.name
                logger.error("%d messages of source %s are over max_payload: each is a failed job", many, name)
                await feed.refuse(refused)
            await feed.acknowledge(messages)

    async def _put(self, jobs: Sequence[NewJob]) -> int:
        """Store jobs, however long the store cannot be reached; how many are new. Raises what else is wrong."""
        while True:
            try:
                return await put_once(self._store, jobs, "source")
            except StoreUnavailable as error:
                self._ill(error)
                await self._sleep(self._pause)
                if self._stopped.is_set():
                    raise
            except Exception as error:
                if len(jobs) == 1:
                    raise
                logger.info("a batch of source %s is stored one by one: %s", self._source.name, error)
                return sum([await self._put([job]) for job in jobs])

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    def _well(self) -> None:
        if self._said:
            logger.info("source %s is read again", self._source.name)
        self._pause, self._said = 0.0, ""

    def _ill(self, error: Exception) -> None:
        """Say what is wrong, once for each reason."""
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
        said = " ".join(complaint(self._source.url, error).split()) or type(error).__name__
        if said != self._said:
            self._said = said
            logger.warning("%r is not read, trying again every now and then: %s", self._source, said)


class Room:
    """How much more its queue may take. Counted in the store now and then, guessed in between."""

    def __init__(self, source: Bridged, store: Store) -> None:
        self._source = source
        self._store = store
        self._full = False
        self._ready = 0
        self._next = 0.0

    async def look(self) -> int:
        """How many messages the source may read."""
        began = time.monotonic()
        if began >= self._next:
            wanted = Filter(queue=self._source.queue, state=State.READY)
            self._ready = await self._store.count(wanted, self._source.max_ready)
            now = time.monotonic()
            self._next = now + max(LOOK_EVERY, 20 * (now - began))
        most = self._source.max_ready
        full = self._ready >= (most * RESUME if self._full else most)
        if full and not self._full:
            logger.info("source %s is not read while queue %s is full", self._source.name, self._source.queue)
        self._full = full
        return 0 if full else most - self._ready

    def took(self, jobs: int) -> None:
        """So many jobs were stored since."""
        self._ready += jobs


@contextlib.asynccontextmanager
async def bridging(sources: Iterable[Bridged], store: Store) -> AsyncIterator[Callable[[], None]]:
    """Read these sources for the length of the block; what is yielded has them stop before its end."""
    bridges = [Bridge(source, store) for source in sources]
    work = [asyncio.create_task(bridge.run()) for bridge in bridges]

    def stop() -> None:
        for bridge in bridges:
            bridge.stop()

    try:
        yield stop
    finally:
        stop()
        if work:
            await asyncio.wait(work, timeout=PARTING)
            for one in work:
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)
