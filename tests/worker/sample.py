"""The tasks that the worker tests run. What they did is appended to the file EFFECTS, outside of any store."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from windlass import App, Cancel, Fail, Hook, Retry, Snooze, current
from windlass.context import Context
from windlass.model import Outcome


@asynccontextmanager
async def lifespan(_: App) -> AsyncIterator[dict[str, str]]:
    effect("lifespan opened")
    for n in range(int(os.environ.get("IDLE_THREADS", "0"))):
        threading.Thread(target=threading.Event().wait, name=f"idle-{n}", daemon=True).start()
    yield {"pool": f"of {os.getpid()}"}
    if "HANGS" in os.environ:
        time.sleep(600)
    effect("lifespan closed")


class Noting(Hook):
    """Writes down what it sees, and then fails."""

    def before(self, context: Context) -> None:
        if context.job and context.job.task.endswith(("hooked_async", "hooked_thread", "hooked_process")):
            effect("hook before")
            raise RuntimeError("hooks may fail")

    def after(self, context: Context, outcome: Outcome) -> None:
        if context.job and context.job.task.endswith(("hooked_async", "hooked_thread", "hooked_process")):
            effect(f"hook after {outcome.ending}")
            raise RuntimeError("hooks may fail")


app = App(lifespan=lifespan, hooks=[Noting()], lease=float(os.environ.get("SAMPLE_LEASE", "15")), grace=2.0)
quick = Retry(attempts=3, backoff=0)


def effect(text: str) -> None:
    """Write one line in one call, so that a kill leaves it whole or not at all."""
    context = current()
    job = f"{context.job.id} {context.fence}" if context.job else "- 0"
    line = f"{job} {os.getpid()} {time.time():.3f} {text}\n"
    handle = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


@app.task
async def on_loop(n: int = 0) -> int:
    effect(f"on_loop {n}")
    return n * 2


@app.task
def in_thread(n: int = 0) -> int:
    effect(f"in_thread {n}")
    return n * 3


@app.task(executor="process")
def in_process(n: int = 0) -> int:
    effect(f"in_process {n}")
    return n * 4


@app.task(retry=quick)
async def nap(seconds: float) -> None:
    effect(f"nap {seconds}")
    await asyncio.sleep(seconds)
    effect("napped")


@app.task(retry=quick)
def doze(seconds: float) -> None:
    """Sleep in a thread, as long as nobody wants it to stop."""
    effect(f"doze {seconds}")
    until = time.monotonic() + seconds
    while time.monotonic() < until and not current().cancelled:
        time.sleep(0.02)
    if current().cancelled:
        raise RuntimeError("told to stop")
    effect("dozed")


@app.task(executor="process", retry=quick)
def sleep_in_process(seconds: float) -> None:
    effect(f"sleep {seconds}")
    time.sleep(seconds)
    effect("slept")


@app.task(retry=quick)
def deaf(seconds: float) -> None:
    """Sleep in a thread and listen to nobody."""
    effect(f"deaf {seconds}")
    time.sleep(seconds)
    effect("deaf done")


@app.task(retry=quick)
async def fails(times: int) -> str:
    effect("fails")
    if current().attempt <= times:
        raise ValueError(f"attempt {current().attempt}")
    return f"after {times}"


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@app.task(retry=Retry(attempts=1))
async def raises(what: str) -> None:
    effect(f"raises {what}")
    if what == "exit":
        sys.exit(3)
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "broken":
        raise Hostile
    if what == "huge":
        raise ValueError("x" * 50_000_000)
    if what == "fail":
        raise Fail("not this one")
    if what == "cancel":
        raise Cancel("not needed")
    if what == "group":
        raise ExceptionGroup("two", [ValueError("one"), KeyError("two")])
    raise asyncio.CancelledError


@app.task(retry=quick)
async def snoozes() -> int:
    effect("snoozes")
    if current().fence < 3:
        raise Snooze(0.05)
    return current().attempt


@app.task(retry=quick)
def dies(how: str) -> None:
    effect(f"dies {how}")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)
    os._exit(0)


@app.task(retry=quick)
def family(n: int) -> list[int]:
    """Ends its process between enqueueing its children and waiting for them, and once more after that."""
    jobs = [on_loop.enqueue(n), in_thread.enqueue(n)]
    effect("family")
    if current().fence == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    results = [job.result() for job in jobs]
    if current().fence == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return results


@app.task
def hogs(megabytes: int) -> int:
    """Take memory bit by bit, as a leak does, and then hold it."""
    effect(f"hogs {megabytes}")
    taken = []
    for _ in range(megabytes // 8):
        taken.append(bytearray(8 << 20))
        time.sleep(0.001)
    time.sleep(600)
    return len(taken)


KEPT: list[bytearray] = []


@app.task
def keeps(megabytes: int) -> int:
    """Leave memory behind."""
    effect("keeps")
    KEPT.append(bytearray(megabytes << 20))
    return os.getpid()


@app.task(executor="process")
def keeps_in_process(megabytes: int) -> int:
    effect("keeps_in_process")
    KEPT.append(bytearray(megabytes << 20))
    return os.getpid()


@app.task
async def blocks_sleep(seconds: float) -> None:
    effect("blocks_sleep")
    time.sleep(seconds)
    effect("blocked")


@app.task
async def blocks_spin(seconds: float) -> None:
    effect("blocks_spin")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    effect("blocked")


@app.task
async def blocks_in_c(seconds: float) -> None:
    """Hold the interpreter's lock in a C call, as a careless extension does."""
    effect("blocks_in_c")
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    effect("blocked")


@app.task
async def reports() -> str:
    for n in range(1, 4):
        current().progress(n, 3, f"step {n}")
        await asyncio.sleep(0.6)
    current().log.info("reported")
    return str(current().state["pool"])


@app.task
async def hooked_async() -> None:
    """Is watched."""


@app.task
def hooked_thread() -> None:
    """Is watched."""


@app.task(executor="process")
def hooked_process() -> None:
    """Is watched."""


@app.task
def has(variable: str) -> bool:
    return variable in os.environ


@app.task
def leaves_orphans(count: int) -> int:
    effect(f"leaves_orphans {count} beside {os.getppid()}")
    for _ in range(count):
        subprocess.run(["sh", "-c", "setsid sleep 2 &"], check=True)
    return count


@app.task
async def leaves_a_bomb() -> int:
    """Start something in the background that ends the process, if it is let."""

    async def explode() -> None:
        sys.exit(1)

    bomb = asyncio.create_task(explode())
    await asyncio.wait({bomb})
    return 1


@app.task(retry=quick)
async def snoozes_for_ever() -> None:
    effect("snoozes for ever")
    raise Snooze(float("inf"))


@app.task
async def reports_oddly() -> int:
    current().progress(True, None, note="half a \ud800 pair")
    return 5


@app.task(executor="process")
def reports_oddly_in_process() -> int:
    current().progress(1, 2, note="half a \ud800 pair")
    return 5
