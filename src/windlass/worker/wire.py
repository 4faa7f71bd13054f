"""Messages between two of our processes over a socket: tagged structs in msgpack, each behind its length.

`Channel` is the end that lives in an event loop, `Pipe` the end that may block. The types that an end expects are
given when it opens, as a struct or a union of structs.
"""

import asyncio
import logging
import socket
import threading
from collections import deque
from struct import Struct as Format
from typing import Any

import msgspec

logger = logging.getLogger("windlass.worker")

_LENGTH = Format("!I")
_CHUNK = 64 * 1024
_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """One message as it goes over the wire."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Reader:
    """Cuts a stream of bytes into messages of the expected types."""

    def __init__(self, kind: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that `data` completes. Raises `msgspec.DecodeError` if the other end talks nonsense."""
        rest = self._rest
        rest += data
        messages = []
        at = 0
        with memoryview(rest) as view:
            while len(rest) - at >= _LENGTH.size:
                end = at + _LENGTH.size + _LENGTH.unpack_from(rest, at)[0]
                if end > len(rest):
                    break
                messages.append(self._decoder.decode(view[at + _LENGTH.size : end]))
                at = end
        del rest[:at]
        return messages


class Channel(asyncio.Protocol):
    """An end in an event loop. Iterating over it gives what comes in, until the other end is closed."""

    def __init__(self, kind: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(kind)
        self._inbox: deque[Any] = deque()
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._transport: Any = None  # uvloop's transports share no type with asyncio's

    @classmethod
    async def open(cls, sock: socket.socket, kind: Any) -> "Channel":
        """Take over a connected socket; `kind` is what the other end says."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(kind), sock=sock)
        return channel

    def send(self, message: msgspec.Struct) -> None:
        """Say something; nothing happens if the other end is gone."""
        if not self._closed:
            self._transport.write(encode(message))

    async def flush(self) -> None:
        """Wait until all that was sent is out, or the other end is gone."""
        if self._flushed is not None:
            await asyncio.shield(self._flushed)

    async def receive(self) -> Any:
        """The next message; None when the other end is closed."""
        while not self._inbox:
            if self._closed:
                return None
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._inbox.popleft()

    def __aiter__(self) -> "Channel":
        return self

    async def __anext__(self) -> Any:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    def close(self) -> None:
        """Close this end, at once for who receives here; what was sent still goes out."""
        self._end()
        self._transport.close()

    def _end(self) -> None:
        self._closed = True
        self._wake()
        self.resume_writing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by the event loop

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        try:
            self._inbox.extend(self._reader.feed(data))
        except msgspec.DecodeError as error:
            logger.error("a process of ours sent what nobody understands, so it is cut off: %s", error)
            self._end()
            self._transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def pause_writing(self) -> None:
        self._flushed = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
        self._flushed = None


class Pipe:
    """An end that blocks. Any thread may send; one receives."""

    def __init__(self, sock: socket.socket, kind: Any) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._reader = Reader(kind)
        self._inbox: deque[Any] = deque()
        self._sending = threading.Lock()

    def send(self, message: msgspec.Struct) -> None:
        """Say something. Raises `OSError` if the other end is gone."""
        with self._sending:
            self._sock.sendall(encode(message))

    def receive(self) -> Any:
        """Wait for the next message; None when the other end is closed."""
        while not self._inbox:
            try:
                data = self._sock.recv(_CHUNK)
            except OSError:
                return None
            if not data:
                return None
            self._inbox.extend(self._reader.feed(data))
        return self._inbox.popleft()

    def close(self) -> None:
        """Close this end."""
        self._sock.close()
