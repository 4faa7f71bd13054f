"""SQLite, inside a transaction that is the user's."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from windlass.clock import Clock
from windlass.errors import ConfigError, StoreUnavailable
from windlass.model import Doc, Mark, NewJob, Outcome, Placed, Shelf
from windlass.store.contract import Topic
from windlass.store.links import committed, watch
from windlass.store.rows import micros
from windlass.store.sqlite import moves, reads
from windlass.store.sqlite.moves import SQL
from windlass.store.sqlite.schema import bring_up, parse
from windlass.store.sqlite.sidecar import ring_all
from windlass.store.sqlite.writer import LOCK_SLICE, failure, is_locked
from windlass.store.tx import OUTBOX, Start, Steps

T = TypeVar("T")

ELSEWHERE = f"but the jobs of this app are in {{}}. {OUTBOX}"

LEGACY = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)


class SQLiteTx:
    """One database file."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.path, self._synchronous = parse(url)
        if self.path == ":memory:":
            raise ConfigError(
                "a transaction needs a store that other connections can open; this app's is in memory. "
                "Use a file: sqlite:///windlass.db"
            )
        self._clock = clock

    def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> Start[list[Placed]]:
        def put(db: sqlite3.Connection, now: int) -> list[Placed]:
            bring_up(db)
            return moves.put(db, now, jobs, marks, docs)

        return self._joined(put)

    def load(self, kind: str, names: Collection[str] | None = None) -> Start[Shelf]:
        def load(db: sqlite3.Connection, now: int) -> Shelf:
            bring_up(db)
            return reads.load(db, now, kind, names, None, "")

        return self._joined(load)

    def save(self, docs: Sequence[Doc], drop: Collection[tuple[str, str]] = ()) -> Start[None]:
        return self._joined(lambda db, now: moves.save_docs(db, now, docs, drop))

    def settle(self, runner: str, outcome: Outcome) -> Start[bool]:
        return self._joined(lambda db, now: moves.settle_first(db, now, runner, outcome))

    def _joined(self, work: Callable[[sqlite3.Connection, int], T]) -> Start[T]:
        """Work of one step, given the time."""

        def step(db: sqlite3.Connection) -> T:
            return join(db, self.path, SQL.seize, lambda db: work(db, micros(self._clock.now())))

        def start(_: object) -> Steps[T]:
            done: T = yield step
            return done

        return start

    def ring(self, topic: Topic = "work") -> None:
        ring_all(Path(f"{self.path}.d"), topic)

    def block(self, asynchronous: bool) -> "FileBlock":
        return FileBlock(self.path, self._synchronous, self._clock)

    def close(self) -> None:
        pass


# The user's own connection


def join(
    db: sqlite3.Connection, path: str, seize: str, work: Callable[[sqlite3.Connection], T], refusal: str = ELSEWHERE
) -> T:
    """Run `work` inside the open transaction of the user's connection: all of it or nothing, never committed.

    Where Python's `sqlite3` would begin a transaction at the first write, one is begun. Raises `ConfigError` if none is
    open and none would be begun, or if the connection leads to another file; `StoreUnavailable` if it cannot write.
    """
    with plain_rows(db):
        refuse_other_file(db, path, refusal)
        try:
            with begun(db), savepoint(db):
                take_lock(db, seize)
                return work(db)
        except sqlite3.OperationalError as error:
            refuse(error, path)


def refuse_other_file(db: sqlite3.Connection, path: str, refusal: str) -> None:
    """Raise `ConfigError` unless the main database of the connection is the file at `path`."""
    file = next((str(row[2] or "") for row in db.execute("PRAGMA database_list") if row[1] == "main"), "")
    if not file or os.path.realpath(file) != os.path.realpath(path):
        raise ConfigError(f"tx leads to {file or 'a database in memory'}, {refusal.format(path)}")


@contextlib.contextmanager
def plain_rows(db: sqlite3.Connection) -> Iterator[None]:
    """Rows as tuples and texts as str, whatever the user has set."""
    rows, texts = db.row_factory, db.text_factory
    db.row_factory, db.text_factory = None, str
    try:
        yield
    finally:
        db.row_factory, db.text_factory = rows, texts


