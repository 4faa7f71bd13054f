"""Redis Streams, read by a consumer group that all workers share.

An entry has fields; one field named `body` is the message, else the message is the object of all fields. What a worker
read and did not acknowledge before it died is claimed by others once it has been pending for RECLAIM seconds.
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import json

from windlass.source.feed import Address, Feed, Message, library

RECLAIM = 10.0
"""Seconds after which what a consumer holds counts as left behind. Should it live, all is stored once anyway."""

FORGET = 3600.0
"""Seconds after which a consumer that holds nothing is removed from the group."""

BODY = b"body"


class RedisFeed(Feed):
    """One consumer of the group `name`."""

    def __init__(self, address: Address, name: str) -> None:
        super().__init__(address, name)
        address.end(expected="redis://[user:password@]host:6379[/db]/stream", most=2)
        parts = urlsplit(address.url)
        self._server = urlunsplit(parts._replace(path=f"/{address.path[0]}" if len(address.path) == 2 else "/0"))
        self._stream = address.last
        self._consumer = f"windlass-{uuid.uuid4()}"
        self._client: Any = None
        self._looked = 0.0

    async def open(self) -> None:
        redis = library("redis.asyncio")
        self._client = redis.from_url(self._server, socket_connect_timeout=5, socket_timeout=10, socket_keepalive=True)
        try:
            await self._client.xgroup_create(self._stream, self.name, id="0", mkstream=True)
        except library("redis").ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        await self._sweep()

    async def close(self) -> None:
        if self._client is None:
            return
        try:
            await self._forget(0.0, only=self._consumer)
        finally:
            await self._client.aclose()

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        if time.monotonic() - self._looked >= RECLAIM / 2:
            found = await self._reclaim(most)
            if found:
                return found
        answer = await self._client.xreadgroup(
            self.name, self._consumer, {self._stream: ">"}, count=most, block=int(wait * 1000)
        )
        return [self._message(id, fields) for id, fields in entries_of(answer)]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        await self._client.xack(self._stream, self.name, *(message.handle for message in messages))

    async def _reclaim(self, most: int) -> list[Message]:
        """Take over what others left behind."""
        answer = await self._client.xautoclaim(self._stream, self.name, self._consumer, int(RECLAIM * 1000), count=most)
        found = [self._message(id, fields, again=True) for id, fields in answer[1] if fields]
        if not found:
            self._looked = time.monotonic()
        return found

    async def _sweep(self) -> None:
        await self._forget(FORGET)

    async def _forget(self, idle: float, only: str | None = None) -> None:
        """Remove consumers that hold nothing and have done nothing for `idle` seconds."""
        for one in await self._client.xinfo_consumers(self._stream, self.name):
            name = one["name"].decode()
            mine = name == only if only else name.startswith("windlass-")
            if mine and not one["pending"] and one["idle"] >= idle * 1000:
                await self._client.xgroup_delconsumer(self._stream, self.name, name)

    def _message(self, id: bytes, fields: Mapping[bytes, bytes], *, again: bool = False) -> Message:
        return Message(
            body=fields[BODY] if set(fields) == {BODY} else as_object(fields),
            identity=f"{self._stream}\0{id.decode()}",
            topic=self._stream,
            redelivered=again,
            extra={"entry": id.decode()},
            handle=id,
        )


def entries_of(answer: Any) -> Iterable[tuple[bytes, Mapping[bytes, bytes]]]:
    """The entries in the answer of XREADGROUP for one stream, as either protocol has it."""
    if not answer:
        return []
    entries = next(iter(answer.values())) if isinstance(answer, Mapping) else answer[0][1]
    if isinstance(answer, Mapping):
        entries = entries[0]
    return list(entries)


def as_object(fields: Mapping[bytes, bytes]) -> bytes:
    """The fields of an entry as a JSON object of texts; what is no UTF-8 stays, and makes it no JSON."""
    return b"{" + b",".join(quoted(name) + b":" + quoted(value) for name, value in fields.items()) + b"}"


def quoted(data: bytes) -> bytes:
    """Bytes as a JSON text."""
    try:
        return json.encode(data.decode())
    except UnicodeDecodeError:
        return b'"' + data + b'"'
