"""What a worker with nothing to do costs a store: statements, and time of processors."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import redis

from benchmarks.measure import servers_at, spent, tree

COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"

CHANGES = 8
"""Where the index of a write-ahead log of SQLite has a number that grows by one with each transaction."""


@dataclass(frozen=True)
class Idle:
    """Calls a second (statements; on Redis scripts; on SQLite, whose reads nobody counts, commits), and per cent of a
    processor that the worker and the server take."""

    calls: float
    cpu: float


@contextlib.contextmanager
def left_alone(url: str) -> Iterator[None]:
    """Keep PostgreSQL from vacuuming meanwhile, whose commits count with ours."""
    if not url.startswith("postgresql:"):
        yield
        return
    with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
        db.execute("ALTER SYSTEM SET autovacuum = off")
        db.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            db.execute("ALTER SYSTEM RESET autovacuum")
            db.execute("SELECT pg_reload_conf()")


def idle(url: str, pid: int, seconds: float) -> Idle:
    """Watch a worker for so long."""
    count, processes = counter(url), tree([pid, *servers_at(url)])
    began, calls, took = time.monotonic(), count(), spent(processes)
    time.sleep(seconds)
    passed = time.monotonic() - began
    return Idle((count() - calls) / passed, (spent(processes) - took) / passed * 100)


def counter(url: str) -> Callable[[], int]:
    """How many calls a store has had so far."""
    if url.startswith("postgresql:"):
        return lambda: commits(url.partition("?")[0])
    if url.startswith("redis:"):
        return lambda: scripts(url.partition("?")[0])
    return lambda: changes(url.removeprefix("sqlite:///"))


def commits(url: str) -> int:
    """Transactions; one statement each, as our own are."""
    with psycopg.connect(url, autocommit=True) as db:
        row = db.execute(COMMITS).fetchone()
    assert row
    return int(row[0])


def scripts(url: str) -> int:
    """Scripts that were run."""
    client: Any = redis.Redis.from_url(url)
    with client:
        stats = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name.startswith("cmdstat_eval"))


def changes(path: str) -> int:
    """Transactions that wrote, for as long as anybody has the file open. Read by another process: one that opens such a
    file, and closes it, loses the locks that its SQLite has on it."""
    number = ["od", "--address-radix=n", "--format=u4", f"--skip-bytes={CHANGES}", "--read-bytes=4", f"{path}-shm"]
    return int(subprocess.run(number, capture_output=True, check=True).stdout)
