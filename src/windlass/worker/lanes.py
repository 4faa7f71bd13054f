"""The thread lane."""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable

from windlass.model import Outcome

IDLE = 30.0
"""Seconds after which a thread without work ends."""

Work = Callable[[], Outcome]
Done = Callable[[Outcome], None]


class Threads:
    """Runs blocking calls in threads, at most `size`, started when needed and kept while there is work.

    `concurrent.futures` costs three times as much per call, and its threads cannot be left behind at exit.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._work: queue.SimpleQueue[tuple[contextvars.Context, Work, Done] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0
        self._ended: list[tuple[Done, Outcome]] = []

    def submit(self, work: Work, done: Done) -> None:
        """Start `work` in a thread with contextvars of its own; `done` is called with its outcome in this loop.

        Raises `RuntimeError` when the system has no more threads; then nothing is started.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._busy >= self._threads and self._threads < self._size:
                threading.Thread(target=self._serve, args=(loop,), name="windlass-task", daemon=True).start()
                self._threads += 1
            self._busy += 1
            self._work.put((contextvars.copy_context(), work, done))

    def lend(self, waits: bool) -> None:
        """One of the threads only waits for a job, and another may be started in its place; or it waits no more."""
        with self._lock:
            self._size += 1 if waits else -1

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                item = self._work.get(timeout=IDLE)
            except queue.Empty:
                item = None
            if item is None:
                with self._lock:
                    if self._work.qsize():
                        continue
                    self._threads -= 1
                    return
            context, work, done = item
            outcome = context.run(work)
            with self._lock:
                self._busy -= 1
                first = not self._ended
                self._ended.append((done, outcome))
            if first:
                try:
                    loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    return

    def _deliver(self) -> None:
        """Hand over all that ended since the last turn, woken once for all of it."""
        with self._lock:
            ended, self._ended = self._ended, []
        for done, outcome in ended:
            done(outcome)

    def close(self) -> None:
        """Let idle threads end; those that still run user code are left to the end of the process."""
        with self._lock:
            threads = self._threads
        for _ in range(threads):
            self._work.put(None)
