"""Tells what a worker takes of its machine, in a document that goes with the worker."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Mapping

from windlass.clock import boot_time
from windlass.errors import StoreError
from windlass.machine import cpu_time, resident
from windlass.model import Doc
from windlass.pause import WORKER
from windlass.store.contract import PAUSE, REPORT, Store
from windlass.usage import Report, Usage, write

logger = logging.getLogger("windlass.worker")

TELL_EVERY, SAME_FOR = 10.0, 120.0
"""Seconds between two looks at the processes, and after which what has not changed is written again."""

GONE_AFTER = 600.0
"""Seconds after which a document that nobody has written any more may go."""

WITHIN = 3.0
"""Seconds that a write may take, so that it does not hold up the end of a worker."""

GRAIN = 2**20
"""Bytes of memory below which a change is none."""

OWN = ""
"""In place of the id of a runner: the process that beats."""

Pids = Mapping[str, Iterable[int]]
"""The processes of each runner, by its id, and that which beats."""


class Gauge:
    """Measures processes, from one look to the next."""

    def __init__(self) -> None:
        self._at = 0.0
        self._spent: dict[int, float] = {}

    def read(self, pids: Pids, *, stopping: bool) -> Report:
        """What they take now, and took of processors since the last look. A process that is new counts from its
        start."""
        now, before = boot_time(), self._spent
        since = now - self._at if self._at else 0.0
        self._at, self._spent = now, {}
        runners = {id: self._usage(some, before, since) for id, some in pids.items()}
        shares = [one.cpu for one in runners.values() if one.cpu is not None]
        memory = sum(one.memory for one in runners.values())
        total = Usage(memory=memory, cpu=round(sum(shares), 2) if shares else None)
        del runners[OWN]
        return Report(total=total, runners=runners, stopping=stopping)

    def _usage(self, pids: Iterable[int], before: Mapping[int, float], since: float) -> Usage:
        memory, spent, known = 0, 0.0, False
        for pid in pids:
            memory += resident(pid)
            if (taken := cpu_time(pid)) is not None:
                self._spent[pid] = taken
                spent += max(0.0, taken - before.get(pid, 0.0))
                known = since > 0
        return Usage(memory=memory // GRAIN * GRAIN, cpu=round(spent / since, 2) if known else None)


class Reports:
    """Writes the document of one worker. `worker`: its id; `pids`: its processes, as they are now."""

    def __init__(
        self, store: Store, worker: Callable[[], str], pids: Callable[[], Pids], stopping: asyncio.Event
    ) -> None:
        self._store = store
        self._worker = worker
        self._pids = pids
        self._stopping = stopping
        self._gauge = Gauge()
        self._told: tuple[str, Report] | None = None
        self._told_at = 0.0

    async def run(self) -> None:
        """Tell until cancelled, and at once when the worker begins to stop."""
        while True:
            stopping = self._stopping.is_set()
            await self._tell(stopping)
            pause = TELL_EVERY * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
            if stopping:
                await asyncio.sleep(pause)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)

    async def _tell(self, stopping: bool) -> None:
        """Look, and write what is new. What cannot be written now is told the next time."""
        said = self._worker(), self._gauge.read(self._pids(), stopping=stopping)
        if not said[0] or (said == self._told and boot_time() - self._told_at < SAME_FOR):
            return
        try:
            await asyncio.wait_for(self._write(*said), WITHIN)
            self._told, self._told_at = said, boot_time()
        except (StoreError, TimeoutError) as error:
            logger.debug("what this worker takes could not be told this time: %s", error)
        except Exception:
            logger.exception("what this worker takes could not be told this time")

    async def _write(self, worker: str, report: Report) -> None:
        shelf = await self._store.load(REPORT, names=[worker])
        version = shelf.docs[0].version if shelf.docs else 0
        due = shelf.now + GONE_AFTER
        await self._store.save([Doc(kind=REPORT, name=worker, version=version, body=write(report), due=due)])


async def forget(store: Store, workers: Iterable[str]) -> None:
    """Drop what stands in the store about workers that are gone. Raises `StoreError`."""
    if gone := [doc for id in workers for doc in ((REPORT, id), (PAUSE, WORKER + id))]:
        await store.save([], drop=gone)
