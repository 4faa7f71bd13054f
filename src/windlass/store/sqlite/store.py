"""The SQLite store: the contract over one writer, a few readers and the sidecar."""

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from windlass.clock import Clock
from windlass.errors import EnqueueUnknown, Evicted, StoreUnavailable
from windlass.model import (
    Demand,
    Depth,
    Doc,
    Ending,
    Exchanged,
    Filter,
    Held,
    JobRecord,
    Line,
    Mark,
    NewJob,
    Orders,
    Outcome,
    Page,
    Patch,
    Placed,
    Rest,
    RunnerInfo,
    Shed,
    Shelf,
    State,
    Tally,
    Verb,
    WorkerInfo,
)
from windlass.place import Change
from windlass.store import fork
from windlass.store.census import ALL, FRONT, Census, Rows
from windlass.store.contract import BATCH, PACE, Topic
from windlass.store.rows import micros
from windlass.store.sqlite import control, moves, reads, tallies
from windlass.store.sqlite.gates import rest
from windlass.store.sqlite.mend import mend
from windlass.store.sqlite.moves import SQL
from windlass.store.sqlite.rows import Unreadable, exact, fetch, one
from windlass.store.sqlite.schema import apply_migrations, parse, probe, refuse_old, use_log
from windlass.store.sqlite.sidecar import FileSidecar, MemorySidecar, Sidecar
from windlass.store.sqlite.writer import LOCK_SLICE, Unanswered, Writer, closed, failure

T = TypeVar("T")
READERS = 4
MEMORY = ":memory:"
SOON = 2.0
"""Seconds within which a delayed job is due soon enough to ring for it; duties see later ones in time."""


