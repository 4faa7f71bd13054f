"""A store with many jobs that are over: failed, succeeded and cancelled ones of 30 days, written past its own code.

Indexes are dropped before and made anew after: ten millions of jobs take a few minutes in PostgreSQL.
"""

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import psycopg
import redis
from msgspec import msgpack

from windlass.store.postgres.target import parse as target_of
from windlass.store.redis.records import Hot
from windlass.store.redis.url import parse as parse_redis

DAYS = 30
BATCH = 20_000
UNLUCKY = "shop.gateway.Unlucky"
"""The error of 100,000 failed jobs, or of half of them."""

RARE = "shop.reports.nightly"
"""The task of one job a day."""

DAY = 86_400_000_000
QUEUES = 10
TASKS = 50

TRACE = "…" * 300


class Over(NamedTuple):
    """One job that is over; moments in microseconds."""

    id: str
    queue: str
    task: str
    state: str
    error: str | None
    tag: str | None
    began: int
    ended: int

    @property
    def args(self) -> str:
        """Its arguments."""
        return f'{{"order":"{self.id[-12:]}","amount":"48.20","note":"to be sent with the next van"}}'

    @property
    def end(self) -> str | None:
        """What is kept of its last attempt."""
        said = f"order {self.id[-6:]} was refused"
        kept = {"type": self.error, "message": said, "traceback": TRACE}
        return self.error and json.dumps(kept, separators=(",", ":"))


