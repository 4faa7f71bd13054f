"""A small HTTP server for the supervisor: a table of paths, each with an answer that is ready at once, or soon."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h11
import msgspec

logger = logging.getLogger("windlass.worker")

PATIENCE = 5.0
"""Seconds that one request may take to arrive, and its answer to leave."""

MOST = 100
"""Connections at a time; those beyond are closed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes
    kind: str = "application/json"


Route = Callable[[], Answer | Awaitable[Answer]]
Routes = Mapping[str, Route]


def as_json(status: int, value: Any) -> Answer:
    """A value as JSON."""
    return Answer(status, msgspec.json.encode(value) + b"\n")


class Server:
    """Answers GET and HEAD for the paths in `routes`, one request per connection."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._open = 0

    async def open(self, host: str | None, port: int) -> None:
        """Listen there; on every address without a host. Raises `OSError`."""
        self._server = await asyncio.start_server(self._serve, host, port)

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST:
                async with asyncio.timeout(PATIENCE):
                    writer.write(await self._reply(reader))
                    await writer.drain()
        except (OSError, TimeoutError):
            pass
        finally:
            self._open -= 1
            with contextlib.suppress(RuntimeError):
                writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        """The bytes that answer what arrives; none if the other end goes away."""
        connection = h11.Connection(h11.SERVER)
        method = b"GET"
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(4096))
            if not isinstance(event, h11.Request):
                return b""
            method = event.method
            answer = await self._answer(method, event.target.partition(b"?")[0].decode("ascii"))
        except h11.RemoteProtocolError as error:
            answer = as_json(error.error_status_hint, {"error": str(error)})
        headers = [("content-type", answer.kind), ("content-length", str(len(answer.body))), ("connection", "close")]
        said = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        return said + (b"" if method == b"HEAD" else answer.body)

    async def _answer(self, method: bytes, path: str) -> Answer:
        if path not in self._routes:
            return as_json(404, {"error": f"expected one of {', '.join(self._routes)}; {path} came"})
        if method not in (b"GET", b"HEAD"):
            return as_json(405, {"error": f"expected GET or HEAD; {method.decode('ascii')} came"})
        try:
            answer = self._routes[path]()
            return await answer if inspect.isawaitable(answer) else answer
        except Exception:
            logger.exception("%s cannot be answered", path)
            return as_json(500, {"error": "this cannot be answered; the worker's log says why"})