class SQLiteStore:
    """Jobs in one SQLite file, or with `sqlite:///:memory:` in this process alone."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.path, self._synchronous = parse(url)
        self._clock = clock
        self._memory = self.path == MEMORY
        self._opening = threading.Lock()
        self._writer: Writer | None = None
        self._sidecar: Sidecar = MemorySidecar(clock)
        self._readers: ThreadPoolExecutor | None = None
        self._pulse: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._reading: list[sqlite3.Connection] = []
        self._shared: sqlite3.Connection | None = None
        self._inline = threading.RLock()
        self._gate = fork.Gate()
        self._held = contextlib.ExitStack()
        self._quiet = False
        self._census = Census(self._lines)
        self._counting: sqlite3.Connection | None = None
        if not self._memory:
            fork.watch(self)

    # Lifecycle

    async def open(self) -> None:
        await asyncio.to_thread(self.open_now)

    def open_now(self) -> None:
        """`open`, blocking; safe to call twice."""
        with self._opening:
            if self._writer or self._shared:
                return
            refuse_old()
            if self._memory:
                self._shared = self._connect()
                apply_migrations(self._shared)
                return
            if not Path(self.path).parent.is_dir():
                raise StoreUnavailable(f"the folder of {self.path} does not exist: make it, or set WINDLASS_URL")
            try:
                self._migrate()
                sidecar = Path(f"{self.path}.d")
                self._sidecar = FileSidecar(sidecar, self._clock)
                self._writer = Writer(self._connect, self.path, str(sidecar / "lock"))
            except (sqlite3.Error, OSError) as error:
                raise StoreUnavailable(f"{self.path} cannot be opened: {error}") from error
            self._readers = ThreadPoolExecutor(READERS, "windlass-reader")
            self._pulse = ThreadPoolExecutor(1, "windlass-pulse")

    async def close(self) -> None:
        self._census.stop()
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """`close`, blocking."""
        with self._opening:
            if (counting := self._counting) is not None:
                counting.interrupt()
            for pool in (self._readers, self._pulse):
                if pool:
                    pool.shutdown()
            for connection in self._reading:
                connection.close()
            self._reading.clear()
            self._local = threading.local()
            if self._writer:
                self._writer.close()
            if self._shared:
                self._shared.close()
            self._sidecar.close()
            self._writer = self._shared = self._readers = self._pulse = None

    # Forks

    def hold(self) -> None:
        """Before a fork: wait until no thread is inside SQLite, or about to open or close the store."""
        held = self._held = contextlib.ExitStack()
        end = time.monotonic() + fork.PATIENCE
        self._quiet = self._opening.acquire(timeout=fork.PATIENCE)
        if self._quiet:
            held.callback(self._opening.release)
        if self._writer and (mutex := self._writer.mutex).acquire(timeout=max(0.0, end - time.monotonic())):
            held.callback(mutex.release)
        else:
            self._quiet = self._quiet and not self._writer
        held.callback(self._gate.open)
        self._quiet = self._gate.shut(max(0.0, end - time.monotonic())) and self._quiet

    def let_go(self) -> None:
        """After it, in the parent."""
        self._held.close()

    def abandon(self) -> None:
        """After it, in the child: what was inherited is closed before anything is opened. This object is over."""
        if self._quiet:
            for connection in self._reading:
                connection.close()
            if self._writer:
                self._writer.abandon()
        else:
            fork.warn(self.path)
        self._writer = self._readers = self._pulse = None

    async def migrate(self) -> Sequence[str]:
        if self._shared:
            return []
        try:
            return await asyncio.to_thread(self._migrate)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path} cannot be brought up to date: {error}") from error

    def _migrate(self) -> list[str]:
        with self._gate, contextlib.closing(self._connect()) as db:
            return apply_migrations(db)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=LOCK_SLICE, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        use_log(db)
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA mmap_size = 0")
        db.execute("PRAGMA cache_size = -16000")
        return db

    # Ways in

    def _now(self) -> int:
        return micros(self._clock.now())

    async def _write(self, work: Callable[[sqlite3.Connection, int], T]) -> T:
        try:
            return await self._commit(work)
        except Unreadable:
            await self._commit(mend)
            self._sidecar.ring("done")
            return await self._commit(work)

    async def _commit(self, work: Callable[[sqlite3.Connection, int], T]) -> T:
        if self._shared:
            return self._run_inline(work)
        if not self._writer:
            raise StoreUnavailable("the store is not open")
        return await self._writer.arun(lambda db: work(db, self._now()))

    def _run_inline(self, work: Callable[[sqlite3.Connection, int], T]) -> T:
        assert self._shared
        with self._inline:
            self._shared.execute("BEGIN")
            try:
                value = work(self._shared, self._now())
            except BaseException:
                self._shared.execute("ROLLBACK")
                raise
            self._shared.execute("COMMIT")
            return value

    async def _read(self, work: Callable[[sqlite3.Connection], T], pool: ThreadPoolExecutor | None = None) -> T:
        if self._shared:
            with self._inline:
                return work(self._shared)
        pool = pool or self._readers
        if not pool:
            raise StoreUnavailable("the store is not open")
        try:
            answer = asyncio.get_running_loop().run_in_executor(pool, self._read_here, work)
        except RuntimeError:  # the pool takes nothing more: the store is being closed
            raise closed() from None
        return await answer

    def _read_here(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._gate:
                db: sqlite3.Connection | None = getattr(self._local, "db", None)
                if db is None:
                    db = self._local.db = self._connect()
                    self._reading.append(db)
                return work(db)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path} cannot be read: {error}") from error

    # Jobs in

    async def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> list[Placed]:
        placed = await self._write(lambda db, now: moves.put(db, now, jobs, marks, docs))
        self._ring_for(jobs)
        return placed

    def put_now(self, jobs: Sequence[NewJob], timeout: float) -> list[Placed]:
        def work(db: sqlite3.Connection, now: int) -> list[Placed]:
            return moves.put(db, now, jobs, (), ())

        try:
            try:
                placed = self._commit_now(work, timeout)
            except Unreadable:
                self._commit_now(mend, timeout)
                placed = self._commit_now(work, timeout)
        except Unanswered:
            raise EnqueueUnknown(
                f"the database did not answer within {timeout:g} s: the job may exist. "
                "Repeating with using(id=…) is safe",
                jobs[0].id,
            ) from None
        except sqlite3.Error as error:
            raise failure(error) from error
        self._ring_for(jobs)
        return placed

    def _commit_now(self, work: Callable[[sqlite3.Connection, int], T], timeout: float) -> T:
        if self._shared:
            return self._run_inline(work)
        if not self._writer:
            raise StoreUnavailable("the store is not open")
        return self._writer.run(lambda db: work(db, self._now()), timeout)

    def _ring_for(self, jobs: Sequence[NewJob]) -> None:
        if any(job.delay <= SOON for job in jobs):
            self._sidecar.ring("work")

    # Workers

    async def enlist(self, worker: WorkerInfo) -> None:
        def work(db: sqlite3.Connection, now: int) -> None:
            moves.refuse_known(db, worker.id)
            self._sidecar.beat(worker.id)
            db.execute(
                SQL.enlist,
                (
                    worker.id,
                    worker.host,
                    worker.pid,
                    worker.version,
                    worker.lease,
                    worker.queues,
                    worker.concurrency,
                    now,
                ),
            )

        await self._write(work)

    async def join(self, runner: RunnerInfo) -> None:
        def work(db: sqlite3.Connection, now: int) -> None:
            moves.refuse_known(db, runner.id)
            if one(db, SQL.worker, (runner.worker,)) is None:
                raise Evicted(f"worker {runner.worker} is not registered any more")
            db.execute(SQL.join, (runner.id, runner.worker, runner.pid, json.dumps(runner.tasks), now))

        await self._write(work)

    async def exchange(self, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand) -> Exchanged:
        answer, rings = await self._write(lambda db, now: moves.exchange(db, now, runner, seq, outcomes, demand))
        for topic in rings:
            self._sidecar.ring(topic)
        return answer

    async def settle(self, runner: str, outcome: Outcome) -> bool:
        refused = await self._write(lambda db, now: moves.settle(db, now, runner, [outcome]))
        self._sidecar.ring("done")
        return not refused

    async def release(self, runners: Sequence[str], ending: Ending, outcomes: Sequence[Outcome] = ()) -> int:
        def work(db: sqlite3.Connection, now: int) -> int:
            return sum(moves.depart_runner(db, now, runner, ending, outcomes) for runner in runners)

        back = await self._write(work)
        self._sidecar.ring("work")
        self._sidecar.ring("done")
        return back

    async def retire(self, worker: str) -> None:
        await self._write(lambda db, now: moves.depart_worker(db, now, worker, Ending.INTERRUPTED))
        self._sidecar.forget(worker)
        self._sidecar.ring("work")

    async def beat(self, worker: str, held: Mapping[str, Held] | None = None) -> Orders:
        orders = await self._read(lambda db: self._beat(db, worker), self._pulse)
        for runner, keep in (held or {}).items():
            await self._reconcile(runner, keep)
        return orders

    def _beat(self, db: sqlite3.Connection, worker: str) -> Orders:
        leases = dict(fetch(db, SQL.leases))
        if worker not in leases:
            self._sidecar.forget(worker)
            return Orders(evicted=True)
        self._sidecar.beat(worker)
        ages = self._sidecar.ages(leases)
        dead = any(ages[id] > lease for id, lease in leases.items())
        return reads.orders(db, self._now(), worker, dead=dead)

    async def _reconcile(self, runner: str, keep: Held) -> None:
        """Hand back claims that nobody holds; looks first, because there is nearly always nothing to do."""

        def phantom(db: sqlite3.Connection) -> bool:
            rows = fetch(db, SQL.held_by, (runner,))
            return any(seq <= keep.seq and (id, fence) not in keep.claims for id, fence, seq, _ in rows)

        if await self._read(phantom, self._pulse):
            await self._write(lambda db, now: moves.hand_back(db, now, runner, Ending.INTERRUPTED, keep))
            self._sidecar.ring("work")

    async def reap(self, spare: str | None = None) -> list[str]:
        def work(db: sqlite3.Connection, now: int) -> list[str]:
            leases = dict(exact(db, SQL.leases))
            ages = self._sidecar.ages(leases)
            dead = [worker for worker, lease in leases.items() if ages[worker] > lease and worker != spare]
            for worker in dead:
                moves.depart_worker(db, now, worker, Ending.LOST)
            return dead

        dead = await self._write(work)
        for worker in dead:
            self._sidecar.forget(worker)
        if dead:
            self._sidecar.ring("work")
        return dead

    async def wait(self, topic: Topic, timeout: float) -> bool:
        return await self._sidecar.listen(topic, timeout)

    async def note(self, runner: str, patches: Sequence[Patch]) -> Sequence[str]:
        def work(db: sqlite3.Connection, _: int) -> list[str]:
            return [patch.id for patch in patches if not moves.note(db, runner, patch)]

        return await self._write(work)

    async def rest(self, runner: str, leaving: Sequence[Rest], entering: Sequence[Rest]) -> Sequence[str]:
        back = await self._write(lambda db, now: rest(db, now, runner, leaving, entering))
        if leaving:
            self._sidecar.ring("work")
        return back

    # Operators

    async def act(self, target: Filter | Sequence[str], verb: Verb, most: int = BATCH) -> list[str]:
        def work(db: sqlite3.Connection, now: int) -> list[str]:
            bound = min(most, BATCH)
            ids = reads.targets(db, target, verb, bound) if isinstance(target, Filter) else target[:bound]
            return [id for id in ids if moves.act(db, now, id, verb)]

        done = await self._write(work)
        if done:
            self._sidecar.ring("work" if verb is Verb.RETRY else "done")
        return done

    async def shed(self, queue: str, most: int, *, below: int | None = None, reason: str = "") -> Shed:
        shed = await self._write(lambda db, now: control.shed(db, now, queue, most, below, reason))
        if shed.ids:
            self._sidecar.ring("done")
        return shed

    async def amend(self, changes: Sequence[Change]) -> list[str]:
        done = await self._write(lambda db, now: [one.id for one in changes[:BATCH] if control.amend(db, one)])
        if done:
            self._sidecar.ring("work")
        return done

    async def lift(self) -> int:
        lifted = await self._write(control.lift)
        if lifted:
            self._sidecar.ring("work")
        return lifted

    async def prune(self, keep: Mapping[State, float]) -> int:
        def work(db: sqlite3.Connection, now: int) -> int:
            left = BATCH
            for state, age in keep.items():
                left -= db.execute(SQL.prune_jobs, (state, now - micros(age), left)).rowcount
            left -= db.execute(SQL.prune_marks, (now, left)).rowcount
            db.execute(SQL.prune_paces, (PACE, now, BATCH))
            db.execute(SQL.prune_departed, (now - micros(moves.DEPARTED_FOR),))
            tallies.prune(db, now)
            return BATCH - left

        return await self._write(work)

    async def save(self, docs: Sequence[Doc], drop: Collection[tuple[str, str]] = ()) -> None:
        if await self._write(lambda db, now: moves.save(db, now, docs, drop)):
            self._sidecar.ring("work")

    async def load(
        self, kind: str, *, names: Collection[str] | None = None, due: float | None = None, after: str = ""
    ) -> Shelf:
        return await self._read(lambda db: reads.load(db, self._now(), kind, names, due, after))

    # Reading

    async def get(self, ids: Sequence[str]) -> list[JobRecord]:
        return await self._read(lambda db: reads.get(db, ids))

    async def holders(self, keys: Sequence[str]) -> Mapping[str, str]:
        return await self._read(lambda db: reads.holders(db, self._now(), keys))

    async def find(self, filter: Filter, limit: int = 100, after: str | None = None, far: int | None = None) -> Page:
        return await self._read(lambda db: reads.find(db, filter, limit, after, far))

    async def count(self, filter: Filter, most: int | None = None) -> int:
        return await self._read(lambda db: reads.count(db, filter, most))

    async def stats(self) -> list[Line]:
        return await self._census.take()

    async def _lines(self, most: int) -> tuple[int, Rows]:
        return self._now(), await self._read(lambda db: self._lines_here(db, most))

    def _lines_here(self, db: sqlite3.Connection, most: int) -> Rows:
        if most < ALL:
            return fetch(db, SQL.stats, (most, FRONT))
        self._counting = db
        try:
            return fetch(db, SQL.stats, (most, FRONT))
        finally:
            self._counting = None

    async def tally(self, rows: Sequence[Tally], depths: Sequence[Depth] = ()) -> None:
        await self._write(lambda db, now: tallies.tally(db, now, rows, depths))

    async def series(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Tally]:
        return await self._read(lambda db: tallies.series(db, self._now(), since, until, step, queue))

    async def depths(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Depth]:
        return await self._read(lambda db: tallies.depths(db, self._now(), since, until, step, queue))

    async def workers(self) -> list[WorkerInfo]:
        return await self._read(lambda db: reads.workers(db, self._sidecar.ages))

    async def probe(self) -> Mapping[str, str]:
        return await self._read(lambda db: probe(db, self.path))
