"""What the workers of the fault rounds run. What jobs do is told to the history in the folder HISTORY."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.history import Log, attempt, watched
from windlass import App, Retry, current
from windlass.store.contract import Store

QUICK = Retry(attempts=3, backoff=0.1)
ONCE = Retry(attempts=1)
MB = 1 << 20

log = Log(Path(os.environ.get("HISTORY", ".")))


class Watched(App):
    """An app whose runners tell what they hand in and what they get."""

    async def connect(self) -> Store:
        return watched(await super().connect(), log)


# The load: what must come through whatever happens


async def nap(seconds: float) -> int:
    """Sleep on the event loop."""
    with attempt(log):
        await asyncio.sleep(seconds)
    return current().fence


def doze(seconds: float) -> int:
    """Sleep in a thread, as long as nobody wants it to stop."""
    with attempt(log):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(0.05, left))
            if current().cancelled:
                raise InterruptedError("told to stop")
    return current().fence


def toil(seconds: float) -> int:
    """Sleep in a process child."""
    with attempt(log):
        time.sleep(seconds)
    return current().fence


async def stumble(seconds: float) -> int:
    """Fail the first time."""
    with attempt(log):
        await asyncio.sleep(seconds)
        if current().attempt == 1:
            raise ValueError("the first time")
    return current().fence


# Misdeeds


def die() -> None:
    """Kill the process that runs it."""
    with attempt(log):
        os.kill(os.getpid(), signal.SIGKILL)


def gorge(size: int) -> int:
    """Fill `size` MB of memory."""
    with attempt(log):
        return len([bytes([n % 255 + 1]) * MB for n in range(size)])


def starve() -> None:
    """Ask for more memory than there is."""
    with attempt(log):
        bytearray(1 << 62)


async def block(seconds: float, how: str) -> int:
    """Keep the event loop from turning; `how`: asleep, or in a C call that holds the interpreter."""
    with attempt(log):
        if how == "sleep":
            time.sleep(seconds)
        else:
            ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return current().fence


async def shrug(seconds: float) -> None:
    """Ignore being cancelled."""
    with attempt(log):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue


def ignore(seconds: float) -> None:
    """Ignore being cancelled, in a thread."""
    with attempt(log):
        time.sleep(seconds)


def defy(seconds: float) -> None:
    """Ignore signals, in a process."""
    with attempt(log):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(seconds)


def breed(count: int) -> None:
    """Leave processes behind, and die."""
    with attempt(log):
        for _ in range(count):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            log.tell("effect", current().job.id, current().fence, word=str(child.pid))  # type: ignore[union-attr]
        os._exit(7)


# Two versions of the code


def greet(name: str) -> str:
    """Is called `hello` in old code; new code has it under `greet`, with `hello` as an alias."""
    with attempt(log):
        return f"{name}, by {os.environ.get('CODE', 'new')} code"


def novelty() -> str:
    """Is not in old code."""
    with attempt(log):
        return os.environ.get("CODE", "new")


def make_app(url: str | None = None, code: str = "new", **settings: Any) -> Watched:
    """An app of all these tasks; `code` is old or new."""
    app = Watched(url, **settings)
    task: Callable[..., Any]
    for task in (nap, doze, toil):
        app.task(name=task.__name__, executor="process" if task is toil else "auto")(task)
    app.task(name="stumble", retry=QUICK)(stumble)
    for task in (die, gorge, starve, defy, breed):
        app.task(name=task.__name__, executor="process", retry=ONCE, queue="misdeeds")(task)
    app.task(name="die_in_thread", retry=ONCE, queue="misdeeds")(die)
    for task in (block, shrug, ignore):
        app.task(name=task.__name__, retry=ONCE, queue="misdeeds")(task)
    if code == "old":
        app.task(name="hello")(greet)
    else:
        app.task(name="greet", aliases=["hello"])(greet)
        app.task(name="novelty")(novelty)
    return app


app = make_app(code=os.environ.get("CODE", "new"))
