"""The connections and sessions of other libraries, as `tx=` takes them.

They are recognised by the names of their classes, so that no library is imported that the user did not import before.
"""

import sqlite3
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from windlass.errors import ConfigError
from windlass.options import short
from windlass.store.tx import Start, Statement, Step, adrive, drive

T = TypeVar("T")
Hint = Callable[[], None]

FITS = (
    "a SQLAlchemy Session or Connection (or an async one), a psycopg 3 or asyncpg connection, a Django alias such as "
    '"default", or a sqlite3 or aiosqlite connection'
)
INSTEAD = {
    "Engine": "give a connection of it: `with engine.begin() as connection`",
    "AsyncEngine": "give a connection of it: `async with engine.begin() as connection`",
    "sessionmaker": "give a session of it: `with Session.begin() as session`",
    "async_sessionmaker": "give a session of it: `async with Session.begin() as session`",
    "ConnectionPool": "give a connection of it: `with pool.connection() as connection`",
    "AsyncConnectionPool": "give a connection of it: `async with pool.connection() as connection`",
    "Pool": "give a connection of it: `async with pool.acquire() as connection`",
    "Cursor": "give its connection",
    "AsyncCursor": "give its connection",
}


class Mismatch(Exception):
    """The connection speaks with another engine than the one the statement is for."""


_hints: "WeakKeyDictionary[Any, set[Hint]]" = WeakKeyDictionary()
"""What shall be called after the commit of a session, or of a connection of ours."""


def watch(tx: Any) -> set[Hint]:
    """Collect hints for whoever will tell of the commit."""
    return _hints.setdefault(tx, set())


def watched(tx: Any) -> set[Hint] | None:
    """The hints of a connection that somebody watches."""
    try:
        return _hints.get(tx)
    except TypeError:  # not one that can be watched
        return None


def committed(tx: Any) -> None:
    """It is committed: give the hints."""
    for hint in _hints.pop(tx, ()):
        hint()


class Link:
    """One connection of the user's own. It runs steps in the transaction that is open there; it never ends it."""

    def __init__(self, tx: Any) -> None:
        self._db = tx

    def anchor(self) -> object:
        """What stands for the database."""

    def refuse_closed(self) -> None:
        """Raise `ConfigError` when no transaction is open, and none would be begun."""

    def run(self, step: Step) -> Any:
        """The rows of a statement, or what to await for them."""

    def on_commit(self, hint: Hint) -> None:
        """Call `hint` after the commit, where somebody tells of it."""
        if (hints := watched(self._db)) is not None:
            hints.add(hint)


class SyncLink(Link):
    """One that blocks."""

    def drive(self, start: Start[T], hint: Hint) -> T:
        """Run steps; `hint` is for after the commit."""
        self.refuse_closed()
        done = drive(start(self.anchor()), self.run)
        self.on_commit(hint)
        return done


class AsyncLink(Link):
    """One that is awaited."""

    async def adrive(self, start: Start[T], hint: Hint) -> T:
        """Run steps; `hint` is for after the commit."""
        self.refuse_closed()
        done = await adrive(start(self.anchor()), self.run)
        self.on_commit(hint)
        return done


def statement(step: Step, engine: str) -> Statement:
    """A step as a statement for a server."""
    if callable(step):
        raise Mismatch(engine)
    return step


def run_on_file(step: Step, db: sqlite3.Connection) -> Any:
    """Do a step on a SQLite connection."""
    if not callable(step):
        raise Mismatch("SQLite")
    return step(db)


def refuse_autocommit(how: str) -> NoReturn:
    """Raise the error of a connection that commits each statement by itself."""
    raise ConfigError(f"tx= needs an open transaction; on this connection none is open. Begin one: {how}")


# SQLite


class Sqlite3Link(SyncLink):
    """The standard library's connection."""

    def run(self, step: Step) -> Any:
        return run_on_file(step, self._db)


class AiosqliteLink(AsyncLink):
    """A connection that lives in a thread of its own."""

    def run(self, step: Step) -> Any:
        return self._db._execute(run_on_file, step, self._db._conn)


# PostgreSQL drivers


