"""Workloads that want different concurrency; each job makes its mark at its end."""

import asyncio
import time

from benchmarks.marks import mark
from windlass import App

app = App()

ROOM = 8
"""Calls at once that the service below serves at full speed."""

calling = 0


@app.task
async def waits(n: int) -> None:
    """Somebody else works, and has plenty of room."""
    await asyncio.sleep(0.2)
    mark(n)


@app.task
def computes(n: int) -> None:
    """Python in a thread, which holds the interpreter."""
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass
    mark(n)


@app.task
async def calls(n: int) -> None:
    """A service of this process's own: beyond ROOM calls at once they queue, and get in each other's way."""
    global calling
    calling += 1
    try:
        await asyncio.sleep(0.05 * max(1.0, calling / ROOM) ** 1.3)
    finally:
        calling -= 1
    mark(n)


@app.task
async def nothing(n: int) -> None:
    """The worker's own work, and no other."""
    mark(n)
