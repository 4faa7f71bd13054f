"""The one writer of a process: calls run one after another, and those that wait together share a commit."""

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from windlass.errors import StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

logger = logging.getLogger("windlass.store")

GROUP = 64
"""The most calls that share one commit."""

WAL_LIMIT = 64 * 1024 * 1024
"""Bytes of write-ahead log from which on it is copied back into the database. At 16 MB the copying takes a sixth of the
time of a bulk insert; writers wait for it, so it had better be rare."""

COPY_PAUSE = 0.5
"""Seconds between two tries to copy it back, while readers are in the way."""

WORRY_AFTER = 10.0
"""Seconds of waiting for a lock from which on we say so."""

CLOSE_WITHIN = 5.0
"""Seconds that closing waits for what is queued."""

LOCK_SLICE = 0.2
"""Seconds that SQLite itself waits for a foreign writer before we look at our deadlines again."""


class Call(Generic[T]):
    """One unit of work and where its answer goes."""

    __slots__ = ("_claimed", "_claiming", "future", "work")

    def __init__(self, work: Work[T]) -> None:
        self.work = work
        self.future: Future[T] = Future()
        self._claiming = threading.Lock()
        self._claimed = False

    def claim(self) -> bool:
        """Whether the caller of this method, and nobody else, may run or drop the work."""
        with self._claiming:
            first, self._claimed = not self._claimed, True
            return first


class Unanswered(Exception):
    """The time is over and the work may or may not be committed."""


