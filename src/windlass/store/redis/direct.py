"""The way to the server for blocking callers, on their own threads: bounded in time like the other."""

import contextlib
import select
import threading
import time
from collections.abc import Sequence
from typing import Any

from redis import Connection, SSLConnection, exceptions

from windlass.errors import StoreUnavailable
from windlass.store.redis.url import Address, Target
from windlass.store.redis.wire import ASK_WITHIN, CONNECT_WITHIN, Plain, Request, Tries, find_master, logins

Line = Any
"""A `Connection`: the driver's blocking one has no types on its methods."""

FAILURES = (exceptions.RedisError, OSError, EOFError)


class Direct:
    """Connections that threads borrow, each call with a time limit of its own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.closed = False
        self._lock = threading.Lock()
        self._address: Address | None = None
        self._known: set[Address] = set()
        self._idle: list[Line] = []

    def run(self, request: Request, timeout: float) -> Any:
        """The answer to a request within `timeout` seconds. Raises `StoreUnavailable`; `request.sent` tells whether
        it may have been carried out all the same."""
        tries = Tries(self.target, timeout, request)
        while True:
            try:
                connection = self._take(tries.left)
            except FAILURES as error:
                pause = tries.failed(error, sent=False)
            else:
                try:
                    return self._talk(connection, request, tries.left)
                except FAILURES as error:
                    pause = tries.failed(error, sent=True)
            self.forget()
            time.sleep(pause)

    def _talk(self, connection: Line, request: Request, left: float) -> Any:
        try:
            answer = self._answer(connection, request, left)
        except exceptions.ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append(connection)
        return answer

    def _answer(self, connection: Line, request: Request | Plain, left: float) -> Any:
        set_timeout(connection, left)
        try:
            connection.send_packed_command([request.packed()], check_health=False)
            return connection.read_response(disable_decoding=True)
        except exceptions.NoScriptError:
            connection.send_packed_command([request.packed(whole=True)], check_health=False)
            return connection.read_response(disable_decoding=True)

    def _take(self, left: float) -> Line:
        if self.closed:
            raise StoreUnavailable("the store is closed; open it again before using it")
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not is_over(connection):
                    return connection
                connection.disconnect()
        address = self._address
        if address is None:
            address = self._address = self._find(left)
        return self._dial(address, self.target.login, min(CONNECT_WITHIN, left))

    def _dial(self, address: Address, login: dict[str, Any], timeout: float) -> Line:
        host, port = address
        kind = SSLConnection if self.target.tls else Connection
        limit = max(0.01, timeout)
        connection: Line = kind(
            host=host, port=port, socket_timeout=limit, socket_connect_timeout=limit, protocol=2, **login
        )
        connection.connect()
        return connection

    def _find(self, left: float) -> Address:
        search = find_master(self.target, self._known)
        try:
            address, words = next(search)
            while True:
                address, words = search.send(self._question(address, words, min(ASK_WITHIN, left)))
        except StopIteration as end:
            found: Address = end.value
            return found

    def _question(self, address: Address, words: Sequence[str], left: float) -> Any:
        for login in logins(self.target):
            with contextlib.suppress(*FAILURES), contextlib.ExitStack() as stack:
                connection = self._dial(address, login, left)
                stack.callback(connection.disconnect)
                return self._answer(connection, Plain(words), left)
        return None

    def forget(self) -> None:
        """Look anew for the server, on new connections."""
        with self._lock:
            self._address = None
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.disconnect()

    def close(self) -> None:
        """Let go of all connections."""
        self.closed = True
        self.forget()


def set_timeout(connection: Line, left: float) -> None:
    """Let each step of sending and reading take at most that long."""
    if connection._sock is None:
        raise exceptions.ConnectionError("the connection is closed")
    connection._sock.settimeout(max(0.01, left))


def is_over(connection: Line) -> bool:
    """Whether the server has ended a connection that nobody uses: what is sent there now is surely not done."""
    if connection._sock is None:
        return True
    look = select.poll()
    look.register(connection._sock, select.POLLIN)
    return bool(look.poll(0))
