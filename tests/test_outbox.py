"""The outbox: jobs in a transaction of another database than the store's, moved into the store once each."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.callers import ASYNC, BLOCKING, alias, dialect, sa_session
from tests.servers import PgBouncer, Postgres, postgres_url, redis_url
from tests.worker.rig import Rig, until
from windlass import App, CallError, ConfigError, JobNotFound, Outbox, State
from windlass.blocking import run
from windlass.model import NewJob
from windlass.store.sqlite.store import SQLiteStore
from windlass.worker import relay

ENGINES = ("sqlite", "postgresql")
KINDS = [(engine, kind) for engine in ENGINES for kind in BLOCKING[engine]]
KINDS_ASYNC = [(engine, kind) for engine in ENGINES for kind in ASYNC[engine]]


def named(value: Any) -> str:
    return str(getattr(value, "__name__", value))


class Shop:
    """An app whose store is a file, and a database elsewhere with an outbox in it."""

    def __init__(self, engine: str, folder: Path, server: str | None = None) -> None:
        engine, _, into = engine.partition(" into ")
        self.url = f"sqlite:///{folder}/shop.db" if engine == "sqlite" else server or postgres_url()
        self.table = f"outbox_{uuid.uuid4().hex[:12]}"
        self.store = f"sqlite:///{folder}/windlass.db"
        if into == "redis":
            self.store = f"{redis_url()}?prefix={self.table}"
        self.app = App(self.store)
        self.outbox = Outbox(self.app, self.url, table=self.table)
        self.outbox.create_table()
        self.outbox.create_table()

        @self.app.task(name="shop.pay")
        def pay(order_id: int) -> int:
            return order_id

        self.pay = pay

    def sql(self, statement: str) -> list[Any]:
        if self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)) as db:
                return db.execute(statement).fetchall()
        with psycopg.connect(self.url, autocommit=True) as server:
            cursor = server.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def rows(self) -> int:
        return int(self.sql(f"SELECT count(*) FROM {self.table}")[0][0])

    async def relayed(self, store: Any = None) -> None:
        """Relay until the outbox is empty."""
        work = asyncio.create_task(self.outbox.relay(store or await self.app.connect()))
        for _ in range(500):
            if not await asyncio.to_thread(lambda: self.rows):
                break
            await asyncio.sleep(0.02)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await self.app.aclose()

    def close(self) -> None:
        self.app.close()
        if not self.url.startswith("sqlite"):
            self.sql(f"DROP TABLE IF EXISTS {self.table}")


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(request.param if hasattr(request, "param") else "sqlite", tmp_path)
    yield shop
    shop.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


on_each_and_redis = pytest.mark.parametrize("shop", [*ENGINES, "postgresql into redis"], indirect=True)
on_each = pytest.mark.parametrize("shop", ENGINES, indirect=True)
with_each = pytest.mark.parametrize(("shop", "kind"), KINDS, indirect=["shop"], ids=named)
with_each_async = pytest.mark.parametrize(("shop", "kind"), KINDS_ASYNC, indirect=["shop"], ids=named)


# In


@with_each
def test_a_commit_keeps_the_job_and_a_rollback_leaves_nothing(shop: Shop, kind: Any) -> None:
    with kind(shop.url) as caller:
        shop.outbox.put(caller.tx, shop.pay.bind(1))
        caller.rollback()
    with kind(shop.url) as caller:
        job = shop.outbox.put(caller.tx, shop.pay.using(priority=7, tags=["eu"]).bind(42))
        assert (job.new, job.state, job.args, shop.rows) == (True, "waiting", {"order_id": 42}, 0)
        with pytest.raises(JobNotFound):
            job.refresh()
        caller.commit()
    assert shop.rows == 1
    asyncio.run(shop.relayed())
    assert shop.rows == 0
    assert (job.refresh().state, job.args, job.priority, job.tags) == ("ready", {"order_id": 42}, 7, ("eu",))
    assert shop.app.jobs.count() == 1


@with_each_async
def test_in_async_code(shop: Shop, kind: Any) -> None:
    async def buy() -> list[str]:
        async with kind(shop.url) as caller:
            await shop.outbox.aput(caller.tx, shop.pay.bind(1))
            await caller.rollback()
        async with kind(shop.url) as caller:
            jobs = await shop.outbox.aput_many(caller.tx, [shop.pay.bind(n) for n in range(1200)])
            await caller.commit()
        return [job.id for job in jobs]

    ids = asyncio.run(buy())
    asyncio.run(shop.relayed())
    found = shop.app.jobs.get_many(ids)
    assert [job.args["order_id"] for job in found] == list(range(1200))
    assert shop.app.jobs.count() == 1200


def test_times_count_from_when_the_job_was_put_there(shop: Shop) -> None:
    with sa_session(shop.url) as caller:
        late = shop.outbox.put(caller.tx, shop.pay.using(delay=3600).bind(1))
        due = shop.outbox.put(caller.tx, shop.pay.using(delay=60).bind(1))
        gone = shop.outbox.put(caller.tx, shop.pay.using(expires_in=60).bind(1))
        caller.commit()
    shop.sql(f"UPDATE {shop.table} SET added_at = added_at - 120 / 86400.0")
    asyncio.run(shop.relayed())
    assert 3400 < (late.refresh().run_at - late.enqueued_at).total_seconds() < 3500
    assert due.refresh().state == "ready"
    gone.refresh()
    assert gone.record.expires_at
    assert gone.record.expires_at - gone.record.enqueued_at < 1


@on_each
def test_a_unique_key_and_an_id(shop: Shop) -> None:
    with sa_session(shop.url) as caller:
        first, second = (shop.outbox.put(caller.tx, shop.pay.using(unique="k").bind(n)) for n in (1, 2))
        for _ in range(2):
            shop.outbox.put(caller.tx, shop.pay.using(id="order-7").bind(7))
        caller.commit()
    asyncio.run(shop.relayed())
    assert {job.id for job in shop.app.jobs.find()} == {first.id, "order-7"}
    with pytest.raises(JobNotFound):
        second.refresh()


# Out: by any worker of the app


@on_each_and_redis
def test_workers_relay_by_themselves_and_at_once_after_local_commits(shop: Shop) -> None:
    async def serve() -> None:
        async with shop.app.worker(concurrency=5):
            await asyncio.sleep(0.1)
            for n in range(3):
                job = await asyncio.to_thread(buy, n)
                for _ in range(200):
                    with contextlib.suppress(JobNotFound):
                        assert await job.aresult(timeout=20) == n
                        break
                    await asyncio.sleep(0.01)
                else:
                    raise AssertionError("not relayed")
        await shop.app.aclose()

    def buy(n: int) -> Any:
        with sa_session(shop.url) as caller:
            job = shop.outbox.put(caller.tx, shop.pay.bind(n))
            caller.commit()
        return job

    asyncio.run(serve())
    assert shop.rows == 0


def test_several_relays_move_each_job_once(shop: Shop) -> None:
    with sa_session(shop.url) as caller:
        jobs = shop.outbox.put_many(caller.tx, [shop.pay.bind(n) for n in range(3000)])
        caller.commit()

    async def relays() -> None:
        await asyncio.gather(*(shop.relayed() for _ in range(4)))

    asyncio.run(relays())
    assert shop.app.jobs.count() == 3000 == len({job.id for job in jobs})


SCRIPT = """
import asyncio, os, signal, sys
from windlass import App, Outbox

