"""The way to the server for one event loop: a few connections, every call bounded in time and tried again."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from redis import exceptions
from redis.asyncio import Connection, SSLConnection

from windlass.errors import StoreUnavailable
from windlass.store.redis.url import Address, Target
from windlass.store.redis.wire import (
    ASK_WITHIN,
    CONNECT_WITHIN,
    PATIENCE,
    Argument,
    Plain,
    Request,
    Tries,
    find_master,
    logins,
)

CONNECTIONS = 16
"""The most calls that are under way at once; others wait their turn."""

FAILURES = (exceptions.RedisError, OSError, EOFError)


class Link:
    """Connections to the one server that has the app's keys, wherever that is at the moment."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.closed = False
        self._address: Address | None = None
        self._known: set[Address] = set()
        self._idle: list[Connection] = []
        self._gate = asyncio.Semaphore(CONNECTIONS)

    async def ask(self, *words: Argument) -> Any:
        """The answer to an ordinary command. Raises `StoreUnavailable`; an error that the server answers as it is."""
        return await self.run(Plain(words))

    async def run(self, request: Request | Plain, timeout: float = PATIENCE) -> Any:
        """The answer to a request within `timeout` seconds. Raises `StoreUnavailable`."""
        tries = Tries(self.target, timeout, request)
        try:
            async with asyncio.timeout(timeout), self._gate:
                return await self._try(tries)
        except TimeoutError:
            await self.forget()
            raise tries.over() from None

    async def _try(self, tries: Tries) -> Any:
        while True:
            try:
                connection = await self._take(fresh=not tries.request.repeatable)
            except FAILURES as error:
                pause = tries.failed(error, sent=False)
            else:
                try:
                    return await self._talk(connection, tries.request)
                except FAILURES as error:
                    pause = tries.failed(error, sent=True)
            await self.forget()
            await asyncio.sleep(pause)

    async def _talk(self, connection: Connection, request: Request | Plain) -> Any:
        try:
            answer = await self._answer(connection, request)
        except exceptions.ResponseError:
            self._idle.append(connection)
            raise
        except BaseException as error:
            # no answer came: also when the caller gave up, the server may have done it
            request.sent = request.sent or not isinstance(error, exceptions.RedisError)
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        return answer

    async def _answer(self, connection: Connection, request: Request | Plain) -> Any:
        try:
            await connection.send_packed_command(request.packed(), check_health=False)
            return await connection.read_response(disable_decoding=True)
        except exceptions.NoScriptError:
            await connection.send_packed_command(request.packed(whole=True), check_health=False)
            return await connection.read_response(disable_decoding=True)

    async def _take(self, fresh: bool) -> Connection:
        if self.closed:
            raise StoreUnavailable("the store is closed; open it again before using it")
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not is_over(connection):
                return connection
            await connection.disconnect(nowait=True)
        return await self.connect()

    async def connect(self) -> Connection:
        """A new connection to the server that has the app's keys."""
        if self._address is None:
            self._address = await self._find()
        try:
            return await self._dial(self._address, self.target.login)
        except FAILURES:
            self._address = None
            raise

    async def _dial(self, address: Address, login: dict[str, Any]) -> Connection:
        host, port = address
        kind = SSLConnection if self.target.tls else Connection
        connection = kind(
            host=host, port=port, socket_timeout=None, socket_connect_timeout=CONNECT_WITHIN, protocol=2, **login
        )
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await connection.connect()  # type: ignore[no-untyped-call]
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise exceptions.ConnectionError(f"{host}:{port} did not answer within {CONNECT_WITHIN:g} s") from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _find(self) -> Address:
        search = find_master(self.target, self._known)
        try:
            address, words = next(search)
            while True:
                address, words = search.send(await self._question(address, words))
        except StopIteration as end:
            found: Address = end.value
            return found

    async def _question(self, address: Address, words: Sequence[str]) -> Any:
        for login in logins(self.target):
            with contextlib.suppress(*FAILURES, TimeoutError):
                async with asyncio.timeout(ASK_WITHIN):
                    connection = await self._dial(address, login)
                    try:
                        return await self._answer(connection, Plain(words))
                    finally:
                        await connection.disconnect(nowait=True)
        return None

    async def forget(self) -> None:
        """Look anew for the server, on new connections."""
        self._address = None
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    async def close(self) -> None:
        """Let go of all connections, even those of an event loop that is over."""
        self.closed = True
        while self._idle:
            with contextlib.suppress(RuntimeError, *FAILURES):
                await self._idle.pop().disconnect()


def is_over(connection: Connection) -> bool:
    """Whether the server has ended a connection that nobody uses: what is sent there now is surely not done."""
    reader = connection._reader
    return reader is None or reader.at_eof()
