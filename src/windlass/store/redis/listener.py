"""Hints from the server: one connection that is subscribed to what somebody here waits for."""

import asyncio
import contextlib
import logging

from redis import exceptions
from redis.asyncio import Connection

from windlass.errors import StoreUnavailable
from windlass.store.contract import Topic
from windlass.store.redis.link import FAILURES, Link
from windlass.store.redis.wire import pack
from windlass.store.waiters import Waiters

logger = logging.getLogger("windlass.store")

QUIET = 10.0
"""Seconds without a word after which the server is asked whether it is still there."""

ANSWER_WITHIN = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two tries to connect again."""


class Listener:
    """Subscribes on the first wait for a topic; connects again by itself, and then wakes all, as hints may be lost."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tag = link.target.tag
        self._waiters = Waiters()
        self._topics: dict[bytes, Topic] = {}
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def wait(self, topic: Topic, timeout: float) -> bool:
        """Whether a hint came within `timeout` seconds, or before without being heard."""
        channel = f"{self._tag}{topic}".encode()
        if channel not in self._topics:
            self._topics[channel] = topic
            if self._connection:
                with contextlib.suppress(*FAILURES):  # the reader notices, and connects again
                    await self._subscribe(self._connection, channel)
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        return await self._waiters.wait(topic, timeout)

    async def close(self) -> None:
        """Stop listening."""
        task, self._task = self._task, None
        if task and not task.get_loop().is_closed():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RuntimeError):
                await task

    async def _listen(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                connection = await self._link.connect()
                try:
                    await self._subscribe(connection, *self._topics)
                    self._connection = connection
                    for topic in self._topics.values():
                        self._waiters.wake(topic)
                    pause = FIRST_PAUSE
                    await self._hear(connection)
                finally:
                    self._connection = None
                    await connection.disconnect(nowait=True)
            except (*FAILURES, StoreUnavailable) as error:
                logger.debug("the subscription to hints broke: %s", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _subscribe(self, connection: Connection, *channels: bytes) -> None:
        await connection.send_packed_command(pack((b"SSUBSCRIBE", *channels)), check_health=False)

    async def _hear(self, connection: Connection) -> None:
        asked = False
        while True:
            answer = await connection.read_response(disable_decoding=True, timeout=ANSWER_WITHIN if asked else QUIET)
            if answer is None and asked:
                raise exceptions.TimeoutError(f"no word within {QUIET + ANSWER_WITHIN:g} s")
            if answer is None:
                await connection.send_packed_command(pack((b"PING",)), check_health=False)
            elif answer[0] == b"smessage":
                self._waiters.wake(self._topics[answer[1]])
            elif answer[0] == b"sunsubscribe":
                raise exceptions.ConnectionError("the keys moved to another server")
            asked = answer is None
