"""The relay of an outbox: moves rows of the user's database into the store, each once, however often it is killed."""

import asyncio
import contextlib
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from windlass.errors import StoreUnavailable
from windlass.model import REMEMBERED, Mark, NewJob
from windlass.store.contract import Store

logger = logging.getLogger("windlass.outbox")

POLL = 1.0
"""Seconds between two looks, should no commit in this process come before."""

MOST = 500
"""The most rows that are moved at a time."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds until the next try after one that failed."""

PARTING = 5.0
"""Seconds that a relay that ends waits for its database; then the thread is left behind, and the server lets go of the
rows when the process is gone."""

Row = tuple[int, str, float]
"""Its number, the job as JSON, and how many seconds it is old by the clock of its own database."""


class Side(Protocol):
    """The user's database. Blocking, and always called on one and the same thread."""

    def take(self, most: int) -> Sequence[Row]:
        """The oldest rows that no other relay is moving now."""

    def done(self, moved: Sequence[int], spoiled: Sequence[tuple[int, str]]) -> None:
        """Remove what was moved; note why others never can be."""

    def undo(self) -> None:
        """Leave what was taken to the next try."""

    def close(self) -> None:
        """Let go of the database."""


class SqliteSide:
    """A SQLite file. Two relays may move the same row at once, which does no harm."""

    def __init__(self, path: str, sql: SimpleNamespace) -> None:
        self._path = path
        self._sql = sql
        self._db: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self._path, isolation_level=None)
        return self._db

    def take(self, most: int) -> Sequence[Row]:
        return self._open().execute(self._sql.take, (most,)).fetchall()

    def done(self, moved: Sequence[int], spoiled: Sequence[tuple[int, str]]) -> None:
        db = self._open()
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(self._sql.remove, (json.dumps(moved),))
            db.executemany(self._sql.spoil, [(why, number) for number, why in spoiled])
            db.execute("COMMIT")
        except BaseException:
            db.rollback()
            raise

    def undo(self) -> None:
        pass

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


class PostgresSide:
    """A PostgreSQL database. Rows stay locked while they are moved, and other relays pass them by."""

    def __init__(self, conninfo: str, sql: SimpleNamespace) -> None:
        self._conninfo = conninfo
        self._sql = sql
        self._db: Any = None

    def take(self, most: int) -> Sequence[Row]:
        import psycopg

        if self._db is None or self._db.closed:
            self._db = psycopg.connect(self._conninfo, prepare_threshold=None)  # a pooler may stand between
        self._db.rollback()  # what failed before must not stand in the way
        rows: Sequence[Row] = self._db.execute(self._sql.take, (most,)).fetchall()
        if not rows:
            self._db.rollback()
        return rows

    def done(self, moved: Sequence[int], spoiled: Sequence[tuple[int, str]]) -> None:
        self._db.execute(self._sql.remove, (list(moved),))
        for number, why in spoiled:
            self._db.execute(self._sql.spoil, (why, number))
        self._db.commit()

    def undo(self) -> None:
        if self._db is not None and not self._db.closed:
            self._db.rollback()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


