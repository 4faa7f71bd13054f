"""An outbox: jobs that become part of a transaction in another database than the store's, and are moved afterwards."""

import asyncio
import contextlib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any, TypeVar
from weakref import WeakSet

import msgspec
from msgspec import Struct

from windlass.app import App
from windlass.config import complaint, masked, split_url
from windlass.errors import ConfigError
from windlass.jobs import Job
from windlass.lazy import Lazy
from windlass.model import NewJob, Placed, State
from windlass.options import short
from windlass.store.contract import Store
from windlass.store.links import AsyncLink, Mismatch, SyncLink, recognise
from windlass.store.queries import load_queries
from windlass.store.tx import Call, Start, Steps
from windlass.task import Bound, Tx
from windlass.worker.relay import PostgresSide, Relay, Side, SqliteSide

R = TypeVar("R")

SQL = load_queries("windlass", "outbox.sql")
TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
ALIAS = re.compile(r"[\w.-]+")
TIMEOUTS = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 5}


class Database(Struct, frozen=True):
    """Where an outbox lies: a SQLite file by its path, or a PostgreSQL database by its conninfo. `place` is the same
    for people."""

    engine: str
    where: str
    place: str

    def __repr__(self) -> str:
        return self.place


class Outbox:
    """A table beside your data that holds jobs until your transaction commits; any worker of the app then moves them.

    For apps whose store is not in that database, as with Redis. `database` is a URL (sqlite:/// or postgresql://), a
    SQLAlchemy engine, or the alias of a Django database. Make one where you make the app, so that workers find it;
    make its table once, by `create_table()` or with `ddl` in a migration of yours. Each job is stored once, however
    often a worker is killed in between.
    """

    def __init__(self, app: App, database: Any, *, table: str = "windlass_outbox") -> None:
        if not isinstance(table, str) or not TABLE.fullmatch(table):
            raise ConfigError(f"expected table= as a name of letters, digits and _; {short(table)} came")
        self._app = app
        self._given = database
        self._table = table
        self._quoted = ".".join(f'"{part}"' for part in table.split("."))
        self._seen: WeakSet[Any] = WeakSet()
        self._bells: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        if not is_alias(database):
            _ = self._database
        app.outboxes.append(self)

    def __repr__(self) -> str:
        return f"<Outbox {self._table} in {self._database}>"

    @Lazy
    def _database(self) -> Database:
        return database_of(self._given)

    @Lazy
    def _sql(self) -> SimpleNamespace:
        end = f"_{self._database.engine}"
        mine = {name.removesuffix(end): sql for name, sql in vars(SQL).items() if name.endswith(end)}
        return SimpleNamespace(**{name: sql.replace("{table}", self._quoted) for name, sql in mine.items()})

    # Jobs in

    def put(self, tx: Tx, call: Bound[R]) -> Job[R]:
        """Make a call (`task.bind(…)`) part of the transaction that is open on `tx`.

        `tx` is what `using(tx=…)` takes. The job's id is known now; the store knows it soon after your commit, and
        until then looking it up raises `JobNotFound`. Raises `ConfigError` for a connection to another database.
        """
        return self.put_many(tx, [call])[0]

    async def aput(self, tx: Tx, call: Bound[R]) -> Job[R]:
        """`put`, for connections and sessions that have to be awaited."""
        return (await self.aput_many(tx, [call]))[0]

    def put_many(self, tx: Tx, calls: Iterable[Bound[R]]) -> list[Job[R]]:
        """Many calls at once, in order."""
        if not (new := self._app.new_jobs(calls)):
            return []
        with self._app.jobs.sending(new) as jobs, self._told():
            recognise(tx, SyncLink).drive(self._adding(jobs), self._ring)
            return self._handles(jobs)

    async def aput_many(self, tx: Tx, calls: Iterable[Bound[R]]) -> list[Job[R]]:
        """`put_many`, for connections and sessions that have to be awaited."""
        if not (new := self._app.new_jobs(calls)):
            return []
        with self._app.jobs.sending(new) as jobs, self._told():
            await recognise(tx, AsyncLink).adrive(self._adding(jobs), self._ring)
            return self._handles(jobs)

    def _handles(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        return [self._app.jobs.placed(Placed(id=job.id, state=State.WAITING, new=True), job) for job in jobs]

    def _adding(self, jobs: Sequence[NewJob]) -> Start[None]:
        rows = [msgspec.json.encode(job).decode() for job in jobs]

        def start(anchor: object) -> Steps[None]:
            if self._database.engine == "sqlite":
                yield lambda db: self._add_to_file(db, rows)
                return
            if anchor not in self._seen:
                self._refuse_missing((yield Call(self._sql.exists, (self._quoted,)))[0][0])
                self._seen.add(anchor)
            yield Call(self._sql.add, (rows,))

        return start

    def _add_to_file(self, db: sqlite3.Connection, rows: Sequence[str]) -> None:
        from windlass.store.sqlite.tx import join

        def add(db: sqlite3.Connection) -> None:
            self._refuse_missing(db.execute(self._sql.exists, (self._table.rpartition(".")[2],)).fetchone()[0])
            db.execute(self._sql.add, (msgspec.json.encode(rows).decode(),))

        join(
            db,
            self._database.where,
            self._sql.seize,
            add,
            f"but the outbox {self._table} is in {{}}. Give a connection to that",
        )

    def _refuse_missing(self, found: object) -> None:
        if not found:
            raise ConfigError(
                f"the database that tx leads to has no table {self._table}. If it is {self._database}, make the table "
                "once: outbox.create_table(), or outbox.ddl in a migration. If it is another, give a connection to that"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Mismatch as error:
            raise ConfigError(
                f"tx is a connection to {error}, but this outbox is in {self._database}: give a connection to that"
            ) from None

    # Its table

    @property
    def ddl(self) -> str:
        """The statement that makes its table, for a migration of yours."""
        return str(self._sql.create)

    def create_table(self) -> None:
        """Make its table, unless it is there. Not in a transaction of yours."""
        if self._database.engine == "sqlite":
            with closing(sqlite3.connect(self._database.where, isolation_level=None)) as db:
                db.execute(self.ddl)
        else:
            with import_module("psycopg").connect(self._database.where) as server:
                server.execute(self.ddl)

    async def acreate_table(self) -> None:
        """`create_table`, without blocking the event loop."""
        await asyncio.to_thread(self.create_table)

    # Out again

    async def relay(self, store: Store) -> None:
        """Move jobs from its table into the store, until cancelled. Workers of the app do this by themselves."""
        bell = (asyncio.get_running_loop(), asyncio.Event())
        self._bells.add(bell)
        try:
            await Relay(self._side(), store, self._table, bell[1]).run()
        finally:
            self._bells.discard(bell)

    def _side(self) -> Side:
        kind = SqliteSide if self._database.engine == "sqlite" else PostgresSide
        return kind(self._database.where, self._sql)

    def _ring(self) -> None:
        """A transaction with jobs was committed in this process: relays here need not wait."""
        for loop, bell in tuple(self._bells):
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(bell.set)


# Which database


def is_alias(given: Any) -> bool:
    """Whether this can only be the alias of a Django database."""
    return isinstance(given, str) and ALIAS.fullmatch(given) is not None


def database_of(given: Any) -> Database:
    """A database by URL, SQLAlchemy engine or Django alias. Raises `ConfigError`."""
    if is_alias(given):
        return django_database(given)
    url = getattr(given, "url", given)
    render = getattr(url, "render_as_string", None)
    text = render(hide_password=False) if render else url
    if isinstance(text, str):
        scheme, _, rest = text.partition("://")
        engine = scheme.partition("+")[0]
        if engine == "sqlite" and rest.startswith("/") and len(rest) > 1 and ":memory:" not in rest:
            return sqlite_file(rest.partition("?")[0][1:])
        if engine in ("postgresql", "postgres"):
            return postgres_server(f"postgresql://{rest}")
    raise ConfigError(
        "expected the database of an Outbox as sqlite:///file.db, postgresql://…, a SQLAlchemy engine of one, or a "
        f"Django alias; {masked(text) if isinstance(text, str) else short(given)} came"
    )


def django_database(alias: str) -> Database:
    """The database of a Django alias. Raises `ConfigError`."""
    try:
        connections = import_module("django.db").connections
        settings = connections[alias].settings_dict
        vendor = connections[alias].vendor
    except Exception as error:
        raise ConfigError(
            f"expected a URL, a SQLAlchemy engine or the alias of a Django database for an Outbox; {alias!r} came: "
            f"{error}"
        ) from error
    if vendor == "sqlite":
        return sqlite_file(settings["NAME"])
    if vendor != "postgresql":
        raise ConfigError(f"expected SQLite or PostgreSQL for an Outbox; Django's {alias!r} is {vendor}")
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    given = {name: settings[key] for name, key in names.items() if settings.get(key)}
    options = {name: value for name, value in settings["OPTIONS"].items() if name.startswith(("ssl", "service"))}
    return postgres_server("", **given, **options)


def sqlite_file(path: str) -> Database:
    """A file by its absolute path."""
    path = os.path.abspath(path)
    return Database("sqlite", path, f"sqlite:///{path}")


def postgres_server(url: str, **given: Any) -> Database:
    """A database of a server, as psycopg reaches it. Raises `ConfigError`."""
    try:
        psycopg, info = import_module("psycopg"), import_module("psycopg.conninfo")
    except ModuleNotFoundError as error:
        raise ConfigError("the relay of an Outbox needs psycopg: pip install 'windlass[postgres]'") from error
    try:
        split_url(url)
        known = {**TIMEOUTS, "application_name": "windlass outbox", **info.conninfo_to_dict(url, **given)}
        where = str(info.make_conninfo(**known))
    except (ValueError, psycopg.Error) as error:
        raise ConfigError(
            f"expected postgresql://user:password@host:port/database for an Outbox; {masked(url)} came: "
            f"{complaint(url, error)}"
        ) from None
    host = known.get("host", "local socket")
    return Database("postgresql", where, f"postgresql://{host}:{known.get('port', 5432)}/{known.get('dbname', '')}")
