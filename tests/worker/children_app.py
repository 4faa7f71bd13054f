"""An app whose tasks do to their process what tasks do, and worse."""

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from windlass.app import App
from windlass.context import current
from windlass.errors import Cancel


@contextlib.asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, int]]:
    note("open")
    turning = asyncio.create_task(turn())
    yield {"opened_in": os.getpid()}
    turning.cancel()
    note("close")


def note(what: str) -> None:
    if path := os.environ.get("NOTES"):
        with Path(path).open("a") as notes:
            notes.write(f"{what} {os.getpid()}\n")


turns = 0


async def turn() -> None:
    global turns
    while True:
        turns += 1
        await asyncio.sleep(0.01)


app = App(lifespan=lifespan)


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task
def pid() -> int:
    return os.getpid()


@app.task
async def async_pid() -> int:
    await asyncio.sleep(0)
    return os.getpid()


@app.task
def state() -> Any:
    return current().state


@app.task
def turned() -> int:
    return turns


@app.task
def fail(text: str) -> None:
    raise ValueError(text)


@app.task
def give_unstorable() -> Any:
    return {"inner": [object()]}


@app.task
def walk(steps: int) -> None:
    for step in range(1, steps + 1):
        current().progress(step, steps, f"step {step}")
    logging.getLogger("walk").warning("at the end")


@app.task
def walk_and_rest(seconds: float) -> None:
    current().progress(1)
    current().progress(2)
    time.sleep(seconds)


@app.task
def speak(text: str) -> None:
    print("printed", text)
    current().log.warning("logged %s", text)


@app.task
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@app.task
def wait_for(started: str, wanted: str) -> int:
    Path(started).touch()
    while not Path(wanted).exists():
        time.sleep(0.01)
    return os.getpid()


@app.task
def spin() -> None:
    while True:
        pass


@app.task
def hold_interpreter() -> int:
    return sum(range(10**13))  # one call in C that lets no other thread run


@app.task
def kill_self(megabytes: int) -> None:
    ballast = bytearray(megabytes * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def segfault() -> None:
    ctypes.string_at(0)


@app.task
def exit_at_once(code: int) -> None:
    os._exit(code)


@app.task
def leave(code: int) -> None:
    sys.exit(code)


@app.task
def interrupt() -> None:
    raise KeyboardInterrupt


@app.task
async def leave_in_background() -> str:
    async def leave() -> None:
        sys.exit(1)

    background = asyncio.create_task(leave())
    await asyncio.sleep(0.01)
    assert background.done()
    background.exception()
    return "still here"


@app.task
def run_a_loop() -> str:
    async def work() -> str:
        await asyncio.sleep(0)
        return "looped"

    return asyncio.run(work())


@app.task
def start_and_sleep(pids: str, seconds: float) -> None:
    started = subprocess.Popen(["sleep", "1000"])
    Path(pids).write_text(str(started.pid))
    time.sleep(seconds)


@app.task
def fork_and_exit(pids: str) -> None:
    forked = os.fork()
    if not forked:
        time.sleep(1000)
    Path(pids).write_text(str(forked))
    os._exit(1)


@app.task
def fork_and_return() -> int:
    if not os.fork():
        current().progress(1)
    return os.getpid()


@app.task
def end_a_pool() -> str:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(os.getpid) != os.getpid()
    return "ended"  # leaving the block ends the pool's process by SIGTERM and waits for it


@app.task
def close_everything() -> None:
    os.closerange(3, 1000)


@app.task
def until_cancelled(started: str) -> str:
    Path(started).touch()
    while not current().cancelled:
        time.sleep(0.01)
    return "stopped by itself"


@app.task
def until_cancelled_then_give_up(started: str) -> None:
    Path(started).touch()
    while not current().cancelled:
        time.sleep(0.01)
    raise Cancel("given up")


@app.task
def deaf(started: str) -> None:
    Path(started).touch()
    while True:
        time.sleep(0.01)


@app.task
async def async_sleep(started: str, ended: str) -> None:
    Path(started).touch()
    try:
        await asyncio.sleep(1000)
    finally:
        Path(ended).touch()


@app.task
async def async_deaf(started: str) -> str:
    Path(started).touch()
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        return "went on"
    return "slept"
