"""The dashboard beside `windlass dev`: a process of its own with the app's code, started anew with every edit."""

import asyncio
import contextlib
import importlib.util
import logging
import socket
import subprocess
import sys
from collections.abc import Callable

from windlass.cli.dashboard import PORT, serve, users_given
from windlass.errors import ConfigError
from windlass.loader import load
from windlass.worker.logs import set_up
from windlass.worker.start import command

HOST = "127.0.0.1"

NEEDS = ("jinja2", "starlette", "uvicorn")

FAREWELL = 5.0
"""Seconds that it gets to end."""


def missing() -> str:
    """What the dashboard needs and is not installed; empty if it can be served."""
    return next((name for name in NEEDS if importlib.util.find_spec(name) is None), "")


async def keep(app: str, edited: asyncio.Event, tell: Callable[[str], object]) -> None:
    """Keep the dashboard of an app until cancelled, anew with every edit, at one port: the usual one, or one
    that is free. Where it is, is told once, when it first answers."""
    if name := missing():
        tell(f"no dashboard: {name} is not installed; pip install 'windlass[dashboard]'")
        return
    port = free_port()
    told = False
    while True:
        edited.clear()
        process = subprocess.Popen(  # noqa: ASYNC220 - exec of our own interpreter: a millisecond
            command("windlass.cli.beside", app, str(port)), stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            while not (told or edited.is_set() or process.poll() is not None):
                if await answers(port):
                    tell(f"dashboard is ready\n  http://{HOST}:{port}/")
                    told = True
                await asyncio.sleep(0.1)
            await edited.wait()
        finally:
            await end(process)


async def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, by force if need be."""
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, FAREWELL)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


def free_port() -> int:
    """The usual port, or any that is free."""
    for port in (PORT, 0):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((HOST, port))
            return int(tried.getsockname()[1])
    raise ConfigError(f"there is no free port at {HOST} for the dashboard")


async def answers(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


def main() -> None:
    """Be that process. An app that cannot be imported ends it without a word: the worker says why."""
    set_up(logging.WARNING)
    try:
        app = load(sys.argv[1])
    except ConfigError:
        raise SystemExit(1) from None
    serve(app, sys.argv[1], users_given(), HOST, int(sys.argv[2]), ())


if __name__ == "__main__":
    main()
