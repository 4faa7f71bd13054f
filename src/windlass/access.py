"""The way from an app to its store: one store per event loop, and blocking calls on the caller's own thread."""

import asyncio
import atexit
import contextlib
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from windlass import blocking
from windlass.config import Config, masked, scheme_of
from windlass.errors import ConfigError, Conflict, EnqueueUnknown, StoreUnavailable
from windlass.model import Mark, NewJob, Placed
from windlass.store.contract import Store
from windlass.store.dispatch import SLOW_LIMIT, bounded, make_store, unanswered, within
from windlass.store.documents import Work, in_transaction, on_store
from windlass.store.links import AsyncLink, Mismatch, SyncLink, recognise
from windlass.store.tx import OUTBOX, Joinable, make_joinable

logger = logging.getLogger("windlass")

T = TypeVar("T")

SHARED = frozenset({"sqlite"})
"""Stores that serve every event loop of a process at once, and should: their writers then share commits."""

BULK_PER_SECOND = 10_000
"""Jobs that a slow disk still takes in a second: a bulk is given that much longer than `enqueue_timeout`."""

CONFLICTS = 20
"""How often documents that others change all the time are read again."""

FAREWELL = 1.0
"""Seconds that closing may take at the end of a process."""


class Access:
    """Opens the store where it is needed and closes what it opened."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._shared = scheme_of(config.url) in SHARED
        self._lock = threading.Lock()
        self._stores: dict[asyncio.AbstractEventLoop | None, Store] = {}
        self._opening: dict[asyncio.AbstractEventLoop, asyncio.Task[Store]] = {}
        self._joinable: Joinable | None = None
        _all.add(self)

    async def connect(self) -> Store:
        """The store for the running event loop, opened on first use. No call to it by an app hangs."""
        limit = self.config.enqueue_timeout
        return await within(limit, self._open(), self._unreachable(limit))

    async def _open(self) -> Store:
        """The store for the running event loop. Callers that come while it is being opened wait for the same one."""
        key = None if self._shared else asyncio.get_running_loop()
        if (store := self._stores.get(key)) is not None:
            return store
        loop = asyncio.get_running_loop()
        if (opening := self._opening.get(loop)) is None:
            opening = self._opening[loop] = asyncio.create_task(self._open_new(key))
            opening.add_done_callback(lambda _: self._opening.pop(loop, None))
            opening.add_done_callback(lambda over: over.cancelled() or over.exception())  # told to those who still wait
        return await asyncio.shield(opening)

    async def _open_new(self, key: asyncio.AbstractEventLoop | None) -> Store:
        await self._close_left_over()
        store = await asyncio.to_thread(make_store, self.config.url)  # importing a driver takes a while
        fresh = bounded(store, self.config.enqueue_timeout)
        try:
            await fresh.open()
        except BaseException:
            with contextlib.suppress(Exception):
                await fresh.close()
            raise
        with self._lock:
            store = self._stores.setdefault(key, fresh)
        if store is not fresh:
            await fresh.close()
        return store

    def _unreachable(self, seconds: float) -> StoreUnavailable:
        return StoreUnavailable(
            f"{masked(self.config.url)} could not be reached within {seconds:g} s; nothing was written. Is the server "
            "running, and is the network well? `windlass doctor` tells more"
        )

    def put(self, jobs: Sequence[NewJob]) -> list[Placed]:
        """Store jobs on the caller's own thread. Raises as `Store.put_now`, `RuntimeError` in an event loop."""
        blocking.refuse_in_loop("aenqueue" if len(jobs) == 1 else "aenqueue_many")
        patience = self._patience(jobs)
        end = time.monotonic() + patience
        store = self._stores.get(None if self._shared else blocking.background_loop())
        if store is None:
            try:
                store = blocking.run(self._open(), patience)
            except TimeoutError:
                raise self._unreachable(patience) from None
        return store.put_now(jobs, max(0.0, end - time.monotonic()))

    async def aput(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = ()) -> list[Placed]:
        """Store jobs, and marks, from the running event loop. Raises `EnqueueUnknown` when no answer comes in time, and
        `StoreUnavailable` when the store cannot even be reached."""
        patience = self._patience(jobs)
        end = time.monotonic() + patience
        store = self._stores.get(None if self._shared else asyncio.get_running_loop())
        if store is None:
            store = await within(patience, self._open(), self._unreachable(patience))
        late = EnqueueUnknown(
            f"the store did not answer within {patience:g} s: the job may exist. Repeating with using(id=…) is safe",
            jobs[0].id,
        )
        return await within(end - time.monotonic(), store.put(jobs, marks), late)

    def _patience(self, jobs: Sequence[NewJob]) -> float:
        """Seconds that storing these may take."""
        return self.config.enqueue_timeout + len(jobs) / BULK_PER_SECOND

    # Inside the caller's own transaction

    def put_in(self, tx: Any, jobs: Sequence[NewJob]) -> list[Placed]:
        """Store jobs inside the caller's own transaction. Raises `ConfigError` where that cannot be done."""
        joinable = self.joinable()
        with self._told():
            return recognise(tx, SyncLink).drive(joinable.put(jobs), joinable.ring)

    async def aput_in(self, tx: Any, jobs: Sequence[NewJob], marks: Sequence[Mark] = ()) -> list[Placed]:
        """`put_in`, for what has to be awaited."""
        joinable = self.joinable()
        with self._told():
            return await recognise(tx, AsyncLink).adrive(joinable.put(jobs, marks), joinable.ring)

    # Documents

    def do(self, work: Callable[[], Work[T]], tx: Any = None, late: Exception | None = None) -> T:
        """Do work on documents; inside the caller's own transaction if one is given. Raises `Conflict` only there:
        elsewhere what was changed meanwhile is read again. Raises `late` when no answer comes in time."""
        if tx is None:
            return blocking.run(self.ado(work, late=late))
        joinable = self.joinable()
        with self._told():
            return recognise(tx, SyncLink).drive(in_transaction(joinable, work()), joinable.ring)

    async def ado(self, work: Callable[[], Work[T]], tx: Any = None, late: Exception | None = None) -> T:
        """`do`, in the running event loop."""
        if tx is None:
            limit = SLOW_LIMIT if late is None else self.config.enqueue_timeout
            return await within(limit, self._do(work), late or unanswered("documents", limit))
        joinable = self.joinable()
        with self._told():
            return await recognise(tx, AsyncLink).adrive(in_transaction(joinable, work()), joinable.ring)

    async def _do(self, work: Callable[[], Work[T]]) -> T:
        store = await self.connect()
        for tries in range(CONFLICTS):
            with contextlib.suppress(Conflict):
                return await on_store(store, work())
            await asyncio.sleep(random.uniform(0, 0.01 * tries))  # noqa: S311 - spreads load
        return await on_store(store, work())

    def joinable(self) -> Joinable:
        """The store, for transactions. Raises `ConfigError` for one that has none to share."""
        if self._joinable is None:
            self._joinable = make_joinable(self.config.url)
        return self._joinable

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what to do when the connection speaks with another engine than the store's."""
        try:
            yield
        except Mismatch as error:
            raise ConfigError(
                f"tx= got a connection to {error}, but the jobs of this app are in {masked(self.config.url)}. {OUTBOX}"
            ) from None

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
        _inherited.extend([self._stores, self._opening])
        self._stores, self._opening = {}, {}
        self._lock = threading.Lock()


_all: weakref.WeakSet[Access] = weakref.WeakSet()
_inherited = blocking.immortal()
"""A child never closes what belongs to its parent."""


def _forget_all() -> None:
    for access in list(_all):
        access.forget()


def _close_all() -> None:
    """At the end of the process: take leave of servers, for blocking calls. SQLite needs no farewell."""
    for access in list(_all):
        if not access._shared and blocking.is_on() and blocking.background_loop() in access._stores:
            with contextlib.suppress(Exception):
                blocking.run(access.aclose(), FAREWELL)


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)
