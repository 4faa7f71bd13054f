"""A runner's word of what its jobs came to, from time to time and at the end."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable

from windlass.store.contract import Store
from windlass.worker.messages import Counted
from windlass.worker.runner import Runner
from windlass.worker.timed import Calls

logger = logging.getLogger("windlass.worker")

TELL_EVERY = 2.0
"""Seconds between two words; those since the last are lost with a process that is killed."""

CLOCK_EVERY = 30
"""Words after which the store is asked again what time it is."""


@contextlib.asynccontextmanager
async def telling(runner: Runner, store: Store, calls: Calls, tell: Callable[[Counted], object]) -> AsyncIterator[None]:
    """Tell during the body of the `with`, and once more after it."""

    def word() -> Counted:
        return Counted(rows=tuple(runner.counts.take()), calls=tuple(calls.take()), running=runner.running)

    async def run() -> None:
        for turn in itertools.count():
            if turn % CLOCK_EVERY == 0:
                try:
                    await runner.counts.set_clock(store)
                except Exception as error:  # then as it was
                    logger.debug("the store's clock could not be read this time: %s", error)
            await asyncio.sleep(TELL_EVERY)
            tell(word())

    work = asyncio.create_task(run())
    try:
        yield
    finally:
        work.cancel()
        tell(word())
