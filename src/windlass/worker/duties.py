"""What any worker does for all: dropping what has been kept for long enough, and looking at alerts."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping

from msgspec.structs import replace

from windlass.errors import Conflict, StoreError
from windlass.model import State
from windlass.store.contract import BATCH, PAUSE, REPORT, RETAINED, Store
from windlass.worker.alarms import Alarms

logger = logging.getLogger("windlass.worker")

PRUNE_EVERY = 60.0
"""Seconds between two looks for what can be dropped; several workers spread out by chance."""


class Duties:
    """The housekeeping of one worker. Any number of workers may do it at the same time."""

    def __init__(self, store: Store, keep: Mapping[State, float]) -> None:
        self._store = store
        self._keep = keep

    async def run(self) -> None:
        """Keep house and look at alerts until cancelled."""
        await asyncio.gather(self._keep_house(), Alarms(self._store).run())

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_EVERY * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
            try:
                await self._prune()
                await self.forget()
            except StoreError as error:
                logger.warning("finished jobs could not be pruned this time: %s", error)
            except Exception:
                logger.exception("finished jobs could not be pruned this time")

    async def forget(self) -> None:
        """Drop documents whose time is over: retained events, and what workers left that ended without a word."""
        for kind in (RETAINED, REPORT, PAUSE):
            while docs := (await self._store.load(kind, due=0)).docs:
                with contextlib.suppress(Conflict):  # another worker was faster
                    await self._store.save([replace(doc, gone=True) for doc in docs])
                await asyncio.sleep(0.05)

    async def _prune(self) -> None:
        while True:
            dropped = await self._store.prune(self._keep)
            if dropped < BATCH:
                return
            await asyncio.sleep(0.05)  # let others write in between