@contextlib.contextmanager
def begun(db: sqlite3.Connection) -> Iterator[None]:
    """Have a transaction open. One that was begun here and in which nothing could be written is taken back."""
    if db.in_transaction:
        yield
        return
    mode = getattr(db, "autocommit", LEGACY)
    if mode is True or (mode == LEGACY and db.isolation_level is None):
        raise ConfigError(
            "tx= needs an open transaction; this SQLite connection commits each statement by itself. "
            'Begin one: connection.execute("BEGIN IMMEDIATE")'
        )
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def take_lock(db: sqlite3.Connection, seize: str) -> None:
    """Take the write lock before anything is read; a `BEGIN` alone has taken none."""
    try:
        db.execute(seize)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise


@contextlib.contextmanager
def savepoint(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it; what was in the transaction before stays."""
    db.execute("SAVEPOINT windlass")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # else SQLite itself gave the transaction up, as on a full disk
            db.execute("ROLLBACK TO windlass")
            db.execute("RELEASE windlass")
        raise
    db.execute("RELEASE windlass")


def refuse(error: sqlite3.OperationalError, path: str) -> NoReturn:
    """Raise what an error means for the user."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY_SNAPSHOT:
        raise StoreUnavailable(
            f"your transaction read {path} before somebody else wrote to it, so SQLite lets it write no more; nothing "
            'was written. Roll back, and begin with "BEGIN IMMEDIATE" what is going to write'
        ) from error
    if is_locked(error):
        raise StoreUnavailable(
            f"another connection held the write lock of {path} for longer than this connection waits (PRAGMA "
            "busy_timeout); nothing was written. Try again, or let it wait longer: sqlite3.connect(timeout=…)"
        ) from error
    raise failure(error) from error


# A transaction of ours, for the user to write in


class BlockConnection(sqlite3.Connection):
    """The connection of a block: it commits with the job, and not before."""

    def commit(self) -> None:
        raise ConfigError("the block commits by itself, together with the job, when it ends: call no commit() in it")

    def rollback(self) -> None:
        raise ConfigError("to roll back, leave the block by an exception: call no rollback() in it")

    def __enter__(self) -> NoReturn:
        raise ConfigError("the connection is in a transaction already, which ends with the block: no `with` around it")


class FileBlock:
    """A transaction on a connection of its own, queued for behind the lock file as our own writers are."""

    threaded = True

    def __init__(self, path: str, synchronous: str, clock: Clock) -> None:
        self._path = path
        self._synchronous = synchronous
        self._clock = clock
        self._abandoned = False
        self._lock: int | None = None
        self._db: BlockConnection | None = None

    def abandon(self) -> None:
        self._abandoned = True

    def enter(self) -> Steps[sqlite3.Connection]:
        db: sqlite3.Connection = yield self._open
        return db

    def leave(self, runner: str, outcome: Outcome | None) -> Steps[bool]:
        stands: bool = yield partial(self._end, runner, outcome)
        return stands

    def _open(self) -> sqlite3.Connection:
        try:
            folder = Path(f"{self._path}.d")
            folder.mkdir(exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._db = sqlite3.connect(
                self._path, timeout=LOCK_SLICE, isolation_level=None, check_same_thread=False, factory=BlockConnection
            )
            self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._db.execute("PRAGMA wal_autocheckpoint = 0")
            self._begin(self._db)
            watch(self._db)
            return self._db
        except BaseException:
            self._close()
            raise

    def _begin(self, db: sqlite3.Connection) -> None:
        """Take the write lock; a foreign writer is waited for as long as it takes."""
        while not self._abandoned:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_locked(error):
                    raise failure(error) from error
        raise StoreUnavailable("nobody waits for this transaction any more; it was not begun")

    def _end(self, runner: str, outcome: Outcome | None) -> bool:
        db, stands = self._db, False
        assert db
        try:
            if outcome is None:
                return False
            if not db.in_transaction:
                raise ConfigError(
                    "the transaction was ended inside the block; what was committed there stands without the job. "
                    "Run no COMMIT or ROLLBACK in it"
                )
            with plain_rows(db):
                stands = moves.settle_first(db, micros(self._clock.now()), runner, outcome)
            if stands:
                db.execute("COMMIT")
            return stands
        except sqlite3.Error as error:
            raise failure(error) from error
        finally:
            self._close()
            if stands:
                ring_all(Path(f"{self._path}.d"), "done")
                committed(db)

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()  # rolls back what is open
        if self._lock is not None:
            os.close(self._lock)
        self._db = self._lock = None
