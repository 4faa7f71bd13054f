"""Hints between processes by LISTEN and NOTIFY. They may be lost; looking again finds everything."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import get_args

import psycopg

from windlass.errors import StoreUnavailable
from windlass.store.contract import Topic
from windlass.store.postgres.link import BoundAsyncConnection, Pooler, Unanswered
from windlass.store.postgres.statements import SQL, Call, channel
from windlass.store.waiters import Waiters

logger = logging.getLogger("windlass.store")

CALM = 0.01
"""Seconds between two notifications of one topic by one process: a commit with one takes a lock of the whole server."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before a listener whose connection broke connects again."""

POOLED = (
    "this URL leads to a pooler that cannot LISTEN, so jobs start within a second; listen= may name the server itself"
)

PROOF = 2.0
"""Seconds in which a listener must hear itself: behind a pooler it never does."""


class Bell:
    """Listens on a connection of its own from the first wait on; rings through the store's others."""

    def __init__(
        self,
        schema: str,
        connect: Callable[[], Awaitable[BoundAsyncConnection]] | None,
        send: Callable[[Call], Awaitable[object]],
    ) -> None:
        self._channels: dict[str, Topic] = {channel(schema, topic): topic for topic in get_args(Topic)}
        self._names: dict[Topic, str] = {topic: channel for channel, topic in self._channels.items()}
        self._connect = connect
        self._send = send
        self._waiters = Waiters()
        self._listening: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._ringing: dict[Topic, asyncio.Task[None]] = {}
        self._again: set[Topic] = set()

    def ring_call(self, topic: Topic) -> Call:
        """The statement that rings."""
        return Call(SQL.ring, (self._names[topic],))

    def ring(self, topic: Topic) -> None:
        """Wake all who wait for `topic`, soon; many rings at once become one or two."""
        if topic in self._ringing:
            self._again.add(topic)
        else:
            self._ringing[topic] = asyncio.create_task(self._ring(topic))

    async def _ring(self, topic: Topic) -> None:
        try:
            while True:
                self._again.discard(topic)
                try:
                    await self._send(self.ring_call(topic))
                except Exception as error:
                    logger.debug("a hint was not sent: %s", error)
                await asyncio.sleep(CALM)
                if topic not in self._again:
                    return
        finally:
            self._ringing.pop(topic, None)

    async def wait(self, topic: Topic, timeout: float) -> bool:
        """Whether `topic` was rung within `timeout` seconds, or before without being heard."""
        if self._connect is not None and not self._ready.is_set():
            if self._listening is None:
                self._listening = asyncio.create_task(self._listen(self._connect))
            try:
                async with asyncio.timeout(timeout):
                    await self._ready.wait()
            except TimeoutError:
                return False
            if self._connect is not None:
                return True  # something may have been missed until now
        return await self._waiters.wait(topic, timeout)

    async def _listen(self, connect: Callable[[], Awaitable[BoundAsyncConnection]]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                connection = await connect()
                try:
                    for channel in self._channels:
                        await connection.execute(f'LISTEN "{channel}"'.encode())
                    if not await self._proves(connection):
                        self._give_up()
                        return
                    pause = FIRST_PAUSE
                    if self._ready.is_set():
                        self._wake_all()  # something may have been missed
                    self._ready.set()
                    async for note in connection.notifies():
                        self._hear(note.channel)
                finally:
                    await connection.close()
            except Pooler:
                self._give_up()
                return
            except (psycopg.Error, OSError, StoreUnavailable, Unanswered) as error:
                logger.debug("the listener lost its connection: %s", error)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _give_up(self) -> None:
        logger.info(POOLED)
        self._connect = None
        self._ready.set()

    async def _proves(self, connection: BoundAsyncConnection) -> bool:
        """Whether what another connection sends is heard here."""
        await self._send(Call(SQL.ring, (next(iter(self._channels)),)))
        async for _ in connection.notifies(timeout=PROOF, stop_after=1):
            return True
        return False

    def _hear(self, channel: str) -> None:
        if channel in self._channels:
            self._waiters.wake(self._channels[channel])

    def _wake_all(self) -> None:
        for topic in self._names:
            self._waiters.wake(topic)

    async def close(self) -> None:
        """Stop listening."""
        tasks = [task for task in (self._listening, *self._ringing.values()) if task]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        self._listening = None
