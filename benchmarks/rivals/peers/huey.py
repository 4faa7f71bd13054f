"""Huey on Redis, or on SQLite, whose commits are synced if FSYNC is set; no results kept, no call for many jobs."""

import os

from huey import RedisHuey, SqliteHuey

from benchmarks.drive import Client
from benchmarks.marks import mark

store = os.environ["STORE"]
huey = (
    RedisHuey("rivals", url=store, results=False)
    if store.startswith("redis")
    else SqliteHuey("rivals", filename=store, results=False, fsync=bool(os.environ.get("FSYNC")))
)


def job(n: int) -> None:
    """The job."""
    mark(n)


work = huey.task()(job)


def connect() -> Client:
    """The blocking client."""
    return Client(work)
