"""Connections and sessions as users hold them: every kind that `tx=` takes, on SQLite and PostgreSQL."""

import contextlib
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import aiosqlite
import asyncpg  # type: ignore[import-untyped]
import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

numbers = itertools.count(1)


@dataclass
class Caller:
    """One open transaction: what goes into tx=, a way to write, and its two ends. Of async ones all must be awaited."""

    tx: Any
    run: Callable[[str], Any]
    commit: Callable[[], Any]
    rollback: Callable[[], Any]


def path_of(url: str) -> str:
    return url.removeprefix("sqlite:///")


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


def dialect(url: str, driver: str) -> str:
    return f"{urlsplit(url).scheme}+{driver}{url[url.index('://') :]}"


# Blocking ones


@contextlib.contextmanager
def plain_sqlite3(url: str) -> Iterator[Caller]:
    with contextlib.closing(sqlite3.connect(path_of(url))) as db:
        yield Caller(db, db.execute, db.commit, db.rollback)


@contextlib.contextmanager
def rows_of_its_own(url: str) -> Iterator[Caller]:
    """A connection with everything set that a user may set."""
    with contextlib.closing(sqlite3.connect(path_of(url), isolation_level="EXCLUSIVE")) as db:
        db.row_factory = lambda cursor, row: {"row": row}
        db.text_factory = bytes
        yield Caller(db, db.execute, db.commit, db.rollback)


@contextlib.contextmanager
def begun_by_hand(url: str) -> Iterator[Caller]:
    with contextlib.closing(sqlite3.connect(path_of(url), isolation_level=None)) as db:
        db.execute("BEGIN")
        yield Caller(db, db.execute, db.commit, db.rollback)


@contextlib.contextmanager
def plain_psycopg(url: str) -> Iterator[Caller]:
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as db:
        yield Caller(db, lambda sql: db.execute(sql), db.commit, db.rollback)


