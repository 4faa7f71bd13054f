"""Connections to the server: kept for the next call, replaced when they break, and never waited for without end."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection, waiting
from psycopg.abc import PQGen
from psycopg.pq.abc import PGcancel

from windlass.errors import Conflict, Evicted, StoreError, StoreUnavailable
from windlass.store.postgres.statements import Call
from windlass.store.postgres.target import STATEMENT_TIMEOUT, Target

RV = TypeVar("RV")
Rows = list[tuple[Any, ...]]

PATIENCE = 5.0
"""Seconds that one call may take in all, with its repetitions."""

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds before a call that failed for a passing reason is repeated."""

MOST = 16
"""The most connections of one event loop, or of all blocking callers of a process."""

OWN_ERRORS: dict[str, type[StoreError]] = {"WL001": Evicted, "WL002": Conflict}
PASSING = frozenset({"40001", "40P01", "55P03", "25006", "53300", "57014"})
"""Serialization, deadlock, lock timeout, a server that became a replica, too many connections, statement timeout."""

OUTDATED = frozenset({"0A000", "26000", "42P05"})
"""What was prepared on this connection is of another time or of another session: a migration, a pooler after all."""

NO_SCHEMA = frozenset({"42P01", "42883", "3F000", "42704"})


class Unanswered(Exception):
    """The call may have been carried out: its answer did not come in time."""


class Pooler(Exception):
    """The other side is a pooler, which keeps no state between transactions."""


class Tries:
    """The repetitions of one call: whether there is another one, and after which pause. One that is not `repeatable` is
    never made again when it may have been carried out."""

    def __init__(self, target: Target, patience: float, *, repeatable: bool = True) -> None:
        self.until = time.monotonic() + patience
        self._repeatable = repeatable
        self._target = target
        self._patience = patience
        self._pause = FIRST_PAUSE
        self._sent = False

    def failed(self, error: psycopg.Error, *, sent: bool) -> float:
        """Seconds to wait before the next try. Raises what the caller shall see if there is none."""
        if error.sqlstate in OWN_ERRORS:
            raise OWN_ERRORS[error.sqlstate](error.diag.message_primary or str(error)) from None
        lost = error.sqlstate is None or error.sqlstate[:2] == "08" or error.sqlstate[:3] == "57P"
        self._sent |= sent and lost
        passing = lost and isinstance(error, psycopg.OperationalError)
        final = not (passing or error.sqlstate in PASSING | OUTDATED) or (self._sent and not self._repeatable)
        if final or time.monotonic() + self._pause >= self.until:
            raise self._end(error) from error
        pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * 2)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load

    def _end(self, error: psycopg.Error) -> Exception:
        if self._sent:
            return Unanswered(str(error))
        text = " ".join((error.diag.message_primary or str(error)).split()) or f"no answer within {self._patience:g} s"
        if error.sqlstate in NO_SCHEMA:
            text += ". The schema is missing or older than this Windlass: run windlass migrate"
        return StoreUnavailable(f"PostgreSQL at {self._target.place} did not do it; nothing was written: {text}")


class BoundConnection(Connection[Any]):
    """A connection whose waits end at `until` (monotonic), and which then is of no use any more."""

    until: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=remaining(self.until, timeout))
        except BaseException as error:
            if is_broken(error):
                self.pgconn.finish()
            raise


class BoundAsyncConnection(AsyncConnection[Any]):
    """The same for an event loop. A cancelled call drops its connection: asking a dead server to cancel takes long."""

    until: float | None = None

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=remaining(self.until, timeout)
            )
        except BaseException as error:
            if is_broken(error):
                self.pgconn.finish()
            raise


def is_broken(error: BaseException) -> bool:
    """Whether a connection is of no use after that."""
    return not isinstance(error, psycopg.DatabaseError) or error.sqlstate is None or error.sqlstate in OUTDATED


