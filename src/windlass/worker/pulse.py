"""The lease of one worker: renewed in time, or known to be lost."""

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from importlib.metadata import version
from typing import Any

from windlass.clock import Clock
from windlass.errors import StoreError
from windlass.model import Held, Orders, WorkerInfo
from windlass.store.contract import BATCH, Store
from windlass.worker.reports import forget

logger = logging.getLogger("windlass.worker")

LIFTS = 10
"""The most times that one beat has jobs lifted, BATCH each."""


def beat_every(lease: float) -> float:
    """Seconds between two beats: a fifth of the lease, and at most one, so that orders and due jobs are seen soon."""
    return min(1.0, lease / 5)


def beat_timeout(lease: float) -> float:
    """Seconds that one beat may take; with the interval, two tries fit into a third of the lease."""
    return lease * 2 / 15


class Pulse:
    """Registers a worker under a new id and renews its lease; others' leases that are over it reaps.

    `last` is the boot time at which the last good beat was sent, `reaped` how many others were found dead.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        lease: float,
        *,
        queues: str,
        concurrency: int,
        held: Callable[[], Mapping[str, Held]],
        on_orders: Callable[[Orders], None],
        on_evicted: Callable[[], Awaitable[None]],
        on_enlisted: Callable[[], object] = lambda: None,
    ) -> None:
        self.id = ""
        self.last = 0.0
        self.reaped = 0
        self._store = store
        self._clock = clock
        self._lease = lease
        self._queues = queues
        self._concurrency = concurrency
        self._held = held
        self._on_orders = on_orders
        self._on_evicted = on_evicted
        self._on_enlisted = on_enlisted
        self._aside: dict[str, asyncio.Task[None]] = {}
        self._told: Mapping[str, Held] = {}
        self._tell_again = 0.0

    async def enlist(self) -> None:
        """Register under a new id. Raises `StoreError`."""
        id = str(uuid.uuid4())
        sent = self._clock.boot()
        await self._store.enlist(
            WorkerInfo(
                id=id,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=version("windlass"),
                lease=self._lease,
                queues=self._queues,
                concurrency=self._concurrency,
            )
        )
        self.id, self.last = id, sent
        self._on_enlisted()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            began = self._clock.boot()
            try:
                if not self.id:
                    await self.enlist()
                await self._beat(began)
            except (StoreError, TimeoutError) as error:
                logger.warning("the lease could not be renewed: %s", error or "the store did not answer in time")
            except Exception:
                logger.exception("the lease could not be renewed")
            await asyncio.sleep(max(0.0, beat_every(self._lease) - (self._clock.boot() - began)))

    async def _beat(self, sent: float) -> None:
        orders = await asyncio.wait_for(self._store.beat(self.id), beat_timeout(self._lease))
        if orders.evicted:
            logger.error("this worker was taken for dead and its jobs were handed to others; starting over")
            self.id = ""
            await self._on_evicted()
            await self.enlist()
            return
        self.last = sent
        self._on_orders(orders)
        self._start("dead workers", self._look_after(orders))
        if orders.lift:
            self._start("jobs that wait for long", self._lift())

    def _start(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Do what has to write, and so may have to wait for a writer, which a beat never does; each once at a time."""
        if what in self._aside:
            work.close()
            return
        task = self._aside[what] = asyncio.create_task(self._do(what, work))
        task.add_done_callback(lambda _: self._aside.pop(what))

    async def _do(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            logger.warning("%s could not be looked after this time: %s", what, error)

    async def _look_after(self, orders: Orders) -> None:
        """Tell the store what is held here, and have it take what the dead hold."""
        held = self._held()  # the same word twice finds nothing new, unless an exchange came late; so once a lease
        if held and (held != self._told or self._clock.boot() > self._tell_again):
            await self._store.beat(self.id, held)
            self._told, self._tell_again = held, self._clock.boot() + self._lease
        if orders.dead:
            dead = await self._store.reap(spare=self.id)
            self.reaped += len(dead)
            for worker in dead:
                logger.warning("worker %s stopped beating; its jobs are ready again", worker[:8])
            await forget(self._store, dead)

    async def _lift(self) -> None:
        """Lift jobs that have waited for long enough; the next beat goes on with what is left."""
        for _ in range(LIFTS):
            if await self._store.lift() < BATCH:
                return
            await asyncio.sleep(0.02)  # let others write in between

    async def leave(self) -> None:
        """Unregister; what is still held goes back."""
        if self.id:
            with contextlib.suppress(StoreError, TimeoutError):
                await asyncio.wait_for(self._retire(), 10)

    async def _retire(self) -> None:
        await self._store.retire(self.id)
        await forget(self._store, [self.id])
