"""The jobs of the trials. Each start and end is one line in the file EFFECTS, outside of the store."""

import asyncio
import os
import time

from windlass import App, current

app = App(lease=float(os.environ.get("LEASE", "15")))


def effect(what: str) -> None:
    """Append one line in one write."""
    context = current()
    assert context.job
    handle = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{context.job.id} {context.fence} {time.time():.4f} {what} {os.getpid()}\n".encode())
    os.close(handle)


@app.task
async def work(seconds: float) -> None:
    """Sleep."""
    effect("start")
    await asyncio.sleep(seconds)
    effect("end")


@app.task
async def stamp(sent: float) -> float:
    """Seconds since `sent`."""
    return time.time() - sent
