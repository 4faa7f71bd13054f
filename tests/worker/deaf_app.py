"""The sample app in a runner that hears no hint and never asks by itself: only the beat of its worker wakes it."""

import asyncio

from tests.worker.sample import app as app
from windlass.store.sqlite.store import SQLiteStore
from windlass.worker import runner


async def deaf(self: SQLiteStore, topic: str, timeout: float) -> bool:
    await asyncio.sleep(3600)
    return False


SQLiteStore.wait = deaf  # type: ignore[method-assign]
runner.POLL = 3600.0
