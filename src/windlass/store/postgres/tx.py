"""PostgreSQL, inside a transaction that is the user's."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.rows import tuple_row

from windlass.clock import Clock
from windlass.errors import ConfigError, StoreUnavailable
from windlass.model import Doc, Mark, NewJob, Outcome, Placed, Shelf
from windlass.store.contract import Topic
from windlass.store.links import committed, watch
from windlass.store.postgres import statements
from windlass.store.postgres.statements import SQL
from windlass.store.postgres.target import Target, parse
from windlass.store.tx import OUTBOX, Call, Start, Steps

logger = logging.getLogger("windlass.store")

SPARE = 4
"""The most idle connections that are kept for the next transaction."""

CALM, PAUSE, IDLE = 0.01, 1.0, 10.0
"""Seconds between two hints, of which one serves all commits in between; after a connection that failed; and without a
hint until the connection is given up."""


class PostgresTx:
    """One schema of one database. A connection that was seen to lead there is not asked again."""

    def __init__(self, url: str, _: Clock) -> None:
        self._target = parse(url)
        self._seen: WeakSet[Any] = WeakSet()
        self._bell = Bell(self._target)
        self._spare = Spare()

    def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> Start[list[Placed]]:
        def start(anchor: object) -> Steps[list[Placed]]:
            yield from self._find_schema(anchor)
            call = statements.put_call(self._target.quoted, jobs, marks, docs, in_tx=True)
            rows = yield call
            return statements.read_put(rows, jobs, call).placed

        return start

    def load(self, kind: str, names: Collection[str] | None = None) -> Start[Shelf]:
        def start(anchor: object) -> Steps[Shelf]:
            yield from self._find_schema(anchor)
            rows = yield statements.load_call(self._target.quoted, kind, names, None, "")
            return statements.read_load(kind, rows)

        return start

    def save(self, docs: Sequence[Doc], drop: Collection[tuple[str, str]] = ()) -> Start[None]:
        def start(anchor: object) -> Steps[None]:
            yield from self._find_schema(anchor)
            yield statements.save_call(self._target.quoted, docs, drop, in_tx=True)

        return start

    def _find_schema(self, anchor: object) -> Steps[None]:
        """Raise `ConfigError` if the schema is not there. An error of the server would end the user's transaction."""
        if anchor in self._seen:
            return
        rows = yield Call(EXISTS, (f"{self._target.quoted}.put",))
        if not rows[0][0]:
            raise ConfigError(
                f"the database that tx= leads to has no schema {self._target.schema!r} of Windlass. If it is the one "
                f"of this app, run `windlass migrate` first. If it is another: {OUTBOX}"
            )
        self._seen.add(anchor)

    def settle(self, runner: str, outcome: Outcome) -> Start[bool]:
        def start(anchor: object) -> Steps[bool]:
            yield from self._find_schema(anchor)
            rows = yield statements.settle_first_call(self._target.quoted, runner, outcome)
            return statements.read_settle(rows)

        return start

    def ring(self, topic: Topic = "work") -> None:
        self._bell.ring(topic)

    def block(self, asynchronous: bool) -> "ServerBlock":
        return ServerBlock(self._target, self._spare, self._bell, asynchronous)

    def close(self) -> None:
        self._spare.close()


EXISTS = "SELECT to_regproc(%s::text) IS NOT NULL"


