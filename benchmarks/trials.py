"""Long trials of what Windlass promises, as commands: python -m benchmarks.trials TRIAL [--seconds N].

On SQLite: backlog, locked. On a PostgreSQL server of their own, with default settings: snapshot, wakeups, idle.
Each prints its figures and ends with exit code 1 if a promise was broken.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import psycopg
from uuid_utils import uuid7

from tests.servers import Postgres
from windlass.clock import SystemClock
from windlass.model import Demand, Ending, Lane, NewJob, Outcome, RunnerInfo, WorkerInfo
from windlass.store.postgres.store import PostgresStore

ROOT = Path(__file__).parent.parent
LEASE = 5.0


class Trial:
    """A store, and workers of `benchmarks.trial_tasks`."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/windlass.db"
        os.environ |= {"WINDLASS_URL": f"sqlite:///{self.path}", "EFFECTS": os.devnull, "LEASE": str(LEASE)}
        self.log = Path(folder) / "log"

    def start(self, processes: int, concurrency: int) -> subprocess.Popen[bytes]:
        """A worker."""
        command = [sys.executable, "-m", "windlass", "worker", "benchmarks.trial_tasks:app"]
        command += ["-p", str(processes), "-c", str(concurrency)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def fill(path: str, count: int, **columns: object) -> None:
    """Rows put straight into the jobs table, with ids as enqueueing makes them."""
    db = sqlite3.connect(path, isolation_level=None)
    now = int(time.time() * 1e6)
    row: dict[str, object] = {
        "line": "default/x", "queue": "default", "task": "x", "priority": 0, "rank": now, "state": "ready",
        "run_at": now, "args": '{"seconds":0}', "enqueued_at": now,
    } | columns  # fmt: skip
    names = ", ".join(row)
    db.execute("BEGIN IMMEDIATE")
    sql = f"INSERT INTO jobs (id, {names}) VALUES (?, {', '.join('?' * len(row))})"
    db.executemany(sql, ((str(uuid7()), *row.values()) for _ in range(count)))
    db.execute("COMMIT")
    db.close()


def memory(worker: subprocess.Popen[bytes]) -> float:
    """MB of proportional memory of a worker with its runners."""
    tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    return float(sum(one.memory_full_info().pss for one in tree)) / 1e6


def starts(task: object, count: int) -> list[float]:
    """Milliseconds to start, sorted, of single jobs."""
    waits = []
    for _ in range(count):
        job = task.enqueue(time.time())  # type: ignore[attr-defined]
        waits.append(job.result(timeout=60) * 1000)
        time.sleep(0.02)
    return sorted(waits)


def backlog(trial: Trial, seconds: float) -> bool:
    """A million jobs due tomorrow; a million of an unknown task at the head; a million due in one second."""
    from benchmarks.trial_tasks import app, stamp

    stamp.enqueue(0)
    worker = trial.start(2, 8)
    starts(stamp, 20)
    empty, before = starts(stamp, 100), memory(worker)
    tomorrow = int((time.time() + 86_400) * 1e6)
    fill(trial.path, 1_000_000, state="scheduled", run_at=tomorrow, rank=tomorrow)
    time.sleep(3)
    delayed, grown = starts(stamp, 100), memory(worker) - before
    fill(trial.path, 1_000_000, task="unknown.task", line="default/unknown.task", priority=100)
    time.sleep(3)
    foreign = starts(stamp, 100)
    print(f"start of an immediate job, empty:                p50 {empty[50]:.1f} ms, p99 {empty[98]:.1f} ms")
    print(
        f"beside 1,000,000 due tomorrow:                   p50 {delayed[50]:.1f} ms, p99 {delayed[98]:.1f} ms; "
        f"worker grew {grown:.1f} MB"
    )
    print(f"behind 1,000,000 of an unknown task:             p50 {foreign[50]:.1f} ms, p99 {foreign[98]:.1f} ms")
    soon = int((time.time() + 25) * 1e6)
    line = f"default/{stamp.name}"
    fill(trial.path, 1_000_000, state="scheduled", run_at=soon, rank=soon, task=stamp.name, line=line,
         args='{"sent":0}')  # fmt: skip
    time.sleep(max(0.0, soon / 1e6 - time.time()))
    waits = []
    while time.time() < soon / 1e6 + seconds:
        began = time.time()
        stamp.using(priority=50).enqueue(began).result(timeout=60)
        waits.append((time.time() - began) * 1000)
    worker.send_signal(signal.SIGTERM)
    worker.wait()
    waits.sort()
    done = sqlite3.connect(trial.path).execute("SELECT count(*) FROM jobs WHERE state = 'succeeded'").fetchone()[0]
    print(
        f"while 1,000,000 due in one second drain ({done:,} done in {seconds:g} s): urgent jobs there and back "
        f"p50 {waits[len(waits) // 2]:.1f} ms, p99 {waits[int(len(waits) * 0.99)]:.1f} ms, n={len(waits)}"
    )
    app.close()
    return grown < 20 and delayed[98] < 100


def enqueue_for(seconds: float, failures: "multiprocessing.Queue[str]", count: "multiprocessing.Queue[int]") -> None:
    """Enqueue one by one until the time is over."""
    from benchmarks.trial_tasks import work

    end, done = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            work.enqueue(0.0)
            done += 1
        except Exception as error:
            failures.put(repr(error))
    count.put(done)


def locked(trial: Trial, seconds: float) -> bool:
    """16 processes enqueue, 4 workers run, and a foreign program holds the write lock for 2 s again and again."""
    from benchmarks.trial_tasks import app, work

    work.enqueue(0.0)
    workers = [trial.start(1, 8) for _ in range(4)]
    spawn = multiprocessing.get_context("spawn")
    failures: multiprocessing.Queue[str] = spawn.Queue()
    counts: multiprocessing.Queue[int] = spawn.Queue()
    producers = [spawn.Process(target=enqueue_for, args=(seconds, failures, counts)) for _ in range(16)]
    for one in producers:
        one.start()
    foreign = sqlite3.connect(trial.path, isolation_level=None, timeout=60)
    holds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        foreign.execute("BEGIN IMMEDIATE")
        time.sleep(2)
        foreign.execute("ROLLBACK")
        holds += 1
        time.sleep(random.uniform(0.2, 4))
    enqueued = sum(counts.get() for _ in producers) + 1
    for one in producers:
        one.join()
    until = time.monotonic() + 300
    while app.jobs.count(state="succeeded") < enqueued and time.monotonic() < until:
        time.sleep(0.5)
    done = app.jobs.count(state="succeeded")
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    complaints = trial.log.read_text().count("locked")
    seen = []
    while not failures.empty():
        seen.append(failures.get())
    print(
        f"{seconds:g} s, {holds} times 2 s of foreign lock: {enqueued:,} enqueued, {done:,} succeeded, errors at "
        f"producers {len(seen)} {Counter(seen).most_common(2)}, 'locked' in the workers' log {complaints}"
    )
    return enqueued == done and not seen and not complaints


# PostgreSQL

SIZES = "SELECT pg_relation_size('windlass.live') / 1e6, pg_indexes_size('windlass.live') / 1e6"
COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
CLIENTS, PRODUCERS = 64, 4
WORKERS, QUEUES, MOST_STATEMENTS = 20, 50, 25.0


def figures(url: str, sql: str) -> tuple[float, ...]:
    """A row of numbers."""
    with psycopg.connect(url, autocommit=True) as db:
        row = db.execute(sql.encode()).fetchone()
    assert row
    return tuple(float(value) for value in row)


async def claims(url: str, seconds: float) -> list[float]:
    """Seconds, sorted, that each exchange took which claimed: 500 jobs per second, run by two runners."""
    store, worker = PostgresStore(url, SystemClock()), f"worker-{uuid7()}"
    await store.open()
    await store.enlist(
        WorkerInfo(id=worker, host="trial", pid=0, version="0", lease=60, queues="", concurrency=40, started_at=0)
    )
    end, took = time.monotonic() + seconds, list[float]()
    demand = Demand(slots=20, lanes=(Lane(slots=20, tasks=frozenset({"work"})),))

    async def produce() -> None:
        due = time.monotonic()
        while due < end:
            await store.put([NewJob(id=str(uuid7()), task="work", args=b"[[],{}]", fresh=True) for _ in range(5)])
            due += 0.01
            await asyncio.sleep(due - time.monotonic())

    async def run(runner: str) -> None:
        await store.join(RunnerInfo(id=runner, worker=worker, pid=0, tasks=("work",)))
        outcomes: list[Outcome] = []
        for seq in itertools.count(1):
            began = time.perf_counter()
            answer = await store.exchange(runner, seq, outcomes, demand)
            outcomes = [
                Outcome(id=one.id, fence=one.fence, seq=one.seq, ending=Ending.SUCCEEDED, attempt=1)
                for one in answer.claimed
            ]
            if outcomes:
                took.append(time.perf_counter() - began)
            elif time.monotonic() > end:
                return
            await asyncio.sleep(0.01)

    async def beat() -> None:
        while time.monotonic() < end:
            await store.beat(worker)
            await asyncio.sleep(1)

    await asyncio.gather(produce(), beat(), *(run(f"runner-{uuid7()}") for _ in range(2)))
    await store.close()
    return sorted(took)


def snapshot(url: str, seconds: float) -> bool:
    """500 jobs per second, without and with another transaction that holds an old snapshot all the time."""
    longest = []
    for held in (False, True):
        with psycopg.connect(url, autocommit=not held) as other:
            if held:
                other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                other.execute("SELECT count(*) FROM pg_class")
            took = asyncio.run(claims(url, seconds))
            table, indexes = figures(url, SIZES)
        middle, late = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
        longest.append(late)
        print(
            f"{'with' if held else 'without'} an old snapshot, {seconds:g} s: {len(took):,} claims, p50 {middle:.2f}, "
            f"p99 {late:.2f} ms; the table of live jobs {table:.1f} MB, its indexes {indexes:.1f} MB",
            flush=True,
        )
    print(f"p99 with it is {longest[1] / longest[0]:.2f} times that without")
    return longest[1] <= 2 * longest[0]


async def put_alone(url: str, seconds: float, ring: bool) -> int:
    """How many jobs the clients of one process put within the time, each in a commit of its own. All ask for a ring:
    they are due soon, so no older job stands before them."""
    store = PostgresStore(url, SystemClock())
    await store.open()
    if not ring:
        store._ring = lambda topic: None  # type: ignore[method-assign]
        assert store._bell
        store._bell.ring = lambda topic: None  # type: ignore[method-assign]
    end = time.monotonic() + seconds

    async def client() -> int:
        done = 0
        while time.monotonic() < end:
            await store.put([NewJob(id=str(uuid7()), task="later", args=b"[[],{}]", delay=1, fresh=True)])
            done += 1
        return done

    counts = await asyncio.gather(*(client() for _ in range(CLIENTS // PRODUCERS)))
    await store.close()
    return sum(counts)


def produce(url: str, seconds: float, ring: bool, counts: "multiprocessing.Queue[int]") -> None:
    """A process of clients."""
    counts.put(asyncio.run(put_alone(url, seconds, ring)))


def listen(url: str, heard: "multiprocessing.Queue[int]") -> None:
    """A process of idle workers, as far as the server sees them: they listen."""

    async def hear() -> None:
        stores = [PostgresStore(url, SystemClock()) for _ in range(8)]
        for store in stores:
            await store.open()
        while True:
            woken = await asyncio.gather(*(store.wait("work", 0.5) for store in stores))
            heard.put(sum(woken))

    asyncio.run(hear())


def wakeups(url: str, seconds: float) -> bool:
    """64 clients put one job per transaction, with and without waking those who listen, in turns."""
    asyncio.run(PostgresStore(url, SystemClock()).migrate())
    spawn = multiprocessing.get_context("spawn")
    heard: multiprocessing.Queue[int] = spawn.Queue()
    listener = spawn.Process(target=listen, args=(url, heard), daemon=True)
    listener.start()
    rates: dict[bool, list[float]] = {True: [], False: []}
    for ring in (True, False) * 5:
        counts: multiprocessing.Queue[int] = spawn.Queue()
        producers = [spawn.Process(target=produce, args=(url, seconds / 10, ring, counts)) for _ in range(PRODUCERS)]
        for one in producers:
            one.start()
        rates[ring].append(sum(counts.get() for _ in producers) / (seconds / 10))
        for one in producers:
            one.join()
    listener.kill()
    hints = 0
    while not heard.empty():
        hints += heard.get()
    with_, alone = (sorted(rates[ring])[2] for ring in (True, False))
    print(
        f"{CLIENTS} clients, one job per commit, medians of 5 runs of {seconds / 10:g} s: {with_:,.0f}/s with hints "
        f"({hints:,} heard by 8 listeners), {alone:,.0f}/s without: {with_ / alone:.1%}"
    )
    return with_ >= 0.95 * alone and hints > 0


def idle(url: str, seconds: float) -> bool:
    """20 workers with 50 queues each and nothing to do: how many transactions the server counts."""
    asyncio.run(PostgresStore(url, SystemClock()).migrate())
    queues = ",".join(f"queue{n}" for n in range(QUEUES))
    os.environ |= {"WINDLASS_URL": url, "EFFECTS": os.devnull}
    command = [sys.executable, "-m", "windlass", "worker", "benchmarks.trial_tasks:app", "-p", "1", "-q", queues]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(WORKERS)]
    while figures(url, "SELECT count(*) FROM windlass.runners")[0] < WORKERS:
        time.sleep(1)
    time.sleep(20)
    before, began = figures(url, COMMITS)[0], time.monotonic()
    time.sleep(seconds)
    rate = (figures(url, COMMITS)[0] - before) / (time.monotonic() - began)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait()
    print(f"{WORKERS} idle workers with {QUEUES} queues: {rate:.1f} transactions per second in all")
    return rate <= MOST_STATEMENTS


POSTGRES = {"snapshot": (snapshot, 600), "wakeups": (wakeups, 100), "idle": (idle, 60)}
"""Trials of a PostgreSQL server, and how many seconds they measure unless told otherwise."""


def main() -> None:
    """Run one trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=["backlog", "locked", *POSTGRES])
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    if options.trial in POSTGRES:
        run, seconds = POSTGRES[options.trial]
        with Postgres() as server:
            good = run(server.url, options.seconds or seconds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            good = globals()[options.trial](Trial(folder), options.seconds or 60)
    print("kept" if good else "BROKEN")
    sys.exit(not good)


if __name__ == "__main__":
    main()
