"""The way from an app to its store: one store per event loop, and blocking calls on the caller's own thread."""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from windlass import blocking
from windlass.config import Config, masked
from windlass.errors import ConfigError, EnqueueUnknown
from windlass.model import NewJob, Placed
from windlass.store.contract import Store
from windlass.store.dispatch import make_store

logger = logging.getLogger("windlass")

SHARED = frozenset({"sqlite"})
"""Stores that serve every event loop of a process at once, and should: their writers then share commits."""

BULK_PER_SECOND = 10_000
"""Jobs that a slow disk still takes in a second: a bulk is given that much longer than `enqueue_timeout`."""


class Access:
    """Opens the store where it is needed and closes what it opened."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._shared = urlsplit(config.url).scheme in SHARED
        self._lock = threading.Lock()
        self._stores: dict[asyncio.AbstractEventLoop | None, Store] = {}
        _all.add(self)

    async def connect(self) -> Store:
        """The store for the running event loop, opened on first use."""
        key = None if self._shared else asyncio.get_running_loop()
        store = self._stores.get(key)
        if store is None:
            await self._close_left_over()
            fresh = make_store(self.config.url)
            await fresh.open()
            with self._lock:
                store = self._stores.setdefault(key, fresh)
            if store is not fresh:
                await fresh.close()
        return store

    def put(self, jobs: Sequence[NewJob]) -> list[Placed]:
        """Store jobs on the caller's own thread. Raises as `Store.put_now`, `RuntimeError` in an event loop."""
        blocking.refuse_in_loop("aenqueue" if len(jobs) == 1 else "aenqueue_many")
        key = None if self._shared else blocking.background_loop()
        store = self._stores.get(key) or blocking.run(self.connect())
        return store.put_now(jobs, self._patience(jobs))

    async def aput(self, jobs: Sequence[NewJob]) -> list[Placed]:
        """Store jobs from the running event loop. Raises `EnqueueUnknown` when no answer comes in time."""
        store = await self.connect()
        patience = self._patience(jobs)
        try:
            async with asyncio.timeout(patience):
                return await store.put(jobs)
        except TimeoutError:
            raise EnqueueUnknown(
                f"the store did not answer within {patience:g} s: the job may exist. "
                "Repeating with using(id=…) is safe",
                jobs[0].id,
            ) from None

    def _patience(self, jobs: Sequence[NewJob]) -> float:
        """Seconds that storing these may take."""
        return self.config.enqueue_timeout + len(jobs) / BULK_PER_SECOND

    def put_in(self, tx: Any, jobs: Sequence[NewJob]) -> list[Placed]:
        """Store jobs inside the caller's own transaction. Raises `ConfigError` where the store cannot do that."""
        put_tx = getattr(make_store(self.config.url), "put_tx", None)
        if put_tx is None:
            raise ConfigError(
                f"tx= needs an SQL store that can write inside your transaction; {masked(self.config.url)} cannot yet. "
                "Enqueue after the commit instead"
            )
        placed: list[Placed] = put_tx(tx, jobs)
        return placed

    def close(self) -> None:
        """Close what blocking calls opened. The next call opens it again."""
        blocking.refuse_in_loop("aclose")
        if self._stores:
            blocking.run(self.aclose())

    async def aclose(self) -> None:
        """Close what the running event loop opened. The next call opens it again."""
        await self._close_left_over()
        store = self._stores.pop(None if self._shared else asyncio.get_running_loop(), None)
        if store is not None:
            await store.close()

    async def _close_left_over(self) -> None:
        """Close the stores of event loops that are over, as after `asyncio.run`."""
        for loop in [loop for loop in self._stores if loop is not None and loop.is_closed()]:
            try:
                await self._stores.pop(loop).close()
            except Exception:
                logger.debug("a store of a closed event loop could not be closed", exc_info=True)

    def forget(self) -> None:
        """In a forked child: leave what the parent opened to the parent."""
        _inherited.extend(self._stores.values())
        self._stores = {}
        self._lock = threading.Lock()


_all: weakref.WeakSet[Access] = weakref.WeakSet()
_inherited: list[Store] = []
"""Kept so that a child never closes what belongs to its parent."""


def _forget_all() -> None:
    for access in list(_all):
        access.forget()


os.register_at_fork(after_in_child=_forget_all)
