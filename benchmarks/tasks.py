"""The jobs that are measured: as little work as there can be, with timeouts and retries on."""

from benchmarks.marks import mark
from windlass import App

app = App()


@app.task(timeout=30)
async def on_loop(n: int) -> None:
    """Nothing but a mark, as a coroutine."""
    mark(n)


@app.task(timeout=30)
def in_thread(n: int) -> None:
    """The same in a thread."""
    mark(n)


@app.task(timeout=30, executor="process")
def in_process(n: int) -> None:
    """The same in a child process."""
    mark(n)
