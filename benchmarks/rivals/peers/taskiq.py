"""taskiq on a Redis stream, which it acknowledges, or on a list (BROKER), which it does not; no results kept."""

import os

import taskiq_redis

from benchmarks.drive import Client
from benchmarks.marks import mark

kind = getattr(taskiq_redis, os.environ.get("BROKER", "RedisStreamBroker"))
broker = kind(os.environ["STORE"], socket_timeout=30)  # redis-py's own limit ends an idle worker


async def job(n: int) -> None:
    """The job."""
    mark(n)


work = broker.register_task(job, task_name="work")


async def connect() -> Client:
    """The asynchronous client."""
    await broker.startup()
    return Client(work.kiq)
