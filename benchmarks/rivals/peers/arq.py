"""arq: results are not kept, polled ten times as often as by default; it has no call for many jobs."""

import asyncio
import os
from typing import Any, ClassVar

import uvloop
from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.drive import Client
from benchmarks.marks import mark

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
SERVER = RedisSettings.from_dsn(os.environ["STORE"])


async def work(_: dict[str, Any], n: int) -> None:
    """The job."""
    mark(n)


class Worker:
    """Settings."""

    functions: ClassVar = [work]
    redis_settings = SERVER
    max_jobs = 100
    poll_delay = 0.05
    keep_result = 0


async def connect() -> Client:
    """The asynchronous client."""
    pool = await create_pool(SERVER)
    return Client(lambda n: pool.enqueue_job("work", n))
