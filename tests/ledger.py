"""Tasks that write a row and succeed in one transaction, on every lane; and die in between when they are told to."""

import asyncio
import contextlib
import os
import signal
import sqlite3
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from tests.callers import alias
from windlass import App, Fail, Outbox, Retry, Snooze, current
from windlass.context import Transaction

URL = os.environ.get("WINDLASS_URL", "sqlite:///ledger.db")
TABLE = os.environ.get("LEDGER", "ledger")

app = App(URL, grace=2.0, lease=float(os.environ.get("LEDGER_LEASE", "15")))
quick = Retry(attempts=3, backoff=0)
outbox = Outbox(app, os.environ["OUTBOX"], table=TABLE) if "OUTBOX" in os.environ else None


def look(statement: str) -> list[Any]:
    """A statement beside everything, committed."""
    if URL.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(URL.removeprefix("sqlite:///"), isolation_level=None)) as db:
            return db.execute(statement).fetchall()
    with psycopg.connect(URL.partition("?")[0], autocommit=True) as server:
        cursor = server.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def line(n: int) -> str:
    return f"INSERT INTO {TABLE} VALUES ('{current().job.id}', {n})"  # type: ignore[union-attr]


def die(wanted: str, here: str) -> None:
    """At the first attempt only."""
    if wanted == here and current().fence == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def go_on(how: str, transaction: Transaction) -> None:
    """What a test wants to happen inside the block."""
    die(how, "inside")
    if how == "raise" and current().fence == 1:
        raise ValueError("not this time")
    if how == "snooze" and current().fence == 1:
        raise Snooze(0)
    if how == "fail":
        raise Fail("never")
    if how == "late":
        transaction.result = "late"
    if how == "unstorable" and current().fence == 1:
        transaction.result = object()


def book(n: int, how: str) -> int:
    die(how, "before")
    transaction = current().transaction(result=n)
    with transaction as db:
        db.execute(line(n))
        go_on(how, transaction)
    die(how, "after")
    if how == "raise after":
        raise RuntimeError("too late")
    return n if how != "return more" else n + 1


@app.task(retry=quick)
def book_in_thread(n: int, how: str = "") -> int:
    return book(n, how)


@app.task(retry=quick, executor="process")
def book_in_process(n: int, how: str = "") -> int:
    return book(n, how)


async def abook(n: int, how: str) -> int:
    die(how, "before")
    transaction = current().transaction(result=n)
    async with transaction as db:
        written = db.execute(line(n))
        if not URL.startswith("sqlite"):
            await written
        go_on(how, transaction)
        if how == "wait":
            await asyncio.sleep(60)
    die(how, "after")
    if how == "raise after":
        raise RuntimeError("too late")
    return n if how != "return more" else n + 1


@app.task(retry=quick)
async def book_on_loop(n: int, how: str = "") -> int:
    return await abook(n, how)


@app.task(retry=quick, executor="process")
async def book_on_loop_in_process(n: int, how: str = "") -> int:
    return await abook(n, how)


def sync_url() -> str:
    return URL.partition("?")[0].replace("postgresql:", "postgresql+psycopg:")


@app.task(retry=quick)
def book_with(n: int, kind: str, how: str = "") -> int:
    """In a transaction of another library."""
    engine = sa.create_engine(sync_url(), poolclass=sa.NullPool)
    given = {"engine": engine, "sessionmaker": sessionmaker(engine)}.get(kind, kind)
    with alias(sync_url().replace("+psycopg", "")) if kind == "django" else contextlib.nullcontext(given) as given:
        transaction = current().transaction(given, result=n)
        with transaction as tx:
            if kind == "django":
                tx.cursor().execute(line(n))
            else:
                tx.execute(sa.text(line(n)))
            go_on(how, transaction)
    return n


@app.task(retry=quick)
async def book_with_async(n: int, kind: str, how: str = "") -> int:
    """The same for those that have to be awaited."""
    url = URL.partition("?")[0].replace("postgresql:", "postgresql+asyncpg:").replace("sqlite:", "sqlite+aiosqlite:")
    engine = create_async_engine(url, poolclass=sa.NullPool)
    transaction = current().transaction({"engine": engine}.get(kind, async_sessionmaker(engine)), result=n)
    async with transaction as tx:
        await tx.execute(sa.text(line(n)))
        go_on(how, transaction)
    return n


@app.task(retry=Retry(attempts=1))
def misuse_with(kind: str) -> None:
    engine = sa.create_engine("sqlite://")
    with current().transaction(
        {
            "int": 42,
            "async": create_async_engine("sqlite+aiosqlite://"),
            "elsewhere": engine,
        }[kind]
    ):
        pass


@app.task(retry=Retry(attempts=1))
def misuse(how: str) -> None:
    transaction = current().transaction()
    with transaction as db:
        if how == "commit":
            db.commit()
    if how == "twice":
        current().transaction()
    else:
        transaction.__enter__()


@app.task(retry=Retry(attempts=1))
async def blocks_the_loop() -> None:
    with current().transaction():
        pass


@app.task
def next_step(n: int) -> int:
    return n


@app.task(retry=quick)
def chains(n: int) -> str:
    with current().transaction(result="chained") as db:
        job = next_step.using(tx=db).enqueue(n)
        if current().fence == 1:
            raise ValueError("roll back the first one")
    return job.id
