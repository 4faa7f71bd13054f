"""A proxy between a store and its server, for replies that are lost."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

GREEDY = 1 << 20


class Proxy:
    """Passes bytes on; instead of the answer to what `wanted` names, once, the connection ends. With `silent`, not even
    that is passed on, and nothing ends: the network is cut."""

    def __init__(self, server: int) -> None:
        self._server = server
        self.port = 0
        self.wanted = b""
        self.silent = False
        self.swallowed = 0
        self.serving: set[asyncio.Task[None]] = set()

    def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Take one connection."""
        self.serving.add(asyncio.create_task(self._serve(client, to_client)))

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        asking = asyncio.create_task(self._ask(client, to_server))
        try:
            while answer := await server.read(GREEDY):
                if asking.done():
                    self.swallowed += 1
                    return
                to_client.write(answer)
        finally:
            asking.cancel()
            to_client.close()
            to_server.close()

    async def _ask(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        """Until it said what is wanted, or leaves."""
        while said := await client.read(GREEDY):
            found = bool(self.wanted) and self.wanted in said
            if found and self.silent:
                await asyncio.Event().wait()
            to_server.write(said)
            if found:
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
        for task in proxy.serving:
            task.cancel()
        await asyncio.gather(*proxy.serving, return_exceptions=True)