class Dying:
    def __init__(self, store, where):
        self.store, self.where = store, where

    async def put(self, *given):
        if self.where == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await self.store.put(*given)
        os.kill(os.getpid(), signal.SIGKILL)

async def main(store, database, table, where):
    app = App(store)
    await Outbox(app, database, table=table).relay(Dying(await app.connect(), where))

asyncio.run(main(*sys.argv[1:]))
"""


@on_each_and_redis
@pytest.mark.parametrize("where", ["before", "after", "after, and the jobs are gone"])
def test_a_relay_that_is_killed(shop: Shop, where: str) -> None:
    with sa_session(shop.url) as caller:
        jobs = shop.outbox.put_many(caller.tx, [shop.pay.bind(n) for n in range(5)])
        caller.commit()
    died = subprocess.run([sys.executable, "-c", SCRIPT, shop.store, shop.url, shop.table, where], timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert shop.rows == 5
    assert shop.app.jobs.count() == (0 if where == "before" else 5)
    if where.endswith("gone"):
        shop.app.jobs.delete(task=shop.pay)
    asyncio.run(shop.relayed())
    assert shop.rows == 0
    assert {job.id for job in shop.app.jobs.find()} == (set() if where.endswith("gone") else {job.id for job in jobs})


LEAVING = """
import asyncio, sys
from windlass import App, Outbox

class Slow:
    async def put(self, *given):
        print("putting", flush=True)
        await asyncio.Event().wait()