def remaining(until: float | None, timeout: float | None) -> float | None:
    """Seconds that a wait may take."""
    limits = [limit for limit in (left(until), timeout) if limit is not None]
    return min(limits, default=None)


def left(until: float | None) -> float | None:
    """Seconds left until a moment (monotonic); None: no limit."""
    return None if until is None else max(0.0, until - time.monotonic())


class Ways:
    """How to connect to one target: directly, or through a pooler, which takes no session settings."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.pooled = False

    def settings(self, conninfo: str | None = None) -> dict[str, Any]:
        """What a connection, to `conninfo` if it is another one, is made with."""
        there = conninfo or self.target.conninfo
        given: dict[str, Any] = {"conninfo": there, "autocommit": True, "prepare_threshold": None}
        if (conninfo or not self.pooled) and "options=" not in there:
            given["options"] = f"-c statement_timeout={STATEMENT_TIMEOUT}"
        return given

    async def listener(self) -> "BoundAsyncConnection":
        """A connection to listen on. Raises `Pooler`, `psycopg.OperationalError`."""
        assert self.target.listen
        try:
            return await BoundAsyncConnection.connect(**self.settings(self.target.listen))
        except psycopg.OperationalError as error:
            if is_pooler(error):
                raise Pooler from None
            raise

    def is_pooler(self, error: psycopg.Error) -> bool:
        """Whether the other side has just told that it is a pooler; from then on we know."""
        if self.pooled or not is_pooler(error):
            return False
        self.pooled = True
        return True


def is_pooler(error: psycopg.Error) -> bool:
    """Whether that is how PgBouncer refuses a session's settings."""
    return "unsupported startup parameter" in str(error)


WHO = "SELECT pg_backend_pid()"


def threshold(info: psycopg.ConnectionInfo, seen: tuple[Any, ...] | None) -> int | None:
    """After how many calls a statement is prepared. Never when the server that answered `WHO` is another than the one
    that took the connection: a pooler stands between, and the next call may reach yet another one."""
    return 3 if seen == (info.backend_pid,) else None


@contextlib.contextmanager
def ended_on_cancel(connection: AsyncConnection[Any]) -> Iterator[None]:
    """Have the server end what it does for a block that is cancelled; nobody waits for that: it may be dead."""
    running = connection.pgconn.get_cancel()
    try:
        yield
    except asyncio.CancelledError:
        threading.Thread(target=end_quietly, args=(running,), name="windlass-cancel", daemon=True).start()
        raise


def end_quietly(running: PGcancel) -> None:
    """Have the server end a statement, if it can be reached."""
    with contextlib.suppress(psycopg.Error):
        running.cancel()


