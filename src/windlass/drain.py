"""Keeps jobs out of queues that are drained.

Each process asks the store which those are, with the first job that it stores and then at most once a second.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any

from windlass import blocking, pause
from windlass.access import Access
from windlass.context import current
from windlass.errors import QueueDraining, StoreError
from windlass.model import NewJob
from windlass.pause import DRAIN
from windlass.store.contract import PAUSE
from windlass.store.documents import Load, Work

FRESH = 1.0
"""Seconds for which an answer is good enough."""

LOOK_WITHIN = 0.5
"""Seconds that asking may take. Behind that what was known counts: a store in trouble tells of it when it stores."""


class Drains:
    """The queues of an app's store that take no more jobs, as this process knows them; each with the reason."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._reasons: dict[str, str] = {}
        self._read_at = -math.inf

    def refuse(self, jobs: Sequence[NewJob], tx: Any) -> None:
        """Raise `QueueDraining` if one of these would come into a queue that is drained. Blocks this thread."""
        if self._stale():
            if tx is not None:
                self._reasons = self._access.do(drained, tx)
            else:
                blocking.refuse_in_loop("aenqueue" if len(jobs) == 1 else "aenqueue_many")
                blocking.run(self._look())
        self._check(jobs)

    async def arefuse(self, jobs: Sequence[NewJob], tx: Any) -> None:
        """`refuse`, without blocking the event loop."""
        if self._stale():
            if tx is not None:
                self._reasons = await self._access.ado(drained, tx)
            else:
                await self._look()
        self._check(jobs)

    def _stale(self) -> bool:
        """Whether to ask; others go on meanwhile with what was known."""
        now = time.monotonic()
        if now - self._read_at < FRESH:
            return False
        self._read_at = now
        return True

    async def _look(self) -> None:
        try:
            await self._access.connect()
        except BaseException:
            self._read_at = -math.inf
            raise
        with contextlib.suppress(StoreError, TimeoutError):
            self._reasons = await asyncio.wait_for(self._access.ado(drained), LOOK_WITHIN)

    def _check(self, jobs: Sequence[NewJob]) -> None:
        if not self._reasons:
            return
        for job in jobs:
            if job.queue in self._reasons and not is_from(job.queue):
                why = self._reasons[job.queue]
                raise QueueDraining(
                    f"queue {job.queue} takes no more jobs, it is being drained{': ' if why else ''}{why}. Enqueue "
                    f"into another, or end it: windlass queues resume {job.queue}",
                    job.queue,
                )


def is_from(queue: str) -> bool:
    """Whether a job of this queue runs here: what it enqueues is part of its work."""
    run = current()
    return run.job is not None and not run.over and run.job.queue == queue


def drained() -> Work[dict[str, str]]:
    """The queues that are drained, and why."""
    shelf = yield Load(PAUSE)
    return {
        doc.name.removeprefix(DRAIN): pause.read(doc.body).reason for doc in shelf.docs if doc.name.startswith(DRAIN)
    }
