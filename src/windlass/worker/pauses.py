"""Looks what is paused, for all runners of a worker."""

import asyncio
import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from windlass.errors import StoreError
from windlass.pause import View, view_of
from windlass.store.contract import BATCH, PAUSE, Store
from windlass.store.documents import all_docs

logger = logging.getLogger("windlass.worker")

LOOK_EVERY = 1.0
"""Seconds between two looks: one small statement of a worker, however many runners it has."""

LOOK_WITHIN = 10.0
"""Seconds after which a look that has no answer is given up, and the next one begins."""

NAMES_EVERY, NAMES_SHARE = 5.0, 20
"""While a queue is paused, a worker of all queues asks which there are: after so many seconds, and after so many times
as long as the answer took."""


async def look(store: Store) -> View:
    """What is paused now. Raises `StoreError`."""
    shelf = await store.load(PAUSE)
    if len(shelf.docs) < BATCH:
        return view_of(shelf.docs, shelf.now)
    return view_of([doc async for doc in all_docs(store, PAUSE)], shelf.now)


class Pauses:
    """Tells what is paused, at each look: who has just started may have missed the last. `every`: whether the worker
    serves all queues."""

    def __init__(self, store: Store, tell: Callable[[View], object], *, every: bool) -> None:
        self._store = store
        self._tell = tell
        self._every = every
        self._known: frozenset[str] = frozenset()
        self._names_at = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                self._tell(await self._look())
            except (StoreError, TimeoutError) as error:
                logger.debug("what is paused could not be read this time: %s", error)
            except Exception:
                logger.exception("what is paused could not be read this time")
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self) -> View:
        view = await asyncio.wait_for(look(self._store), LOOK_WITHIN)
        if not (view.queues and self._every):
            return view
        if time.monotonic() >= self._names_at:
            began = time.monotonic()
            self._known |= {line.queue for line in await self._store.stats()}
            took = time.monotonic() - began
            self._names_at = time.monotonic() + max(NAMES_EVERY, NAMES_SHARE * took)
        return replace(view, known=self._known)
