"""The jobs that are measured: as little work as there can be, with timeouts and retries on."""

import time

from windlass import App

app = App()


@app.task(timeout=30)
async def on_loop(n: int) -> None:
    """Nothing, as a coroutine."""


@app.task(timeout=30)
def in_thread(n: int) -> None:
    """Nothing, in a thread."""


@app.task(timeout=30, executor="process")
def in_process(n: int) -> None:
    """Nothing, in a child process."""


@app.task(timeout=30)
async def stamp(sent: float) -> float:
    """Seconds from the moment before the enqueue to the start."""
    return time.time() - sent