class AsyncLink:
    """Connections of one event loop."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._idle: list[BoundAsyncConnection] = []
        self._free = asyncio.Semaphore(MOST)
        self._closed = False

    async def rows(
        self,
        first: Call,
        then: Callable[[], Call] | None = None,
        *,
        patience: float = PATIENCE,
        repeatable: bool = True,
        only_reads: bool = False,
    ) -> Rows:
        """The rows of a call, repeated (as `then` says, if given) while the reason why it failed may pass. One that
        `only_reads` ends on the server too when whoever asked does not wait any longer.

        Raises `StoreUnavailable` when nothing was written, `Unanswered` when that cannot be told.
        """
        tries, call = Tries(self._ways.target, patience, repeatable=repeatable), first
        while True:
            sent = False
            try:
                async with self._connection(tries.until) as connection:
                    sent = True
                    with ended_on_cancel(connection) if only_reads else contextlib.nullcontext():
                        cursor = await connection.execute(call.sql, call.params)
                        return await cursor.fetchall()
            except psycopg.Error as error:
                pause = tries.failed(error, sent=sent)
                call = then() if then else first
            await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def _connection(self, until: float | None) -> AsyncIterator[BoundAsyncConnection]:
        self._refuse_closed()
        try:
            async with asyncio.timeout(left(until)):
                await self._free.acquire()
        except TimeoutError:
            raise psycopg.OperationalError(f"all {MOST} connections of this process are busy") from None
        try:
            connection = await self._take(until)
            connection.until = until
            try:
                yield connection
            except psycopg.Error:
                if connection.closed:
                    self._drop_idle()
                raise
            finally:
                if self._closed:
                    await connection.close()
                elif not connection.closed:
                    self._idle.append(connection)
        finally:
            self._free.release()

    async def _take(self, until: float | None) -> BoundAsyncConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return await self.connect(until)

    async def connect(self, until: float | None = None) -> BoundAsyncConnection:
        """A new connection. Raises `psycopg.OperationalError`."""
        try:
            async with asyncio.timeout(left(until)):
                connection = await BoundAsyncConnection.connect(**self._ways.settings())
                if not self._ways.pooled:
                    seen = await (await connection.execute(WHO)).fetchone()
                    connection.prepare_threshold = threshold(connection.info, seen)
                return connection
        except TimeoutError:
            raise psycopg.OperationalError("the server did not take a connection in time") from None
        except psycopg.OperationalError as error:
            if self._ways.is_pooler(error):
                return await self.connect(until)
            raise

    def _drop_idle(self) -> None:
        """Forget the other connections when one broke: the server was restarted, or a failover happened."""
        for connection in self._idle:
            connection.pgconn.finish()
        self._idle.clear()

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        self._closed = True
        for connection in self._idle:
            await connection.close()
        self._idle.clear()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is not open")


class BlockingLink:
    """Connections of the threads of a process that store jobs without an event loop."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._idle: list[BoundConnection] = []
        self._free = threading.Semaphore(MOST)
        self._closed = False

    def rows(self, first: Call, then: Callable[[], Call] | None, patience: float) -> Rows:
        """As `AsyncLink.rows`, on the caller's own thread."""
        tries, call = Tries(self._ways.target, patience), first
        while True:
            sent = False
            try:
                with self._connection(tries.until) as connection:
                    sent = True
                    return connection.execute(call.sql, call.params).fetchall()
            except psycopg.Error as error:
                pause = tries.failed(error, sent=sent)
                call = then() if then else first
            time.sleep(pause)

    @contextlib.contextmanager
    def _connection(self, until: float | None) -> Iterator[BoundConnection]:
        if self._closed:
            raise StoreUnavailable("the store is not open")
        if not self._free.acquire(timeout=left(until)):
            raise psycopg.OperationalError(f"all {MOST} connections of this process are busy")
        try:
            connection = self._take(until)
            connection.until = until
            try:
                yield connection
            finally:
                if connection.closed:
                    self.drop_idle()
                elif self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)
        finally:
            self._free.release()

    def _take(self, until: float | None) -> BoundConnection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect(until)
            if not connection.closed:
                return connection

    def _connect(self, until: float | None) -> BoundConnection:
        """A new connection, made on a thread of its own: libpq counts in whole seconds, and from two on."""
        made: list[BoundConnection | Exception] = []
        given_up = threading.Event()

        def make() -> None:
            try:
                connection = BoundConnection.connect(**self._ways.settings())
                if not self._ways.pooled:
                    connection.prepare_threshold = threshold(connection.info, connection.execute(WHO).fetchone())
                made.append(connection)
            except Exception as error:
                made.append(error)
            if given_up.is_set() and isinstance(made[0], BoundConnection):
                made[0].close()

        thread = threading.Thread(target=make, name="windlass-connect", daemon=True)
        thread.start()
        thread.join(left(until))
        if thread.is_alive():
            given_up.set()
            raise psycopg.OperationalError("the server did not take a connection in time")
        (connection,) = made
        if isinstance(connection, psycopg.OperationalError) and self._ways.is_pooler(connection):
            return self._connect(until)
        if isinstance(connection, Exception):
            raise connection
        return connection

    def drop_idle(self) -> None:
        """Forget the other connections when one broke."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        self._closed = True
        self.drop_idle()
