"""`-c auto` at work: looks at a runner each second, and gives it the slots that the rule in `climb.py` says."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping

from windlass.clock import boot_time
from windlass.machine import memory_is_short, usable_cpus
from windlass.worker.climb import START, Sample, State, advance
from windlass.worker.meter import Meter

logger = logging.getLogger("windlass.worker")

LOOKS = 4
"""Times that the event loop is asked to turn between two samples; how late it does shows how it fares."""

APART = 0.25
"""Seconds between them."""

NOTABLE = 1.25
"""Times as many slots as were last told of, or as much less, that are worth a line in the log."""


class Adaptive:
    """Finds how many of its `ceiling` slots a runner should use; `processes` runners share the processors.

    The runner's `meter` is this one's; `given`: how many slots there are now, while a process is replaced.
    """

    def __init__(self, *, ceiling: int, processes: int) -> None:
        self.meter = Meter(boot_time())
        self.given = self._ceiling = ceiling
        self._cpus = max(1.0, usable_cpus() / processes)
        self._state = State(limit=min(START, ceiling))
        self._told = self.limit

    @property
    def limit(self) -> int:
        """How many slots the runner should use now."""
        return self._state.limit

    @property
    def calm(self) -> Mapping[str, float]:
        """Seconds that a job of each task takes with few at a time."""
        return self._state.calm

    def inherit(self, limit: int, calm: Mapping[str, float]) -> None:
        """Begin with what a predecessor has learnt."""
        self._state = State(limit=min(limit, self._ceiling), calm=calm)
        self._told = self.limit

    async def run(self, use: Callable[[int], None]) -> None:
        """Adapt until cancelled; `use` is told of each limit, also of the first."""
        use(self.limit)
        while True:
            before, sample = self.limit, await self._sample()
            self.take(sample)
            if self.limit != before:
                use(self.limit)

    def take(self, sample: Sample) -> None:
        """Follow what was measured; of slots that are not there, nothing was."""
        if self.given < self.limit:
            return
        before, self._state = self._state, advance(self._state, sample, self._ceiling)
        if sample.pressed and self.limit < before.limit:
            self._tell(logging.WARNING, "memory is short")
        elif self._state.rest > before.rest and not 1 / NOTABLE < self.limit / self._told < NOTABLE:
            self._tell(logging.INFO, "neither more nor fewer did better")

    def _tell(self, level: int, why: str) -> None:
        told, self._told = self._told, self.limit
        logger.log(level, "process %d takes %d jobs at a time now, after %d: %s", os.getpid(), self.limit, told, why)

    async def _sample(self) -> Sample:
        cpu, late = time.process_time(), 0.0
        for _ in range(LOOKS):
            due = boot_time() + APART
            await asyncio.sleep(APART)
            late += max(0.0, boot_time() - due)
        used = (time.process_time() - cpu) / self._cpus
        return self.meter.take(boot_time(), cpu=used, late=late, pressed=memory_is_short())