async def main(store, database, table):
    work = asyncio.create_task(Outbox(App(store), database, table=table).relay(Slow()))
    await asyncio.to_thread(sys.stdin.readline)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_relay_ends_while_its_database_is_frozen(tmp_path: Path) -> None:
    with Postgres(fsync="off") as server:
        shop = Shop("postgresql", tmp_path, server.url)
        with sa_session(shop.url) as caller:
            job = shop.outbox.put(caller.tx, shop.pay.bind(1))
            caller.commit()
        command = [sys.executable, "-c", LEAVING, shop.store, shop.url, shop.table]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as leaving:
            assert leaving.stdout
            try:
                assert leaving.stdout.readline() == "putting\n"
                with server.frozen():
                    leaving.communicate("now\n", timeout=60)
            finally:
                leaving.kill()
        assert leaving.returncode == 0
        asyncio.run(shop.relayed())
        assert job.refresh().state == "ready"
        shop.close()


def test_a_relay_behind_a_pooler_leaves_nothing_prepared(tmp_path: Path) -> None:
    with PgBouncer(postgres_url()) as pooler:
        shop = Shop("postgresql", tmp_path, pooler.url)

        async def go() -> None:
            work = asyncio.create_task(shop.outbox.relay(await shop.app.connect()))
            for n in range(8):  # psycopg prepares what it is given more than five times
                with psycopg.connect(pooler.url, prepare_threshold=None) as caller, caller.transaction():
                    shop.outbox.put(caller, shop.pay.bind(n))
                while await asyncio.to_thread(lambda: shop.rows):  # the test's time limit ends this
                    await asyncio.sleep(0.01)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await shop.app.aclose()

        asyncio.run(go())
        assert pooler.prepared() == []
        shop.close()


def test_a_database_that_thaws_after_the_relay_has_ended_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PARTING", 0.1)
    thawed, closed = threading.Event(), threading.Event()

    class Frozen:
        def take(self, most: int) -> list[Any]:
            thawed.wait()
            return []

        def close(self) -> None:
            closed.set()

    async def leave() -> None:
        side: Any = Frozen()
        moving = asyncio.create_task(relay.Relay(side, side, "x", asyncio.Event()).run())
        await asyncio.sleep(0.05)
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)

    asyncio.run(leave())
    assert not closed.is_set()
    thawed.set()
    assert closed.wait(30)


