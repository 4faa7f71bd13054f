"""Long commands that look for trouble: their parts in all processors, with progress, and a word on how to go on."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

P = TypeVar("P")
T = TypeVar("T")

EVERY = 10.0
"""Seconds between two lines of progress."""

PROCESSES = os.cpu_count() or 1


@contextmanager
def spread(work: Callable[[P], T], parts: Iterable[P], processes: int = PROCESSES) -> Iterator[Iterator[T]]:
    """The results of `work` for each part, in the order of the parts, worked out in several processes."""
    with multiprocessing.get_context("spawn").Pool(processes, _leave_interrupts) as pool:
        yield pool.imap(work, parts)


def _leave_interrupts() -> None:
    """Ctrl-C is the business of the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Progress:
    """Says now and then how far it is."""

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what = total, what
        self.done = 0
        self._began = self._said = time.monotonic()

    @property
    def rate(self) -> float:
        """How many a second."""
        return self.done / max(1e-9, time.monotonic() - self._began)

    def add(self, count: int, more: str = "") -> None:
        """So many are done."""
        self.done += count
        if time.monotonic() - self._said > EVERY and self.done < self.total:
            self._said = time.monotonic()
            left = (self.total - self.done) / self.rate
            print(
                f"{self.done:,} of {self.total:,} {self.what}, {self.rate:.1f}/s, {left:.0f} s left{more}", flush=True
            )

    def __str__(self) -> str:
        taken = time.monotonic() - self._began
        return f"{self.done:,} {self.what} in {taken:.1f} s ({self.rate:.1f} {self.what}/s)"