class Hand:
    """A thread that does calls one after another. Unlike those of an executor it keeps no process from ending: a
    database that is frozen may never answer."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="windlass-relay", daemon=True).start()

    def submit(self, call: Callable[..., Any], *given: Any) -> Future[Any]:
        """The answer to come."""
        answer: Future[Any] = Future()
        self._calls.put((answer, partial(call, *given)))
        return answer

    def _serve(self) -> None:
        while item := self._calls.get():
            answer, call = item
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(call())
                except BaseException as error:
                    answer.set_exception(error)

    async def end(self, last: Callable[[], Any]) -> None:
        """Wait for what is being done and for a last call, but not for long."""
        self.submit(last)
        over = asyncio.wrap_future(self.submit(lambda: None))
        self._calls.put(None)
        await asyncio.wait([over], timeout=PARTING)
        over.cancel()  # that alone: the last call is done however late it comes


class Relay:
    """Moves the rows of one outbox into one store, until cancelled."""

    def __init__(self, side: Side, store: Store, name: str, bell: asyncio.Event) -> None:
        self._side = side
        self._store = store
        self._name = name
        self._bell = bell
        self._hand = Hand()
        self._pause = 0.0

    async def run(self) -> None:
        """Move what there is, wait for more; errors are told and end nothing."""
        try:
            while True:
                try:
                    full = await self._move() >= MOST
                    self._well()
                except Exception as error:
                    full = False
                    self._ill(error)
                if not full:
                    await self._wait()
        finally:
            await self._hand.end(self._side.close)

    async def _move(self) -> int:
        """Move the oldest rows; how many there were."""
        rows = await self._call(self._side.take, MOST)
        if not rows:
            return 0
        jobs, spoiled = read_rows(rows)
        try:
            moved = await self._put(jobs)
        except Exception:
            await self._call(self._side.undo)
            raise
        await self._call(self._side.done, moved, spoiled)
        for number, why in spoiled:
            logger.error("row %d of outbox %s is no job, and stays there with this error: %s", number, self._name, why)
        return len(rows)

    async def _put(self, jobs: Sequence[tuple[int, NewJob]]) -> list[int]:
        """Store jobs; the numbers of those that are stored. Where one of them is in the way, one by one."""
        try:
            await put_once(self._store, [job for _, job in jobs])
            return [number for number, _ in jobs]
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(jobs) == 1:
                raise
            logger.info("a batch of outbox %s is moved one by one: %s", self._name, error)
        moved: list[int] = []
        for number, job in jobs:
            try:
                await put_once(self._store, [job])
                moved.append(number)
            except StoreUnavailable:
                raise
            except Exception as error:
                logger.warning("job %s of outbox %s could not be moved this time: %s", job.id, self._name, error)
        return moved

    async def _call(self, call: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.wrap_future(self._hand.submit(call, *given))

    async def _wait(self) -> None:
        self._bell.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause or POLL):
                await (self._bell.wait() if not self._pause else asyncio.Event().wait())

    def _well(self) -> None:
        if self._pause:
            logger.info("outbox %s is relayed again", self._name)
        self._pause = 0.0

    def _ill(self, error: Exception) -> None:
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
        logger.warning(
            "outbox %s is not relayed, trying again in %g s: %s",
            self._name,
            self._pause,
            " ".join(str(error).split()) or type(error).__name__,
        )


async def put_once(store: Store, jobs: Sequence[NewJob], origin: str = "outbox") -> int:
    """Store jobs that may have been stored before: their ids tell, and marks beyond what retention keeps. How many are
    new.

    Of several with one id the first is meant.
    """
    jobs = list({job.id: job for job in reversed(jobs)}.values())[::-1]
    placed = await store.put(jobs, [Mark(key=f"{origin}:{job.id}", job=job.id, ttl=REMEMBERED) for job in jobs])
    return sum(one.new for one in placed)


def read_rows(rows: Iterable[Row]) -> tuple[list[tuple[int, NewJob]], list[tuple[int, str]]]:
    """Rows as jobs with their numbers; and those that are none, with the reason."""
    jobs: list[tuple[int, NewJob]] = []
    spoiled: list[tuple[int, str]] = []
    for number, text, age in rows:
        try:
            jobs.append((number, aged(msgspec.json.decode(text, type=NewJob), age)))
        except (msgspec.MsgspecError, UnicodeError) as error:
            spoiled.append((number, str(error)))
    return jobs, spoiled


def aged(job: NewJob, age: float) -> NewJob:
    """A job that has waited in the outbox: its times count from when it was put there."""
    left = None if job.expires_in is None else max(0.001, job.expires_in - age)
    return replace(job, delay=max(0.0, job.delay - age), expires_in=left, fresh=False)


class Relayed(Protocol):
    """An outbox, as workers see it."""

    async def relay(self, store: Store) -> None:
        """Move its rows into the store, until cancelled."""


@contextlib.asynccontextmanager
async def relaying(outboxes: Iterable[Relayed], store: Store) -> AsyncIterator[None]:
    """Relay these outboxes for the length of the block."""
    relays = [asyncio.create_task(outbox.relay(store)) for outbox in outboxes]
    try:
        yield
    finally:
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