class PsycopgLink(SyncLink):
    """psycopg 3."""

    def anchor(self) -> object:
        return self._db

    def refuse_closed(self) -> None:
        if self._db.autocommit and not self._db.info.transaction_status:
            refuse_autocommit("`with connection.transaction()`")

    def run(self, step: Step) -> Any:
        from psycopg import Cursor
        from psycopg.rows import tuple_row

        call = statement(step, "PostgreSQL")
        with Cursor(self._db, row_factory=tuple_row) as cursor:
            cursor.execute(call.sql, call.params)
            return cursor.fetchall() if cursor.description else []


class AsyncPsycopgLink(AsyncLink):
    """psycopg 3, asynchronous."""

    anchor = PsycopgLink.anchor
    refuse_closed = PsycopgLink.refuse_closed

    async def run(self, step: Step) -> Any:
        from psycopg import AsyncCursor
        from psycopg.rows import tuple_row

        call = statement(step, "PostgreSQL")
        async with AsyncCursor(self._db, row_factory=tuple_row) as cursor:
            await cursor.execute(call.sql, call.params)
            return await cursor.fetchall() if cursor.description else []


class AsyncpgLink(AsyncLink):
    """asyncpg: a connection, or what its pool gives out."""

    def anchor(self) -> object:
        return getattr(self._db, "_con", self._db)

    def refuse_closed(self) -> None:
        if not self._db.is_in_transaction():
            refuse_autocommit("`async with connection.transaction()`")

    async def run(self, step: Step) -> Any:
        call = statement(step, "PostgreSQL")
        return [tuple(row) for row in await self._db.fetch(numbered(call.sql), *call.params)]


def numbered(sql: str) -> str:
    """A statement with $1, $2 … for its %s."""
    first, *rest = sql.replace("%s::json", "%s::text::json").split("%s")  # a codec for json must not see our text
    return "".join((first, *(f"${at}{part}" for at, part in enumerate(rest, 1)))).replace("%%", "%")


# SQLAlchemy


class ConnectionLink(SyncLink):
    """A SQLAlchemy Connection, on any driver that it has for our databases."""

    def anchor(self) -> object:
        return self._db.engine

    def refuse_closed(self) -> None:
        if self._db.dialect.name != "sqlite" and self._db.connection.dbapi_connection.autocommit is True:
            refuse_autocommit("take the isolation level AUTOCOMMIT off this connection")

    def run(self, step: Step) -> Any:
        dialect = self._db.dialect
        if not self._db.in_transaction():
            self._db.begin()  # as its own first statement would; else its commit() would do nothing
        if dialect.name == "sqlite":
            return self._run_on_file(step)
        call = statement(step, dialect.name)
        if dialect.name != "postgresql":
            raise Mismatch(dialect.name)
        if dialect.paramstyle == "numeric_dollar":
            rows = self._db.exec_driver_sql(numbered(call.sql), tuple(call.params))
        else:
            rows = self._db.exec_driver_sql(call.sql, tuple(call.params))
        return [tuple(row) for row in rows] if rows.returns_rows else []

    def _run_on_file(self, step: Step) -> Any:
        raw = self._db.connection
        if not self._db.dialect.is_async:
            return run_on_file(step, raw.driver_connection)
        return raw.dbapi_connection.run_async(lambda db: AiosqliteLink(db).run(step))


class SessionLink(ConnectionLink):
    """A SQLAlchemy Session; it tells of its commits."""

    def __init__(self, tx: Any) -> None:
        from sqlalchemy.exc import UnboundExecutionError

        self._session = tx
        try:
            super().__init__(tx.connection())
        except UnboundExecutionError as error:
            raise ConfigError(
                "this session has several databases and does not say which one is meant: give the connection itself, "
                "tx=session.connection(bind_arguments={'mapper': …})"
            ) from error

    def on_commit(self, hint: Hint) -> None:
        listen_once()
        watch(self._session).add(hint)


class Greenlet(AsyncLink):
    """An asynchronous session or connection of SQLAlchemy: the blocking one, run as it wants it."""

    async def adrive(self, start: Start[T], hint: Hint) -> T:
        done: T = await self._db.run_sync(lambda inner: recognise(inner, SyncLink).drive(start, hint))
        return done


_listening: list[bool] = []


