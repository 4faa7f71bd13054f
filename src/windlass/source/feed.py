"""What a transport has to offer a bridge: connect, read a batch, acknowledge it. And what all of them need for that."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from windlass.config import complaint, masked, split_url
from windlass.discreet import Discreet
from windlass.errors import ConfigError


class Message(Discreet, frozen=True, kw_only=True):
    """One message. `identity` is what tells it from all others of its source, in every delivery of it; None where the
    transport has no such thing. `extra` is what else a task may want to know. `handle` acknowledges it."""

    body: bytes
    identity: str | None = None
    topic: str = ""
    key: str | None = None
    headers: Mapping[str, Any] = {}
    redelivered: bool = False
    extra: Mapping[str, Any] = {}
    handle: Any = None


Identify = Callable[[Message], str | None]


class Address(Struct, frozen=True, kw_only=True):
    """A source's URL in parts. `path` are its segments, the last of them the queue, stream, topic or channel."""

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    path: tuple[str, ...]
    options: Mapping[str, str]
    url: str
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return masked(self.url)

    @property
    def last(self) -> str:
        """The last segment of the path."""
        return self.path[-1] if self.path else ""

    def end(self, *, expected: str, least: int = 1, most: int = 1) -> None:
        """Raise `ConfigError` unless it names one server, and from `least` to `most` segments."""
        if not self.hosts[0][0] or not least <= len(self.path) <= most:
            raise ConfigError(f"expected a source as {expected}; {self!r} came")


def parse(url: str) -> Address:
    """The parts of a source's URL. Raises `ConfigError`."""
    try:
        parts = split_url(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        path = f"{parts.path}#{parts.fragment}" if "#" in url else parts.path  # `#` is a wildcard in topics
        return Address(
            scheme=parts.scheme,
            hosts=tuple(host_of(host) for host in hosts.split(",")),
            path=tuple(unquote(part) for part in path.removeprefix("/").split("/") if part),
            options=dict(parse_qsl(parts.query, keep_blank_values=True)),
            url=url,
            user=unquote(user) or None,
            password=unquote(password) or None,
        )
    except ValueError as error:
        raise ConfigError(f"the URL {masked(url)} of a source cannot be read: {complaint(url, error)}") from None


def host_of(text: str) -> tuple[str, int | None]:
    """A host and its port. Raises `ValueError`."""
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    return host.strip("[]"), int(port) if port else None


class Feed:
    """One connection to a transport, made anew after every failure. Any method may raise anything: then it is closed.

    `holds`: it stays connected while its source may not read. `alone`: of all workers one may be connected at a time.
    `text`: what comes is text by nature, not JSON.
    """

    holds = False
    alone = False
    text = False

    def __init__(self, address: Address, name: str) -> None:
        self.address = address
        self.name = name

    async def open(self) -> None:
        """Connect."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect; what was not acknowledged is delivered again. Also after a failed `open`."""
        raise NotImplementedError

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        """At most `most` messages, as many as are there; waits `wait` seconds for the first."""
        raise NotImplementedError

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Say that jobs of these messages are stored; they are the last that were read, in order."""
        raise NotImplementedError

    async def refuse(self, messages: Sequence[Message]) -> None:
        """Say of some of these, before they are acknowledged, that their jobs do not hold them: for brokers that put
        such messages aside."""


class Inbox:
    """What a library pushes, until it is read. May be made outside of an event loop."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._error: Exception | None = None
        self._rung = asyncio.Event()

    def put(self, message: Message) -> None:
        """Take a message."""
        self._messages.append(message)
        self._rung.set()

    def fail(self, error: BaseException | None) -> None:
        """The connection is gone: whoever reads is told."""
        told = error if isinstance(error, Exception) else ConnectionError("the connection was closed")
        self._error = self._error or told
        self._rung.set()

    async def read(self, most: int, wait: float) -> list[Message]:
        """As `Feed.read`."""
        if not (self._messages or self._error):
            self._rung.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._rung.wait()
        if self._error:
            raise self._error
        return [self._messages.popleft() for _ in range(min(most, len(self._messages)))]


def plain(value: Any) -> Any:
    """A header's value as JSON holds it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def headers_of(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Headers by name; of several with one name the last."""
    return {str(plain(name)): plain(value) for name, value in pairs}


def library(name: str) -> Any:
    """A client library, imported when it is first needed."""
    return import_module(name)