class Writer:
    """Runs work on the caller's thread when nobody is in the way, else on a thread of its own.

    A lock file stands in front of SQLite's own lock, so that processes queue for it in the kernel instead of trying
    again and again. Foreign programs that write to the same file without it are waited for.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: str, lock_path: str) -> None:
        self._connection = connect()
        self._checkpointer = connect()
        self._checkpointer.execute("PRAGMA busy_timeout = 0")
        self._wal = f"{path}-wal"
        self._lock_file = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._signature = f"{os.getpid():<20d}".encode()
        self.mutex = threading.Lock()  # held by whoever is inside SQLite
        self._calls: deque[Call[Any]] = deque()
        self._bell = threading.Semaphore(0)
        self._closing = False
        self._next_copy = 0.0
        self._thread = threading.Thread(target=self._serve, name="windlass-writer", daemon=True)
        self._thread.start()

    def run(self, work: Work[T], timeout: float) -> T:
        """Run `work` in a transaction of its own or a shared one, within `timeout` seconds.

        Raises `StoreUnavailable` if it did not start in time (nothing is written), `Unanswered` if it did not end.
        """
        deadline = time.monotonic() + timeout
        if not self._calls and self.mutex.acquire(blocking=False):
            try:
                self._refuse_closed()
                if self._try_lock():
                    try:
                        return self._alone(work, deadline)
                    finally:
                        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
            finally:
                self.mutex.release()
        call = self._submit(work)
        try:
            return call.future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            if call.claim():
                raise busy(timeout, self._holder()) from None
            raise Unanswered from None

    async def arun(self, work: Work[T]) -> T:
        """Run `work` on the writer's thread; a foreign lock is waited for as long as it takes."""
        return await asyncio.wrap_future(self._submit(work).future)

    def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        if self._closing:
            return
        self._closing = True
        self._bell.release()
        self._thread.join(CLOSE_WITHIN)
        if self._thread.is_alive():  # a foreign program holds the lock; the end of the process lets go of all
            return
        with self.mutex:
            self._connection.close()
            self._checkpointer.close()
            os.close(self._lock_file)

    def abandon(self) -> None:
        """In a forked child: close the copies of what belongs to the parent, which held `mutex` while it forked."""
        self._closing = True
        self._connection.close()
        self._checkpointer.close()
        os.close(self._lock_file)

    def _submit(self, work: Work[T]) -> Call[T]:
        self._refuse_closed()
        call = Call(work)
        self._calls.append(call)
        self._bell.release()
        if self._closing and call.claim():  # closed meanwhile, and the thread may be over
            raise closed()
        return call

    def _refuse_closed(self) -> None:
        if self._closing:
            raise closed()

    def _serve(self) -> None:
        while not (self._closing and not self._calls):
            self._bell.acquire()
            group: list[Call[Any]] = []
            with self.mutex:
                if self._calls:
                    self._serve_group(group)

    def _serve_group(self, group: list[Call[Any]]) -> None:
        try:
            self._lock_patiently()
            self._begin(None)
            while self._calls and len(group) < GROUP:
                call = self._calls.popleft()
                if not call.future.cancelled() and call.claim():
                    group.append(call)
            answers = self._together(group)
        except Exception as error:  # whatever it is, this thread goes on, and those who wait are told
            answers = [(call, None, failure(error)) for call in group or self._drain()]
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        for call, value, problem in answers:
            if call.future.set_running_or_notify_cancel():
                call.future.set_exception(problem) if problem else call.future.set_result(value)

    def _drain(self) -> list[Call[Any]]:
        waiting = [self._calls.popleft() for _ in range(len(self._calls))]
        return [call for call in waiting if call.claim()]

    def _lock_patiently(self) -> None:
        if not self._try_lock():
            worry = threading.Timer(WORRY_AFTER, self._worry)
            worry.start()
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            finally:
                worry.cancel()
            self._sign()

    def _worry(self) -> None:
        logger.warning(
            "%s has held the lock file of %s for over %g s; is it stopped, in a debugger, or in a call that holds the "
            "interpreter's lock? Ending it frees the file",
            self._holder(),
            self._wal[:-4],
            WORRY_AFTER,
        )

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._sign()
        return True

    def _sign(self) -> None:
        """Say in the lock file who holds it, for those that wait."""
        with contextlib.suppress(OSError):  # a full disk; it is for people only
            os.pwrite(self._lock_file, self._signature, 0)

    def _holder(self) -> str:
        """Who signed last, in words."""
        with contextlib.suppress(OSError, ValueError):
            return f"process {int(os.pread(self._lock_file, 20, 0))}"
        return "another program"

    def _begin(self, deadline: float | None) -> None:
        """Take SQLite's write lock. Raises `StoreUnavailable` when `deadline` (monotonic) passes first."""
        self._roll_back()  # what a signal may have left open
        started = time.monotonic()
        warned = False
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_locked(error):
                    raise failure(error) from error
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise busy(now - started, "another program")
            if now - started > WORRY_AFTER and not warned:
                warned = True
                logger.warning(
                    "another program has held the write lock of %s for over 10 s; waiting on", self._wal[:-4]
                )

    def _alone(self, work: Work[T], deadline: float) -> T:
        try:
            self._begin(deadline)
            value = work(self._connection)
            self._commit()
        except BaseException:
            self._roll_back()
            raise
        self._copy_back()
        return value

    def _together(self, group: list[Call[Any]]) -> list[tuple[Call[Any], Any, BaseException | None]]:
        answers: list[tuple[Call[Any], Any, BaseException | None]] = []
        try:
            for call in group:
                value, problem = None, None
                if len(group) > 1:
                    self._connection.execute("SAVEPOINT one")
                try:
                    value = call.work(self._connection)
                except BaseException as error:
                    problem = failure(error) if isinstance(error, sqlite3.Error) else error
                    if not self._connection.in_transaction:  # SQLite itself gave the whole group up, as on a full disk
                        raise
                    if len(group) > 1:
                        self._connection.execute("ROLLBACK TO one")
                    else:
                        self._roll_back()
                if len(group) > 1:
                    self._connection.execute("RELEASE one")
                answers.append((call, value, problem))
            if self._connection.in_transaction:
                self._commit()
        except BaseException:
            self._roll_back()
            raise
        self._copy_back()
        return answers

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _copy_back(self) -> None:
        """Copy a long log back into the database and empty it, holding the write lock all the time.

        SQLite 3.7.0 to 3.51.2 can lose a commit made while two checkpoints follow each other quickly. TRUNCATE takes
        the write lock first, and our lock file keeps our own processes from starting a second one.
        """
        now = time.monotonic()
        try:
            if now < self._next_copy or os.stat(self._wal).st_size < WAL_LIMIT:
                return
            self._next_copy = now + COPY_PAUSE
            self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except (OSError, sqlite3.Error) as error:
            logger.debug("the log was not copied back this time: %s", error)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another connection holds a lock that we want."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def closed() -> StoreUnavailable:
    """The error of a call that came after the end."""
    return StoreUnavailable("the store is closed; open it again before using it")


def busy(seconds: float, holder: str) -> StoreUnavailable:
    """The error of a call that did not get the write lock in time."""
    return StoreUnavailable(
        f"the write lock of the database was not free for {seconds:.1f} s ({holder} had it); nothing was written. "
        "Try again, or shorten that program's transactions"
    )


def failure(error: BaseException) -> StoreUnavailable:
    """An SQLite error as one of ours, with what can be done about it."""
    if isinstance(error, StoreUnavailable):
        return error
    text = str(error)
    if "full" in text:
        text += ": free some space; waiting work goes on by itself"
    elif "readonly" in text:
        text += ": the database file and its folder must be writable for this user"
    return StoreUnavailable(f"SQLite could not write: {text}")
