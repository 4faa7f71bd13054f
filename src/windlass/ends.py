"""Waiting for the end of jobs: however many are waited for in an event loop, one look is for all of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from windlass.errors import JobNotFound, StoreError
from windlass.model import JobRecord
from windlass.store.contract import BATCH, Store

FIRST_LOOK, LONGEST_LOOK = 0.02, 1.0
"""Seconds between two looks at jobs that are waited for, should no hint come."""

SHORTEST_PAUSE, CALM_PAUSE = 0.002, 0.1
"""Seconds between two looks when hints come all the time, at first and in the long run."""

SHARE = 4
"""How many times as long as a look took nobody looks again: with thousands of jobs, a look is work."""


class Wait(NamedTuple):
    """One who waits. `patient`: until the store answers again, should it not."""

    over: asyncio.Future[JobRecord]
    patient: bool


class Ends:
    """Who waits for which job, in one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[Store]]) -> None:
        self._connect = connect
        self._waits: dict[str, list[Wait]] = {}
        self._work: asyncio.Task[None] | None = None
        self._came = False
        self._look = FIRST_LOOK
        self._pause = SHORTEST_PAUSE

    async def of(self, id: str, timeout: float | None, *, patient: bool) -> JobRecord | None:
        """The job when it is over; None when `timeout` seconds are. Raises `JobNotFound`, and `StoreError` unless
        `patient`."""
        wait = Wait(asyncio.get_running_loop().create_future(), patient)
        self._waits.setdefault(id, []).append(wait)
        self._came, self._look, self._pause = True, FIRST_LOOK, SHORTEST_PAUSE
        if self._work is None:
            self._work = asyncio.create_task(self._serve())
        try:
            return await asyncio.wait_for(wait.over, timeout)
        except TimeoutError:
            return None
        finally:
            await self._drop(id, wait)

    async def _drop(self, id: str, wait: Wait) -> None:
        """This one waits no more; with the last, nothing is left in the event loop."""
        if wait in (waits := self._waits.get(id, [])):
            waits.remove(wait)
            if not waits:
                del self._waits[id]
        if not self._waits and self._work:
            work, self._work = self._work, None
            work.cancel()
            await asyncio.wait([work])

    async def _serve(self) -> None:
        me = asyncio.current_task()
        while True:
            self._came = False
            began = time.monotonic()
            try:
                store = await self._connect()
                await self._see(store)
                took = time.monotonic() - began
                if not self._came and not await store.wait("done", self._look):
                    self._look = min(LONGEST_LOOK, self._look * 2)
                    continue
            except Exception as error:  # of the store, or of its driver
                self._fail(error)
                took = LONGEST_LOOK / SHARE
            if self._work is not me:  # before Python 3.12, `wait_for` may swallow that we were cancelled
                return
            await asyncio.sleep(max(self._pause, SHARE * took))
            self._pause = min(CALM_PAUSE, self._pause * 2)

    async def _see(self, store: Store) -> None:
        """Tell those whose job is over, or is not there."""
        ids = list(self._waits)
        for at in range(0, len(ids), BATCH):
            part = ids[at : at + BATCH]
            found = {record.id: record for record in await store.get(part)}
            for id in part:
                if (record := found.get(id)) is None:
                    self._tell(
                        id, JobNotFound(f"there is no job {id} any more: it was deleted, or retention dropped it")
                    )
                elif record.state.final:
                    self._tell(id, record)

    def _tell(self, id: str, news: JobRecord | Exception) -> None:
        for wait in self._waits.pop(id, []):
            if wait.over.done():
                continue
            if isinstance(news, JobRecord):
                wait.over.set_result(news)
            else:
                wait.over.set_exception(news)

    def _fail(self, error: Exception) -> None:
        """Tell those who are not patient; who waits for a job of theirs goes on."""
        for wait in [one for waits in self._waits.values() for one in waits]:
            if not wait.over.done() and not (wait.patient and isinstance(error, StoreError)):
                wait.over.set_exception(error)