@on_each
def test_a_store_that_fails_is_waited_for(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    class Shy:
        tries = 0

        async def put(self, *given: Any) -> Any:
            self.tries += 1
            if self.tries == 1:
                raise ConnectionError("not now")
            return await (await shop.app.connect()).put(*given)

    with sa_session(shop.url) as caller:
        job = shop.outbox.put(caller.tx, shop.pay.bind(1))
        caller.commit()
    asyncio.run(shop.relayed(Shy()))
    assert job.refresh().state == "ready"
    assert "trying again in 1 s: not now" in caplog.text


@on_each
def test_a_relay_that_began_before_the_table_goes_on_when_it_is_there(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.sql(f"DROP TABLE {shop.table}")

    async def look() -> None:
        work = asyncio.create_task(shop.outbox.relay(await shop.app.connect()))
        while not caplog.records:
            await asyncio.sleep(0.02)
        await shop.outbox.acreate_table()
        await asyncio.to_thread(put)
        while shop.rows:
            await asyncio.sleep(0.02)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await shop.app.aclose()

    def put() -> None:
        with sa_session(shop.url) as caller:
            jobs.append(shop.outbox.put(caller.tx, shop.pay.bind(1)))
            caller.commit()

    jobs: list[Any] = []
    asyncio.run(look())
    assert [job.refresh().state for job in jobs] == ["ready"]


@on_each
def test_rows_that_are_no_jobs_are_set_aside(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.sql(f"INSERT INTO {shop.table} (job) VALUES ('{{\"id\": 1}}')")
    with sa_session(shop.url) as caller:
        job = shop.outbox.put(caller.tx, shop.pay.bind(1))
        caller.commit()

    async def look() -> None:
        work = asyncio.create_task(shop.outbox.relay(await shop.app.connect()))
        async with asyncio.timeout(30):
            while "is no job" not in caplog.text:
                await asyncio.sleep(0.02)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await shop.app.aclose()

    asyncio.run(look())
    assert job.refresh().state == "ready"
    [(error,)] = shop.sql(f"SELECT error FROM {shop.table}")
    assert "id" in error


def test_one_job_that_the_store_refuses_keeps_nobody_else(shop: Shop) -> None:
    class Choosy:
        async def put(self, jobs: list[NewJob], *given: Any) -> Any:
            if any(b'"order_id":1}' in job.args for job in jobs):
                raise ValueError("not that one")
            return await (await shop.app.connect()).put(jobs, *given)

    with sa_session(shop.url) as caller:
        shop.outbox.put_many(caller.tx, [shop.pay.bind(n) for n in range(3)])
        caller.commit()

    async def look() -> None:
        work = asyncio.create_task(shop.outbox.relay(Choosy()))  # type: ignore[arg-type]
        while shop.rows != 1:
            await asyncio.sleep(0.02)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await shop.app.aclose()

    asyncio.run(look())
    assert sorted(job.args["order_id"] for job in shop.app.jobs.find()) == [0, 2]


@on_each_and_redis
def test_every_job_once_while_workers_are_killed(shop: Shop, rig: Rig) -> None:
    rig.environment |= {"OUTBOX": shop.url, "LEDGER": shop.table, "WINDLASS_URL": shop.store}
    step = shop.app.task(name="tests.ledger.next_step")(lambda n: n)
    jobs: list[str] = []
    worker = rig.start("-p", "2", app="tests.ledger:app")
    for n in range(40):
        with sa_session(shop.url) as caller:
            if shop.url.startswith("sqlite"):
                caller.run("PRAGMA busy_timeout = 30000")
            batch = shop.outbox.put_many(caller.tx, [step.bind(n * 5 + k) for k in range(5)])
            if n % 4:
                caller.commit()
                jobs += [job.id for job in batch]
        if n % 10 == 5:
            until(lambda: rig.runners(worker), "a runner to kill")
            rig.runners(worker)[0].kill()
    until(lambda: shop.app.jobs.count(state="succeeded") == len(jobs), "all jobs to be done")
    rig.stop(worker)
    assert shop.rows == 0
    assert {job.id for job in shop.app.jobs.find(limit=1000)} == set(jobs)


# What does not fit


def test_which_database(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/windlass.db")
    url = "postgresql://me:secret@db:5433/shop"
    for given in (
        url,
        dialect(url, "asyncpg"),
        sa.make_url(dialect(url, "psycopg")),
        sa.create_engine(dialect(url, "psycopg")),
    ):
        assert str(Outbox(app, given)._database) == "postgresql://db:5433/shop"
        assert "secret" in Outbox(app, given)._database.where
    assert str(Outbox(app, sa.create_engine(f"sqlite:///{tmp_path}/a.db"))._database) == f"sqlite:///{tmp_path}/a.db"
    with alias(f"sqlite:///{tmp_path}/b.db") as name:
        assert str(Outbox(app, name)._database) == f"sqlite:///{tmp_path}/b.db"
    with alias(url) as name:
        assert str(Outbox(app, name)._database) == "postgresql://db:5433/shop"
    for wrong in ("mysql://host/shop", "sqlite:///:memory:", 42, None):
        with pytest.raises(ConfigError, match="database of an Outbox"):
            Outbox(app, wrong)
    with pytest.raises(ConfigError, match="table="):
        Outbox(app, url, table="x; DROP TABLE y")


@on_each
def test_no_table_there(shop: Shop) -> None:
    outbox = Outbox(shop.app, shop.url, table="no_such_table")
    with sa_session(shop.url) as caller:
        with pytest.raises(ConfigError, match=r"no_such_table.*create_table"):
            outbox.put(caller.tx, shop.pay.bind(1))
        shop.outbox.put(caller.tx, shop.pay.bind(1))
        caller.commit()
    assert shop.rows == 1
    assert "no_such_table" in outbox.ddl


@on_each
def test_another_database(shop: Shop, tmp_path: Path) -> None:
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    with sa_session(elsewhere) as caller, pytest.raises(ConfigError, match="outbox"):
        shop.outbox.put(caller.tx, shop.pay.bind(1))
    with pytest.raises(CallError, match="another app"):
        shop.outbox.put(None, App(elsewhere).task(name="x.y")(lambda: None).bind())
    assert shop.outbox.put_many(object(), []) == []


def test_its_rows_are_in_a_store_of_their_own(shop: Shop) -> None:
    """The store needs no outbox: its schema is not touched."""
    store = SQLiteStore(shop.store, None)  # type: ignore[arg-type]
    assert store.path != shop.url.removeprefix("sqlite:///")
    assert run(shop.app.connect())
    assert State.WAITING not in {line.state for line in run((run(shop.app.connect())).stats())}
