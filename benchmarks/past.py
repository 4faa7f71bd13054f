"""A store with many jobs that are over: failed, succeeded and cancelled ones of 30 days, written past its own code."""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
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
BATCH = 5_000
UNLUCKY = "shop.gateway.Unlucky"
"""The error of 100,000 failed jobs, or of half of them."""

DAY = 86_400_000_000
QUEUES = 10
TASKS = 50


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
        kept = {"type": self.error, "message": said, "traceback": "…" * 300}
        return self.error and json.dumps(kept, separators=(",", ":"))


def over(count: int, failed: int, now: int) -> Iterator[Over]:
    """`count` jobs, oldest first."""
    every, unlucky = count // failed, max(2, failed // 100_000)
    for n in range(count):
        began = now - DAYS * DAY + n * (DAYS * DAY // count)
        state = "cancelled" if n % 200 == 1 else "failed" if n % every == 0 else "succeeded"
        error = (UNLUCKY if n // every % unlucky == 0 else f"shop.errors.Kind{n % 19}") if state == "failed" else None
        milli = f"{began // 1000:012x}"
        id = f"{milli[:8]}-{milli[8:]}-7{n >> 12 & 0xFFF:03x}-8{n & 0xFFF:03x}-{n:012x}"
        tag = "vip" if n % 50 == 0 else None
        queue, task = f"q{n // 7 % QUEUES}", f"shop.tasks.t{n // 3 % TASKS}"
        yield Over(id, queue, task, state, error, tag, began, began + 1_500_000)


def batches(rows: Iterator[Over]) -> Iterator[list[Over]]:
    """Some at a time."""
    while some := list(islice(rows, BATCH)):
        yield some


def to_postgres(url: str, rows: Iterator[Over], now: int) -> None:
    """Into `history`, each day in a partition of its own, as it would be."""
    target = target_of(url)
    columns = (
        "id, line, queue, task, priority, rank, state, run_at, args, tags, attempt, fence, runner, seq, ending, "
        "attempts, enqueued_at, started_at, finished_at"
    )
    with psycopg.connect(target.conninfo, autocommit=True) as db:
        db.execute(f"SET search_path = {target.quoted}".encode())
        for day in range(now // DAY - DAYS, now // DAY):
            for state in ("succeeded", "failed", "cancelled"):
                table = f"history_{state}"
                bounds = f"FROM ({day * DAY}) TO ({(day + 1) * DAY})"
                db.execute(f"CREATE TABLE {table}_{day} PARTITION OF {table} FOR VALUES {bounds}".encode())
        for some in batches(rows):
            with db.cursor().copy(f"COPY history ({columns}) FROM STDIN".encode()) as copy:
                for one in some:
                    copy.write_row(row_of(one))
        db.execute("VACUUM ANALYZE")


def row_of(one: Over) -> Sequence[Any]:
    """A row of `history`."""
    ended = None if one.end is None else [f'[1, 1, "failed", "r", {one.began}, {one.ended}, {one.end}]']
    line = f"{one.queue}/{one.task}"
    head = (one.id, line, one.queue, one.task, 0, one.began, one.state, one.began, one.args, one.tag and [one.tag])
    return (*head, 1, 1, "r", 1, one.state, ended, one.began, one.began + 500_000, one.ended)


def to_sqlite(url: str, rows: Iterator[Over], _: int) -> None:
    """Into `jobs`, `attempts` and `tags`."""
    db = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    names = (
        "id, line, queue, task, priority, rank, state, run_at, args, attempt, fence, runner, seq, ending, error, "
        "enqueued_at, started_at, finished_at"
    )
    for some in batches(rows):
        db.execute("BEGIN IMMEDIATE")
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
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def to_redis(url: str, rows: Iterator[Over], _: int) -> None:
    """Into the hashes and indexes that lua/common.lua tells of."""
    prefix = parse_redis(url).tag
    client = redis.Redis.from_url(url.partition("?")[0])
    for some in batches(rows):
        pipe = client.pipeline(transaction=False)
        for one in some:
            store_one(pipe, prefix, one)
        pipe.execute()


def store_one(pipe: Any, prefix: str, one: Over) -> None:
    """One job, in commands."""
    letter, flags = one.state[0], 2 * bool(one.tag) + 8 * bool(one.end)
    tags = [one.tag] if one.tag else None
    line = f"{one.queue}/{one.task}"
    cold = (2 * bool(one.tag), one.began, one.began, one.began, None, 0, line, None, tags, one.args.encode(), None)
    hot = Hot(letter, 1, 1, "r", flags, 1, 0, one.began + 500_000, one.ended, one.state)
    pipe.hset(f"{prefix}jobs", one.id, b"".join(map(msgpack.encode, cold)))
    pipe.hset(f"{prefix}news", one.id, b"".join(map(msgpack.encode, msgspec.structs.astuple(hot))))
    pipe.zadd(f"{prefix}all", {one.id: one.began})
    pipe.zadd(f"{prefix}over:{letter}", {one.id: one.ended})
    if one.tag:
        pipe.zadd(f"{prefix}tag:{one.tag}", {one.id: one.began})
    if one.end:
        attempt = (1, 1, "failed", "r", one.began, one.ended, one.end)
        pipe.rpush(f"{prefix}a:{one.id}", b"".join(map(msgpack.encode, attempt)))
        pipe.zadd(f"{prefix}error:{one.error}", {one.id: one.ended})


WRITERS = {"postgres": to_postgres, "sqlite": to_sqlite, "redis": to_redis}


def fill(store: str, url: str, count: int, failed: int) -> None:
    """Write them."""
    now = time.time_ns() // 1000
    WRITERS[store](url, over(count, failed, now), now)