@contextlib.contextmanager
def engine(url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(dialect(url, "pysqlite" if is_sqlite(url) else "psycopg"), poolclass=NullPool)
    yield made
    made.dispose()


@contextlib.contextmanager
def sa_connection(url: str) -> Iterator[Caller]:
    with engine(url) as made, made.connect() as db:
        yield Caller(db, db.exec_driver_sql, db.commit, db.rollback)


@contextlib.contextmanager
def sa_session(url: str) -> Iterator[Caller]:
    with engine(url) as made, Session(made) as session:
        yield Caller(session, lambda sql: session.execute(sa.text(sql)), session.commit, session.rollback)


@contextlib.contextmanager
def sa_scoped_session(url: str) -> Iterator[Caller]:
    with engine(url) as made:
        session = scoped_session(sessionmaker(made))
        yield Caller(session, lambda sql: session.execute(sa.text(sql)), session.commit, session.rollback)
        session.remove()


@contextlib.contextmanager
def alias(url: str) -> Iterator[str]:
    """A database that Django knows."""
    settings, db = import_module("django.conf").settings, import_module("django.db")
    if not settings.configured:
        settings.configure(DATABASES={})
        import_module("django").setup()
    name, parts = f"db{next(numbers)}", urlsplit(url)
    base = dict(db.connections.settings["default"])
    if is_sqlite(url):
        base |= {"ENGINE": "django.db.backends.sqlite3", "NAME": path_of(url)}
    else:
        base |= {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username or ""}
        base |= {"PASSWORD": parts.password or "", "HOST": parts.hostname or "", "PORT": str(parts.port or "")}
    db.connections.settings[name] = base
    yield name
    db.connections[name].close()
    del db.connections[name]


@contextlib.contextmanager
def django_alias(url: str, itself: bool = False) -> Iterator[Caller]:
    db, transaction = import_module("django.db"), import_module("django.db.transaction")
    with alias(url) as name:
        atomic = transaction.atomic(using=name)
        atomic.__enter__()
        connection = db.connections[name]

        def rollback() -> None:
            transaction.set_rollback(True, using=name)
            atomic.__exit__(None, None, None)

        yield Caller(
            connection if itself else name,
            lambda sql: connection.cursor().execute(sql),
            lambda: atomic.__exit__(None, None, None),
            rollback,
        )


def django_connection(url: str) -> contextlib.AbstractContextManager[Caller]:
    return django_alias(url, itself=True)


# Asynchronous ones


@contextlib.asynccontextmanager
async def plain_aiosqlite(url: str) -> AsyncIterator[Caller]:
    async with aiosqlite.connect(path_of(url)) as db:
        yield Caller(db, db.execute, db.commit, db.rollback)


@contextlib.asynccontextmanager
async def async_psycopg(url: str) -> AsyncIterator[Caller]:
    async with await psycopg.AsyncConnection.connect(url) as db:
        yield Caller(db, lambda sql: db.execute(sql), db.commit, db.rollback)


@contextlib.asynccontextmanager
async def plain_asyncpg(url: str) -> AsyncIterator[Caller]:
    db = await asyncpg.connect(url)
    await db.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    transaction = db.transaction()
    await transaction.start()
    yield Caller(db, db.execute, transaction.commit, transaction.rollback)
    await db.close()


@contextlib.asynccontextmanager
async def pooled_asyncpg(url: str) -> AsyncIterator[Caller]:
    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool, pool.acquire() as db:
        transaction = db.transaction()
        await transaction.start()
        yield Caller(db, db.execute, transaction.commit, transaction.rollback)


@contextlib.asynccontextmanager
async def async_sa_session(url: str, driver: str = "") -> AsyncIterator[Caller]:
    made = create_async_engine(dialect(url, driver or ("aiosqlite" if is_sqlite(url) else "asyncpg")))
    async with AsyncSession(made) as session:
        yield Caller(session, lambda sql: session.execute(sa.text(sql)), session.commit, session.rollback)
    await made.dispose()


def async_sa_session_on_psycopg(url: str) -> contextlib.AbstractAsyncContextManager[Caller]:
    return async_sa_session(url, "psycopg")


@contextlib.asynccontextmanager
async def async_sa_connection(url: str) -> AsyncIterator[Caller]:
    made = create_async_engine(dialect(url, "aiosqlite" if is_sqlite(url) else "asyncpg"))
    async with made.connect() as db:
        yield Caller(db, lambda sql: db.execute(sa.text(sql)), db.commit, db.rollback)
    await made.dispose()


Open = Callable[[str], contextlib.AbstractContextManager[Caller]]
AsyncOpen = Callable[[str], contextlib.AbstractAsyncContextManager[Caller]]

_ANY: list[Open] = [sa_connection, sa_session, sa_scoped_session, django_alias, django_connection]
_ANY_ASYNC: list[AsyncOpen] = [async_sa_connection, async_sa_session]

BLOCKING: dict[str, list[Open]] = {
    "sqlite": [plain_sqlite3, rows_of_its_own, begun_by_hand, *_ANY],
    "postgresql": [plain_psycopg, *_ANY],
}
ASYNC: dict[str, list[AsyncOpen]] = {
    "sqlite": [plain_aiosqlite, *_ANY_ASYNC],
    "postgresql": [async_psycopg, plain_asyncpg, pooled_asyncpg, async_sa_session_on_psycopg, *_ANY_ASYNC],
}


def as_async(opened: contextlib.AbstractContextManager[Caller]) -> contextlib.AbstractAsyncContextManager[Caller]:
    """A blocking caller, for a test that awaits everything."""

    def awaited(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def later(*given: Any) -> Any:
            return call(*given)

        return later

    @contextlib.asynccontextmanager
    async def use() -> AsyncIterator[Caller]:
        with opened as caller:
            yield Caller(caller.tx, awaited(caller.run), awaited(caller.commit), awaited(caller.rollback))

    return use()
