"""A way to a server that can be cut, blocked or slow, or lose an answer: TCP, in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Self

PIECE = 65_536


class Proxy:
    """Listens on a port of this host and passes on to another. The attributes may be set at any time.

    `up` and `down`: whether bytes from clients, and answers to them, pass; what does not is kept. `delay`: seconds that
    each piece waits. `open`: whether new connections are taken; a refused one is reset.

    `wanted`: bytes of a client that pass, once, but instead of the answer the connection ends, counted in `swallowed`;
    with `silent` not even they pass, and nothing ends: that network is cut.
    """

    def __init__(self, port: int) -> None:
        self.up = self.down = self.open = True
        self.delay = 0.0
        self.wanted = b""
        self.silent = False
        self.swallowed = 0
        self.port = 0
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._run, name=f"proxy-{port}", daemon=True).start()
        assert self._ready.wait(10), "the proxy does not listen"

    def cut(self) -> None:
        """Reset every connection."""
        self._call(self._abort)

    def close(self) -> None:
        """Stop."""
        self._call(self._loop.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, what: Callable[[], Any]) -> None:
        done = threading.Event()

        def do() -> None:  # in one step: the loop may be closed after it
            what()
            done.set()

        self._loop.call_soon_threadsafe(do)
        done.wait(10)

    def _abort(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._abort()
        for task in (left := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self.open:
                writer.transport.abort()
                return
            there, onward = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(onward)
            try:
                said = asyncio.Event()
                ways = [
                    asyncio.ensure_future(self._pass(reader, onward, "up", said)),
                    asyncio.ensure_future(self._pass(there, writer, "down", said)),
                ]
                _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in left:
                    way.cancel()
            finally:
                self._writers.discard(onward)
                onward.close()
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str, said: asyncio.Event
    ) -> None:
        """One way of a connection, on which what is wanted may be `said`."""
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                if way == "down" and said.is_set():
                    self.swallowed += 1
                    return
                found = way == "up" and bool(self.wanted) and self.wanted in data
                if found and self.silent:
                    await asyncio.Event().wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                while not getattr(self, way):
                    await asyncio.sleep(0.01)
                writer.write(data)
                if found:
                    self.wanted = b""
                    said.set()
                await writer.drain()
