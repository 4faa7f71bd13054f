"""How many jobs and how much memory a process of a worker may have before it is replaced, and at most."""

import math
from dataclasses import dataclass

from windlass.machine import free_memory, megabytes, memory_limit, private, resident

LEAST_SHARE = 1 / 4
"""The part of this machine's memory that a suspect may take however much its neighbours have."""

MOST_OF_FREE = 0.9
"""The part of the memory that is free which a suspect may take."""

LEAVE_WITHIN = 10.0
"""Seconds that a process which is replaced gets to close the app, once no job runs in it."""

CEILING = 2
"""How many times `max_memory` a process may have while it runs jobs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Per process; 0 means no such limit. Memory in bytes."""

    max_jobs: int = 0
    max_memory: int = 0

    def spent(self, pid: int, jobs: int) -> str:
        """What this many jobs have made of a process, if that is reason enough to replace it; empty if not."""
        if self.max_jobs and jobs >= self.max_jobs:
            return f"has run {jobs} jobs (max_jobs is {self.max_jobs})"
        if self.max_memory and jobs and (size := resident(pid)) > self.max_memory:
            return f"has {megabytes(size)} of memory (max_memory is {megabytes(self.max_memory)})"
        return ""

    @property
    def ceiling(self) -> float:
        """The most bytes that a process may have, whatever runs in it."""
        return CEILING * self.max_memory or math.inf

    def data(self, pid: int, *, suspect: bool) -> float:
        """The most bytes of data that a process may have for its next job: what it has, and what it may still take.

        RLIMIT_DATA counts what is mapped, used or not, as stacks of idle threads are; so the growth is bounded.
        """
        more = max(0.0, self.ceiling - resident(pid))
        if suspect:
            more = min(more, max(MOST_OF_FREE * free_memory(), LEAST_SHARE * memory_limit()))
        return private(pid) + more
