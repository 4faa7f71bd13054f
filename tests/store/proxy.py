"""A proxy between a store and its server, for replies that are lost."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

GREEDY = 1 << 20


class Proxy:
    """Passes bytes on; instead of the answer to what `wanted` names, once, the connection ends."""

    def __init__(self, server: int) -> None:
        self._server = server
        self.port = 0
        self.wanted = b""
        self.swallowed = 0

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        asking = asyncio.create_task(self._ask(client, to_server))
        with contextlib.closing(to_client), contextlib.closing(to_server):
            while answer := await server.read(GREEDY):
                if asking.done():
                    self.swallowed += 1
                    return
                to_client.write(answer)

    async def _ask(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        """Until it said what is wanted, or leaves."""
        while said := await client.read(GREEDY):
            to_server.write(said)
            if self.wanted and self.wanted in said:
                self.wanted = b""
                return
        to_server.close()


@contextlib.asynccontextmanager
async def proxied(server: int) -> AsyncGenerator[Proxy, None]:
    """A proxy to a port of this host."""
    proxy = Proxy(server)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        await asyncio.sleep(0.05)