def over(count: int, failed: int, now: int) -> Iterator[Over]:
    """`count` jobs, oldest first."""
    every, unlucky = count // failed, max(2, failed // 100_000)
    daily = max(1, count // DAYS)
    for n in range(count):
        began = now - DAYS * DAY + n * (DAYS * DAY // count)
        state = "cancelled" if n % 200 == 1 else "failed" if n % every == 0 else "succeeded"
        error = (UNLUCKY if n // every % unlucky == 0 else f"shop.errors.Kind{n % 19}") if state == "failed" else None
        milli = f"{began // 1000:012x}"
        id = f"{milli[:8]}-{milli[8:]}-7{n >> 12 & 0xFFF:03x}-8{n & 0xFFF:03x}-{n:012x}"
        tag = "vip" if n % 50 == 0 else None
        queue, task = f"q{n // 7 % QUEUES}", f"shop.tasks.t{n // 3 % TASKS}" if n % daily else RARE
        yield Over(id, queue, task, state, error, tag, began, began + 1_500_000)


def batches(rows: Iterator[Over], size: int = BATCH) -> Iterator[list[Over]]:
    """Some at a time."""
    while some := list(islice(rows, size)):
        yield some


COLUMNS = (
    "id, line, queue, task, priority, rank, state, run_at, args, tags, attempt, fence, runner, seq, ending, attempts, "
    "enqueued_at, started_at, finished_at"
)

INDEXES = """
    SELECT c.relname, replace(pg_get_indexdef(c.oid), ' ON ONLY ', ' ON ') FROM pg_class c
    WHERE c.relkind = 'I' AND c.relnamespace = %s::regnamespace AND NOT c.relispartition
"""
"""The indexes of the history; those of its partitions come and go with them."""


def to_postgres(url: str, rows: Iterator[Over], now: int) -> None:
    """Into `history`, each day in a partition of its own, as it would be."""
    target = target_of(url)
    with psycopg.connect(target.conninfo) as db:
        db.execute(f"SET search_path = {target.quoted}".encode())
        db.execute("SET maintenance_work_mem = '1GB'")
        indexes = db.execute(INDEXES, [target.quoted]).fetchall()
        for name, _ in indexes:
            db.execute(f"DROP INDEX {name}".encode())
        made = set()
        for day in range(now // DAY - DAYS, now // DAY):
            for table in ("history_succeeded", "history_failed", "history_cancelled"):
                bounds = f"FROM ({day * DAY}) TO ({(day + 1) * DAY})"
                db.execute(f"CREATE TABLE {table}_{day} PARTITION OF {table} FOR VALUES {bounds}".encode())
                made.add(f"{table}_{day}")
        for some in batches(rows):
            tables = defaultdict(list)
            for one in some:
                tables[f"history_{one.state}_{one.ended // DAY}"].append(line_of(one))
            for table, lines in tables.items():
                frozen = " (FREEZE)" if table in made else ""  # only what this transaction made
                with db.cursor().copy(f"COPY {table} ({COLUMNS}) FROM STDIN{frozen}".encode()) as copy:
                    copy.write("".join(lines))
        for _, definition in indexes:
            db.execute(definition.encode())
        db.commit()
        db.autocommit = True
        db.execute("VACUUM ANALYZE")


def line_of(one: Over) -> str:
    """A row of `history`, as COPY reads it."""
    attempts = r"\N"
    if one.end is not None:
        ended = f'[1,1,"failed","r",{one.began},{one.ended},{one.end}]'.replace("\\", r"\\").replace('"', r"\"")
        attempts = f'{{"{ended}"}}'.replace("\\", r"\\")
    tags = f"{{{one.tag}}}" if one.tag else r"\N"
    return (
        f"{one.id}\t{one.queue}/{one.task}\t{one.queue}\t{one.task}\t0\t{one.began}\t{one.state}\t{one.began}\t{one.args}"
        f"\t{tags}\t1\t1\tr\t1\t{one.state}\t{attempts}\t{one.began}\t{one.began + 500_000}\t{one.ended}\n"
    )


OVER = "('over', 'errors', 'tagged')"
"""The indexes that have jobs that are over, but for those by id."""


def to_sqlite(url: str, rows: Iterator[Over], _: int) -> None:
    """Into `jobs`, `attempts` and `tags`."""
    db = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -500000")
    db.execute("BEGIN IMMEDIATE")
    indexes = db.execute(f"SELECT name, sql FROM sqlite_master WHERE name IN {OVER}").fetchall()
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    names = (
        "id, line, queue, task, priority, rank, state, run_at, args, attempt, fence, runner, seq, ending, error, "
        "enqueued_at, started_at, finished_at"
    )
    for some in batches(rows):
        jobs = [
            (
                *(one.id, f"{one.queue}/{one.task}", one.queue, one.task, 0, one.began, one.state, one.began, one.args),
                *(1, 1, "r", 1, one.state, one.error, one.began, one.began + 500_000, one.ended),
            )
            for one in some
        ]
        db.executemany(f"INSERT INTO jobs ({names}) VALUES ({', '.join('?' * 18)})", jobs)
        ended = [(one.id, 1, 1, "failed", "r", one.began, one.ended, one.end) for one in some if one.end]
        db.executemany("INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ended)
        db.executemany("INSERT INTO tags (tag, job) VALUES (?, ?)", [(one.tag, one.id) for one in some if one.tag])
    for _, definition in indexes:
        db.execute(definition)
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def to_redis(url: str, rows: Iterator[Over], _: int) -> None:
    """Into the hashes and indexes that lua/keys.lua tells of."""
    prefix = parse_redis(url).tag
    client = redis.Redis.from_url(url.partition("?")[0])
    for some in batches(rows, BATCH // 10):
        pipe = client.pipeline(transaction=False)
        jobs: list[Any] = []
        news: list[Any] = []
        indexes: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for one in some:
            cold, hot = records_of(one)
            jobs += one.id, cold
            news += one.id, hot
            for name, score in indexes_of(one):
                indexes[name][one.id] = score
            if one.end:
                attempt = (1, 1, "failed", "r", one.began, one.ended, one.end)
                pipe.rpush(f"{prefix}a:{one.id}", b"".join(map(msgpack.encode, attempt)))
        pipe.hset(f"{prefix}jobs", items=jobs)
        pipe.hset(f"{prefix}news", items=news)
        for name, members in indexes.items():
            pipe.zadd(f"{prefix}{name}", members)
        pipe.execute()


def records_of(one: Over) -> tuple[bytes, bytes]:
    """What was put, and what became of it."""
    letter, flags = one.state[0], 2 * bool(one.tag) + 8 * bool(one.error)
    tags = [one.tag] if one.tag else None
    line = f"{one.queue}/{one.task}"
    cold = (2 * bool(one.tag), one.began, one.began, one.began, None, 0, line, None, tags, one.args.encode(), None)
    hot = Hot(letter, 1, 1, "r", flags, 1, 0, one.began + 500_000, one.ended, one.state)
    return b"".join(map(msgpack.encode, cold)), b"".join(map(msgpack.encode, msgspec.structs.astuple(hot)))


def indexes_of(one: Over) -> Iterator[tuple[str, int]]:
    """Where it is listed, and at which score."""
    yield "all", one.began
    yield f"over:{one.state[0]}", one.ended
    if one.tag:
        yield f"tag:{one.tag}", one.began
    if one.error:
        yield f"error:{one.error}", one.ended


WRITERS = {"postgres": to_postgres, "sqlite": to_sqlite, "redis": to_redis}


def fill(store: str, url: str, count: int, failed: int) -> None:
    """Write them."""
    now = time.time_ns() // 1000
    WRITERS[store](url, over(count, failed, now), now)
