"""PostgreSQL NOTIFY: a channel, listened to by one worker at a time.

NOTIFY keeps nothing: what is said while nobody listens is not heard. An advisory lock of the database sees to it that
one worker listens, so that each notification is one job; when it dies another takes over within a second or two.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

from windlass.source.feed import Address, Feed, Message, library

TIMEOUTS = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 5}


class PostgresFeed(Feed):
    """One connection that listens, or waits for its turn to."""

    holds = True

    def __init__(self, address: Address, name: str) -> None:
        super().__init__(address, name)
        address.end(expected="postgresql://[user:password@]host:5432/database/channel", least=2, most=2)
        parts = urlsplit(address.url)
        self._server = urlunsplit(parts._replace(scheme="postgresql", path=f"/{quote(address.path[0], safe='')}"))
        self._database: Any = None
        self._listens = False

    async def open(self) -> None:
        connect = library("psycopg").AsyncConnection.connect
        self._database = await connect(
            self._server, autocommit=True, prepare_threshold=None, application_name=f"windlass {self.name}", **TIMEOUTS
        )
        await self._listen()

    async def close(self) -> None:
        if self._database is not None:
            await self._database.close()

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        if not self._listens and not await self._listen():
            await asyncio.sleep(wait)
            return []
        return [
            Message(body=one.payload.encode(), identity=str(uuid4()), topic=one.channel, extra={"pid": one.pid})
            async for one in self._database.notifies(timeout=wait, stop_after=1)
        ]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """There is nobody to tell."""

    async def _listen(self) -> bool:
        sql = library("psycopg.sql")
        name = f"windlass source {self.name} {self.address.last}"
        answer = await self._database.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name])
        self._listens = (await answer.fetchone())[0]
        if self._listens:
            await self._database.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self.address.last)))
        return self._listens