def listen_once() -> None:
    """Hear of the commits and rollbacks of all sessions of this process."""
    if _listening:
        return
    _listening.append(True)
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    event.listen(Session, "after_commit", after_commit)
    event.listen(Session, "after_rollback", after_rollback)


def after_commit(session: Any) -> None:
    """Call the hints of a session whose outermost transaction is committed."""
    if not session.in_nested_transaction():
        committed(session)


def after_rollback(session: Any) -> None:
    """Forget the hints of a session whose outermost transaction is rolled back."""
    if not session.in_nested_transaction():
        _hints.pop(session, None)


# Django


class DjangoLink(SyncLink):
    """A Django connection, by its alias or itself."""

    def __init__(self, tx: Any) -> None:
        connections = import_module("django.db").connections
        if not isinstance(tx, str):
            self._db = connections[tx.alias]
        elif tx in connections:
            self._db = connections[tx]
        else:
            raise ConfigError(f"expected the alias of a database in Django's DATABASES for tx=; {tx!r} came")

    def anchor(self) -> object:
        return self._db

    def refuse_closed(self) -> None:
        if not self._db.in_atomic_block and self._db.get_autocommit():
            refuse_autocommit("`with transaction.atomic()`")

    def run(self, step: Step) -> Any:
        if self._db.vendor == "sqlite":
            self._db.ensure_connection()
            return run_on_file(step, self._db.connection)
        call = statement(step, self._db.display_name)
        if self._db.vendor != "postgresql":
            raise Mismatch(self._db.display_name)
        with self._db.cursor() as cursor:
            cursor.execute(call.sql, list(call.params))
            return cursor.fetchall() if cursor.description else []

    def on_commit(self, hint: Hint) -> None:
        if self._db.in_atomic_block:
            self._db.on_commit(hint, robust=True)


# Recognising them

KINDS: dict[str, Callable[[Any], Link]] = {
    "sqlite3.Connection": Sqlite3Link,
    "aiosqlite.core.Connection": AiosqliteLink,
    "psycopg.Connection": PsycopgLink,
    "psycopg.AsyncConnection": AsyncPsycopgLink,
    "asyncpg.connection.Connection": AsyncpgLink,
    "asyncpg.pool.PoolConnectionProxy": AsyncpgLink,
    "sqlalchemy.engine.base.Connection": ConnectionLink,
    "sqlalchemy.orm.session.Session": SessionLink,
    "sqlalchemy.orm.scoping.scoped_session": lambda tx: SessionLink(tx()),
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": Greenlet,
    "sqlalchemy.ext.asyncio.session.AsyncSession": Greenlet,
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": lambda tx: Greenlet(tx()),
    "django.db.backends.base.base.BaseDatabaseWrapper": DjangoLink,
    "django.utils.connection.ConnectionProxy": lambda tx: DjangoLink(tx._connections[tx._alias]),
    "builtins.str": DjangoLink,
}
"""By the full name of a class in the MRO of what came."""

L = TypeVar("L", bound=Link)


def recognise(tx: Any, wanted: type[L]) -> L:
    """What came as tx=, as a link. Raises `ConfigError` for what does not fit, or needs the other twin."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(tx).__mro__]
    make = next((KINDS[name] for name in names if name in KINDS), None)
    if make is None or ("builtins.str" in names and not has_django()):
        known = next((INSTEAD[one] for kind in type(tx).__mro__ if (one := kind.__name__) in INSTEAD), None)
        raise ConfigError(f"expected {FITS} for tx=; {short(tx)} came" + (f": {known}" if known else ""))
    return right_twin(make(tx), wanted, type(tx).__name__)


def right_twin(link: Link, wanted: type[L], name: str) -> L:
    """The link itself. Raises `ConfigError` if it is no `wanted` one."""
    if isinstance(link, wanted):
        return link
    if wanted is SyncLink:
        raise ConfigError(f"tx= got an asynchronous {name}, which has to be awaited: await aenqueue(…) instead")
    raise ConfigError(
        f"tx= got {'a Django alias' if name == 'str' else f'a blocking {name}'}, which aenqueue() cannot await: call "
        "enqueue(…), in the code that holds the transaction"
    )


def has_django() -> bool:
    """Whether an alias could mean something."""
    try:
        return bool(import_module("django.conf").settings.configured)
    except ImportError:
        return False
