"""The sample app in a runner that hears no hint and never asks by itself: only the beat of its worker wakes it."""

import asyncio

from tests.worker.sample import app as app
from windlass.worker.runner import Runner


async def deaf(self: Runner) -> None:
    await asyncio.sleep(3600)


Runner._listen = deaf  # type: ignore[method-assign]
