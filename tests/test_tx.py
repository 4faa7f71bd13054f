"""Jobs that are part of the caller's own transaction: with every kind of connection, on SQLite and PostgreSQL."""

import asyncio
import contextlib
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.callers import ASYNC, BLOCKING, alias, as_async, django_alias, plain_psycopg, sa_session
from tests.servers import PgBouncer, postgres_url
from windlass import App, ConfigError, JobNotFound, ScheduleNotFound, StoreUnavailable, every
from windlass.blocking import run
from windlass.errors import UniquePending
from windlass.store.postgres.statements import channel

ENGINES = ("sqlite", "postgresql")
KINDS = [(engine, kind) for engine in ENGINES for kind in BLOCKING[engine]]
KINDS_ASYNC = [(engine, kind) for engine in ENGINES for kind in ASYNC[engine]]


def named(value: Any) -> str:
    return str(getattr(value, "__name__", value))


class Place:
    """A database with a table of the user's and a store in it."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/windlass.db" if engine == "sqlite" else postgres_url()
        self.schema = f"t{uuid.uuid4().hex[:12]}"
        self.table = f"orders_{self.schema}"
        self.app = App(self.url if engine == "sqlite" else f"{self.url}?schema={self.schema}")
        run(self.app.connect())
        self.sql(f"CREATE TABLE {self.table} (id integer)")

        @self.app.task(name="shop.pay")
        def pay(order_id: int) -> int:
            return order_id

        self.pay = pay
        self.insert = f"INSERT INTO {self.table} VALUES (1)"

    def sql(self, statement: str) -> list[Any]:
        if self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)) as db:
                return db.execute(statement).fetchall()
        with psycopg.connect(self.url, autocommit=True) as server:
            cursor = server.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def orders(self) -> int:
        return int(self.sql(f"SELECT count(*) FROM {self.table}")[0][0])

    def close(self) -> None:
        self.app.close()
        if not self.url.startswith("sqlite"):
            self.sql(f"DROP TABLE {self.table}; DROP SCHEMA IF EXISTS {self.schema} CASCADE")


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place(request.param if hasattr(request, "param") else "sqlite", tmp_path)
    yield place
    place.close()


on_each = pytest.mark.parametrize("place", ENGINES, indirect=True)
on_postgres = pytest.mark.parametrize("place", ["postgresql"], indirect=True)
with_each = pytest.mark.parametrize(("place", "kind"), KINDS, indirect=["place"], ids=named)
with_each_async = pytest.mark.parametrize(("place", "kind"), KINDS_ASYNC, indirect=["place"], ids=named)


# Commit and rollback


@with_each
def test_a_commit_stores_the_job_and_the_order(place: Place, kind: Any) -> None:
    with kind(place.url) as caller:
        caller.run(place.insert)
        job = place.pay.using(tx=caller.tx, tags=["eu"]).enqueue(42)
        assert (job.new, job.state, job.args) == (True, "ready", {"order_id": 42})
        with pytest.raises(JobNotFound):
            place.app.jobs.get(job.id)
        caller.commit()
    found = place.app.jobs.get(job.id)
    assert (found.state, found.args, found.tags, place.orders) == ("ready", {"order_id": 42}, ("eu",), 1)


@with_each
def test_a_rollback_leaves_nothing(place: Place, kind: Any) -> None:
    with kind(place.url) as caller:
        job = place.pay.using(tx=caller.tx, unique="k").enqueue(42)
        caller.run(place.insert)
        caller.rollback()
    assert (place.app.jobs.count(), place.orders) == (0, 0)
    with pytest.raises(JobNotFound):
        job.refresh()
    assert place.pay.using(unique="k").enqueue(42).new


@with_each_async
def test_a_commit_in_async_code(place: Place, kind: Any) -> None:
    async def shop() -> None:
        async with kind(place.url) as caller:
            await caller.run(place.insert)
            jobs = await place.app.aenqueue_many([place.pay.bind(n) for n in range(300)], tx=caller.tx)
            job = await place.pay.using(tx=caller.tx, delay=60).aenqueue(42)
            assert (job.state, len(jobs)) == ("scheduled", 300)
            assert await place.app.jobs.acount() == 0
            await caller.commit()
        assert (await place.app.jobs.aget(job.id)).state == "scheduled"
        assert await place.app.jobs.acount() == 301
        await place.app.aclose()

    asyncio.run(shop())
    assert place.orders == 1


@with_each_async
def test_a_rollback_in_async_code(place: Place, kind: Any) -> None:
    async def shop() -> None:
        async with kind(place.url) as caller:
            await place.pay.using(tx=caller.tx).aenqueue(42)
            await caller.run(place.insert)
            await caller.rollback()

    asyncio.run(shop())
    assert (place.app.jobs.count(), place.orders) == (0, 0)


@on_each
def test_many_calls_in_one_transaction(place: Place) -> None:
    with sa_session(place.url) as caller:
        jobs = place.app.enqueue_many((place.pay.bind(n) for n in range(1000)), tx=caller.tx)
        assert place.app.enqueue_many([], tx=caller.tx) == []
        assert place.app.jobs.count() == 0
        caller.commit()
    assert [job.args["order_id"] for job in place.app.jobs.get_many([job.id for job in jobs])] == list(range(1000))


@with_each
def test_the_rules_of_put_hold_inside_a_transaction(place: Place, kind: Any) -> None:
    outside = place.pay.using(unique="k").enqueue(1)
    with kind(place.url) as caller:
        inside = place.pay.using(tx=caller.tx)
        assert inside.using(unique="k").enqueue(2) == outside
        first, again = (inside.using(id="order-7").enqueue(n) for n in (3, 4))
        assert (first.new, again.new) == (True, False)
        caller.commit()
    assert place.app.jobs.count() == 2


def test_no_database_is_needed_beforehand(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/new.db")
    pay = app.task(name="shop.pay")(lambda n: n)
    with contextlib.closing(sqlite3.connect(tmp_path / "new.db")) as db:
        db.execute("CREATE TABLE orders (id)")
        db.execute("INSERT INTO orders VALUES (1)")
        pay.using(tx=db).enqueue(1)
        db.rollback()
        db.execute("INSERT INTO orders VALUES (1)")
        job = pay.using(tx=db).enqueue(1)
        db.commit()
    assert app.jobs.get(job.id).state == "ready"
    app.close()


# Woken by the commit


@on_each
@pytest.mark.parametrize("kind", ["session", "alias"])
def test_a_worker_is_woken_by_the_commit_and_not_before(place: Place, kind: str) -> None:
    async def shop() -> None:
        store = await place.app.connect()
        while await store.wait("work", 0.3):
            pass
        waiting = asyncio.create_task(store.wait("work", 10))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(enqueue_with, place, kind, waiting)
        assert await waiting
        await place.app.aclose()

    asyncio.run(shop())


def enqueue_with(place: Place, kind: str, waiting: "asyncio.Task[bool]") -> None:
    with (sa_session if kind == "session" else django_alias)(place.url) as caller:
        place.pay.using(tx=caller.tx).enqueue(1)
        if isinstance(caller.tx, Session):
            with caller.tx.begin_nested():
                pass  # a savepoint is no commit
        time.sleep(0.3)
        assert not waiting.done()
        caller.commit()


def test_hints_behind_a_pooler_leave_nothing_prepared() -> None:
    with PgBouncer(postgres_url()) as pooler, psycopg.connect(postgres_url(), autocommit=True) as ear:
        schema = f"t{uuid.uuid4().hex[:12]}"
        app = App(f"{pooler.url}?schema={schema}&listen={postgres_url()}")
        run(app.connect())

        @app.task(name="shop.pay")
        def pay(order_id: int) -> int:
            return order_id

        ear.execute(f'LISTEN "{channel(schema, "work")}"'.encode())
        for n in range(8):  # psycopg prepares what it is given more than five times
            with sa_session(pooler.url) as caller:
                pay.using(tx=caller.tx).enqueue(n)
                caller.commit()
            assert list(ear.notifies(timeout=30, stop_after=1)), n
        assert pooler.prepared() == []
        app.close()


def test_a_session_that_rolled_back_wakes_nobody(place: Place) -> None:
    async def shop() -> None:
        store = await place.app.connect()
        while await store.wait("work", 0.1):
            pass
        with sa_session(place.url) as caller:
            place.pay.using(tx=caller.tx).enqueue(1)
            caller.rollback()
            caller.run("SELECT 1")
            caller.commit()
        assert not await store.wait("work", 0.3)

    asyncio.run(shop())


# Others at the same time


@on_postgres
def test_a_unique_key_of_an_open_transaction(place: Place) -> None:
    with plain_psycopg(place.url) as first, plain_psycopg(place.url) as second:
        job = place.pay.using(tx=first.tx, unique="k").enqueue(1)
        second.run(place.insert)
        began = time.monotonic()
        with pytest.raises(UniquePending):
            place.pay.using(tx=second.tx, unique="k").enqueue(2)
        assert 0.5 < time.monotonic() - began < 3
        assert place.pay.using(unique="other").enqueue(3).new, "nobody else is blocked"
        assert place.pay.using(tx=second.tx).enqueue(4).new, "the transaction is usable"
        first.commit()
        assert place.pay.using(tx=second.tx, unique="k").enqueue(5) == job
        second.commit()
    assert (place.app.jobs.count(), place.orders) == (3, 1)


@on_postgres
def test_an_open_transaction_with_jobs_blocks_nobody(place: Place) -> None:
    with plain_psycopg(place.url) as caller:
        for n in range(50):
            place.pay.using(tx=caller.tx, unique=f"k{n}").enqueue(n)
        place.app.enqueue_many([place.pay.bind(n) for n in range(50)])
        caller.commit()
    assert place.app.jobs.count() == 100


def test_a_locked_file_is_waited_for_as_the_connection_says(place: Place) -> None:
    path = place.url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as other, contextlib.closing(sqlite3.connect(path, 0.1)) as db:
        other.execute(place.insert)
        with pytest.raises(StoreUnavailable, match=r"nothing was written.*timeout"):
            place.pay.using(tx=db).enqueue(1)
        assert not db.in_transaction
        other.commit()
        assert place.pay.using(tx=db).enqueue(1).new
        db.commit()
    assert place.app.jobs.count() == 1


def test_a_transaction_that_read_too_early(place: Place) -> None:
    path = place.url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute(f"SELECT * FROM {place.table}").fetchall()
        place.sql(place.insert)
        with pytest.raises(StoreUnavailable, match="BEGIN IMMEDIATE"):
            place.pay.using(tx=db).enqueue(1)
        assert db.in_transaction
        assert db.execute(f"SELECT count(*) FROM {place.table}").fetchone() == (0,), "the transaction is usable"
        db.execute("ROLLBACK")
    assert place.app.jobs.count() == 0


def test_many_deferred_transactions_at_once(place: Place) -> None:
    """`BEGIN` alone takes no lock: what we do first has to take it, or another writer comes between."""
    path, trouble = place.url.removeprefix("sqlite:///"), []

    def requests() -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
            for n in range(100):
                db.execute("BEGIN")
                try:
                    place.pay.using(tx=db, unique=str(uuid.uuid4())).enqueue(n)
                except StoreUnavailable as error:
                    trouble.append(str(error))
                db.execute("COMMIT")

    threads = [threading.Thread(target=requests) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert place.app.jobs.count() == 400


def test_an_error_of_ours_leaves_what_was_written_before(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    with contextlib.closing(sqlite3.connect(place.url.removeprefix("sqlite:///"))) as db:
        db.execute(place.insert)
        job = place.pay.using(tx=db).enqueue(1)
        monkeypatch.setattr("windlass.store.sqlite.moves.put_rest", broken)
        with pytest.raises(ZeroDivisionError):
            place.pay.using(tx=db).enqueue(2)
        monkeypatch.undo()
        db.commit()
    assert (place.orders, place.app.jobs.count(), place.app.jobs.get(job.id).state) == (1, 1, "ready")


# What does not fit


def refused(place: Place, tx: Any, *words: str) -> None:
    with pytest.raises(ConfigError) as error:
        place.pay.using(tx=tx).enqueue(1)
    assert all(word in str(error.value) for word in words), str(error.value)


def arefused(place: Place, tx: Any, *words: str) -> None:
    async def call() -> None:
        await place.pay.using(tx=tx).aenqueue(1)

    with pytest.raises(ConfigError) as error:
        asyncio.run(call())
    assert all(word in str(error.value) for word in words), str(error.value)


def test_the_wrong_twin(place: Place) -> None:
    made = create_async_engine(place.url.replace("sqlite", "sqlite+aiosqlite", 1))
    refused(place, AsyncSession(made), "asynchronous AsyncSession", "aenqueue")
    with contextlib.closing(sqlite3.connect(place.url.removeprefix("sqlite:///"))) as db:
        arefused(place, db, "blocking Connection", "enqueue(")
    with alias(place.url) as name:
        arefused(place, name, "Django alias", "enqueue(")


def test_what_is_no_connection(place: Place) -> None:
    refused(place, object(), "SQLAlchemy", "psycopg", "asyncpg", "Django", "sqlite3", "object")
    refused(place, sa.create_engine("sqlite://"), "engine.begin()")
    with pytest.raises(ConfigError, match=r"enqueue_many\(calls, tx="):
        place.pay.using(tx=object()).bind(1)


def test_an_unknown_alias(place: Place) -> None:
    with alias(place.url):
        refused(place, "elsewhere", "DATABASES", "elsewhere")


def test_another_file(place: Place, tmp_path: Path) -> None:
    for path in (":memory:", str(tmp_path / "other.db")):
        with contextlib.closing(sqlite3.connect(path)) as db:
            refused(place, db, "windlass.db", "Outbox")
            assert not db.in_transaction
    app = App("sqlite:///:memory:")
    pay = app.task(name="shop.pay")(lambda n: n)
    with contextlib.closing(sqlite3.connect(":memory:")) as db, pytest.raises(ConfigError, match="in memory"):
        pay.using(tx=db).enqueue(1)


def test_another_path_to_the_same_file(place: Place, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(place.url.removeprefix("sqlite:///"))
    with contextlib.closing(sqlite3.connect(tmp_path / "link.db")) as db:
        place.pay.using(tx=db).enqueue(1)
        db.commit()
    assert place.app.jobs.count() == 1


@on_postgres
def test_another_engine(place: Place, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as db:
        refused(place, db, "SQLite", "postgresql://", "Outbox")
    with sa_session(f"sqlite:///{tmp_path}/other.db") as caller:
        refused(place, caller.tx, "SQLite", "Outbox")
    other = App(f"sqlite:///{tmp_path}/windlass.db")
    pay = other.task(name="shop.pay")(lambda n: n)
    with plain_psycopg(place.url) as caller, pytest.raises(ConfigError, match=r"PostgreSQL.*sqlite://.*Outbox"):
        pay.using(tx=caller.tx).enqueue(1)


@on_postgres
def test_a_database_without_the_schema(place: Place) -> None:
    app = App(f"{place.url}?schema=nowhere")
    pay = app.task(name="shop.pay")(lambda n: n)
    with plain_psycopg(place.url) as caller:
        caller.run(place.insert)
        with pytest.raises(ConfigError, match=r"nowhere.*migrate.*Outbox"):
            pay.using(tx=caller.tx).enqueue(1)
        caller.commit()
    assert place.orders == 1, "the transaction stayed usable"


def test_a_store_without_transactions() -> None:
    pay = App("redis://localhost:1").task(name="shop.pay")(lambda n: n)
    with contextlib.closing(sqlite3.connect(":memory:")) as db, pytest.raises(ConfigError, match=r"redis://.*Outbox"):
        pay.using(tx=db).enqueue(1)


@on_each
def test_a_connection_without_an_open_transaction(place: Place) -> None:
    if place.url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(place.url.removeprefix("sqlite:///"), isolation_level=None)) as db:
            refused(place, db, "open transaction", "BEGIN")
    else:
        with psycopg.connect(place.url, autocommit=True) as server:
            refused(place, server, "open transaction", "connection.transaction()")
            with server.transaction():
                place.pay.using(tx=server).enqueue(1)
    with alias(place.url) as name:
        refused(place, name, "atomic()")
    made = sa.create_engine(
        place.url.replace("postgresql", "postgresql+psycopg", 1), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with made.connect() as connection:
        refused(place, connection, "open transaction")
    assert place.app.jobs.count() == (0 if place.url.startswith("sqlite") else 1)


# In threads and many at once


@on_each
def test_many_requests_commit_or_not(place: Place) -> None:
    stored: list[str] = []

    def request(n: int) -> None:
        with sa_session(place.url) as caller:
            if place.url.startswith("sqlite"):
                caller.run("PRAGMA busy_timeout = 30000")
            job = place.pay.using(tx=caller.tx).enqueue(n)
            caller.run(place.insert)
            if n % 2:
                caller.commit()
                stored.append(job.id)
            else:
                caller.rollback()

    def requests(first: int) -> None:
        for n in range(first, first + 10):
            request(n)

    threads = [threading.Thread(target=requests, args=(n * 10,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {job.id for job in place.app.jobs.find(limit=1000)} == set(stored)
    assert (len(stored), place.orders) == (40, 40)


@on_each
def test_blocking_connections_may_be_used_in_async_code(place: Place) -> None:
    async def shop() -> None:
        async with as_async(sa_session(place.url)) as caller:
            job = place.pay.using(tx=caller.tx).enqueue(1)
            await caller.commit()
        assert (await place.app.jobs.aget(job.id)).state == "ready"
        await place.app.aclose()

    asyncio.run(shop())


# Schedules


@with_each
def test_schedules_change_with_the_transaction(place: Place, kind: Any) -> None:
    mine = place.app.schedules
    with kind(place.url) as caller:
        mine.create("paid", every(hours=1), place.pay.bind(1), tx=caller.tx)
        caller.run(place.insert)
        assert mine.get("paid", tx=caller.tx).args == {"order_id": 1}
        with pytest.raises(ScheduleNotFound):
            mine.get("paid")
        caller.rollback()
    assert (mine.list(), place.orders) == ([], 0)
    with kind(place.url) as caller:
        mine.create("paid", every(hours=1), place.pay.bind(1), tx=caller.tx)
        caller.commit()
    with kind(place.url) as caller:
        mine.update("paid", jitter=5, tx=caller.tx)
        mine.pause("paid", tx=caller.tx)
        job = mine.trigger("paid", tx=caller.tx)
        assert (mine.get("paid").paused, place.app.jobs.count()) == (False, 0)
        caller.commit()
    shown = mine.get("paid")
    assert (shown.jitter, shown.paused, shown.jobs) == (5, True, (job.id,))
    assert place.app.jobs.get(job.id).args == {"order_id": 1}
    with kind(place.url) as caller:
        mine.delete("paid", tx=caller.tx)
        caller.commit()
    assert mine.list() == []


@with_each_async
def test_schedules_in_async_code(place: Place, kind: Any) -> None:
    async def shop() -> None:
        mine = place.app.schedules
        async with kind(place.url) as caller:
            await mine.acreate("paid", every(hours=1), place.pay.bind(1), tx=caller.tx)
            with pytest.raises(ScheduleNotFound):
                await mine.aget("paid")
            await caller.commit()
        assert [one.name for one in await mine.alist()] == ["paid"]
        await place.app.aclose()

    asyncio.run(shop())


# Events


@with_each
def test_an_event_is_published_with_the_transaction(place: Place, kind: Any) -> None:
    place.app.on("order.*")(place.pay)
    place.app.on("order.*", debounce=0.1)(place.app.task(name="shop.calm")(lambda event: None))
    with kind(place.url) as caller:
        assert len(place.app.publish("order.paid", 1, tx=caller.tx)) == 2
        caller.run(place.insert)
        caller.rollback()
    assert (place.app.jobs.count(), place.orders) == (0, 0)
    with kind(place.url) as caller:
        assert all(job.new for job in place.app.publish("order.paid", 7, tx=caller.tx, retain=60))
        assert place.app.jobs.count() == 0
        caller.commit()
    found = {job.task: job.args for job in place.app.jobs.find()}
    assert found["shop.pay"] == {"order_id": 7}
    assert found["windlass.debounce"]["payload"] == 7
    assert place.app.events.replay("shop.pay:order.*") == 0, "it had it"


def test_a_debounced_event_of_a_transaction_waits_after_the_commit(place: Place) -> None:
    done: list[object] = []

    @place.app.on("order.*", debounce=0.5)
    @place.app.task(name="shop.calm")
    async def calm(event: object) -> None:
        done.append(event)

    def buy(n: int) -> None:
        with contextlib.closing(sqlite3.connect(place.url.removeprefix("sqlite:///"))) as db:
            place.app.publish("order.paid", n, tx=db)
            db.commit()

    async def shop() -> None:
        async with place.app.worker(concurrency=1):
            for n in range(3):
                await asyncio.to_thread(buy, n)
            async with asyncio.timeout(60):
                while 2 not in done:
                    await asyncio.sleep(0.05)
        await place.app.aclose()

    asyncio.run(shop())
    assert place.app.jobs.count(task="windlass.debounce") == 3
    assert done[-1] == 2