class Bell:
    """Wakes who waits, from a thread and a connection of its own: a NOTIFY inside the user's transaction would make all
    commits of the server wait for each other."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._begin()

    def _begin(self) -> None:
        """Nobody serves yet, as in a forked child."""
        self._lock = threading.Lock()
        self._topics: set[Topic] = set()
        self._rung = threading.Event()
        self._serving = False
        self._pid = os.getpid()

    def ring(self, topic: Topic) -> None:
        """Soon. Never waits, never raises."""
        if self._target.listen is None:
            return
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._topics.add(topic)
            self._rung.set()
            if not self._serving:
                with contextlib.suppress(RuntimeError):  # no threads left, or the interpreter ends: polling finds it
                    threading.Thread(target=self._serve, name="windlass-bell", daemon=True).start()
                    self._serving = True

    def _serve(self) -> None:
        """Ring until nothing was to be rung for a while, or the server is gone."""
        try:
            with psycopg.connect(self._target.conninfo, autocommit=True, prepare_threshold=None) as db:
                while self._goes_on():
                    while self._topics:
                        db.execute(SQL.ring, (statements.channel(self._target.schema, self._topics.pop()),))
                    time.sleep(CALM)
        except psycopg.Error as error:
            logger.debug("nobody was woken; polling finds the job: %s", error)
            time.sleep(PAUSE)
            with self._lock:
                self._serving = False

    def _goes_on(self) -> bool:
        rung = self._rung.wait(IDLE)
        with self._lock:
            self._rung.clear()
            self._serving = rung or bool(self._topics)
            return self._serving


# A transaction of ours, for the user to write in


class Spare:
    """Idle connections, of threads (None) and of event loops, each for the next transaction there."""

    def __init__(self) -> None:
        self._idle: dict[object, list[Any]] = {}
        self._pid = os.getpid()

    def take(self, loop: object) -> Any:
        """One that can be used, or None."""
        if self._pid != os.getpid():
            _inherited.append(self._idle)
            self._idle, self._pid = {}, os.getpid()
        idle = self._idle.get(loop, [])
        with contextlib.suppress(IndexError):
            while (connection := idle.pop()).closed:
                pass
            return connection
        return None

    def keep(self, loop: object, connection: Any) -> bool:
        """Whether it was kept."""
        idle = self._idle.setdefault(loop, [])
        if connection.closed or len(idle) >= SPARE:
            return False
        connection.row_factory, connection.prepare_threshold = tuple_row, None
        idle.append(connection)
        return True

    def close(self) -> None:
        """Drop them all."""
        for idle in self._idle.values():
            for connection in idle:
                connection.pgconn.finish()
            idle.clear()


_inherited: list[object] = []
"""Kept so that a forked child never closes what belongs to its parent."""


class ServerBlock:
    """A transaction on a connection of its own, blocking or asynchronous."""

    threaded = False

    def __init__(self, target: Target, spare: Spare, bell: Bell, asynchronous: bool) -> None:
        self._target = target
        self._spare = spare
        self._bell = bell
        self._async = asynchronous
        self._loop = asyncio.get_running_loop() if asynchronous else None
        self._db: Any = None
        self._open: Any = None

    def abandon(self) -> None:
        """What is cancelled while it connects ends by itself."""

    def enter(self) -> Steps[Any]:
        self._db = self._spare.take(self._loop)
        if self._db is not None:
            try:
                return (yield from self._begin())
            except psycopg.OperationalError:  # it broke while it lay idle
                self._db.pgconn.finish()
        try:
            kind: Any = psycopg.AsyncConnection if self._async else psycopg.Connection
            self._db = yield partial(kind.connect, self._target.conninfo, autocommit=True, prepare_threshold=None)
            return (yield from self._begin())
        except psycopg.OperationalError as error:
            raise StoreUnavailable(f"no transaction could be begun at {self._target.place}: {error}") from error

    def _begin(self) -> Steps[Any]:
        self._open = self._db.transaction()
        yield self._open.__aenter__ if self._async else self._open.__enter__
        yield partial(self._db.execute, SQL.watch_client)
        watch(self._db)
        return self._db

    def leave(self, runner: str, outcome: Outcome | None) -> Steps[bool]:
        try:
            stands = outcome is not None and (yield from self._settle(runner, outcome))
            yield from self._exit(None if stands else psycopg.Rollback(self._open))
        except BaseException:
            self._db.pgconn.finish()
            raise
        if stands:
            committed(self._db)
            self._bell.ring("done")
        yield from self._give_back()
        return stands

    def _give_back(self) -> Steps[None]:
        """Keep the connection, with nothing left of what the user set; what fails here changes nothing any more."""
        try:
            yield partial(self._db.execute, "DISCARD ALL", prepare=False)
            if self._spare.keep(self._loop, self._db):
                return
        except Exception as error:
            logger.debug("a connection was not kept: %s", error)
        self._db.pgconn.finish()

    def _settle(self, runner: str, outcome: Outcome) -> Steps[bool]:
        call = statements.settle_first_call(self._target.quoted, runner, outcome)
        self._db.row_factory = tuple_row
        cursor = yield partial(self._db.execute, call.sql, call.params)
        rows = yield cursor.fetchall
        return statements.read_settle(rows)

    def _exit(self, error: BaseException | None) -> Steps[None]:
        leave = self._open.__aexit__ if self._async else self._open.__exit__
        yield partial(leave, type(error) if error else None, error, None)
