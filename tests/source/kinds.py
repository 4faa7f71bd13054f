"""The transports as tests use them: publish messages with an identity each, and see what the broker still holds."""

import functools
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis as RedisClient

from tests.servers import Redis, Server


class Kind:
    """One queue, stream, topic, channel or folder of its own. `remembers`: what is not acknowledged comes again."""

    remembers = True

    def __init__(self, folder: Path) -> None:
        self.name = f"place{uuid.uuid4().hex[:12]}"
        self.folder = folder

    @property
    def server(self) -> Server:
        """What may be restarted."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The URL of the source."""
        return f"{self.server.url}{self.name}"

    async def prepare(self) -> None:
        """Make the place, where that is not the source's business."""

    async def publish(self, bodies: Sequence[bytes]) -> None:
        """Send messages; they are safe with the broker when this returns."""
        raise NotImplementedError

    async def left(self, reader: str) -> int:
        """How many messages `reader` has not acknowledged."""
        raise NotImplementedError


@functools.cache
def redis_server() -> Redis:
    """A Redis that tests of sources may restart."""
    return Redis()


class RedisKind(Kind):
    @property
    def server(self) -> Server:
        return redis_server()

    @property
    def url(self) -> str:
        return f"{self.server.url}/{self.name}"

    def client(self) -> Any:
        return RedisClient(port=self.server.port)

    async def publish(self, bodies: Sequence[bytes]) -> None:
        async with self.client() as client, client.pipeline(transaction=False) as pipe:
            for body in bodies:
                pipe.xadd(self.name, {b"body": body})
            await pipe.execute()

    async def left(self, reader: str) -> int:
        async with self.client() as client:
            groups = [one for one in await client.xinfo_groups(self.name) if one["name"] == reader.encode()]
            return sum(one["pending"] + one["lag"] for one in groups)


KINDS: Mapping[str, type[Kind]] = {"redis": RedisKind}
