"""What every process that runs user code does to its surroundings, and what becomes of what it leaves behind."""

import asyncio
import contextlib
import ctypes
import faulthandler
import io
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from windlass.errors import WindlassError
from windlass.machine import die_first
from windlass.policy import describe

T = TypeVar("T")

logger = logging.getLogger("windlass.worker")

OOM_RANK = 300
"""How much sooner than the supervisor the kernel kills what runs user code; among these the largest goes first."""

PR_SET_CHILD_SUBREAPER = 36


class Alive(Protocol):
    """What may have a lifespan."""

    @property
    def lifespan(self) -> Callable[[Any], AbstractAsyncContextManager[Any]] | None:
        """Takes the app; opened once per process."""


@contextlib.asynccontextmanager
async def lifespan(app: Alive) -> AsyncIterator[Any]:
    """What the app opens once per process."""
    if app.lifespan is None:
        yield None
        return
    async with app.lifespan(app) as state:
        yield state


def why(error: BaseException, spec: str) -> str:
    """An error at the start, as text for the log: ours speak for themselves, others need their traceback."""
    return str(error) if isinstance(error, WindlassError) else f"{spec} cannot run\n{describe(error).traceback}"


def stand_alone() -> None:
    """Leave it to our parent when we end; show at once what tasks print; should we crash, say where.

    Should memory run out, we are in the way before our supervisor is.
    """
    die_first(OOM_RANK)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # a handler, because what tasks start would inherit "ignore"
    os.register_at_fork(after_in_child=obey_signals)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if not faulthandler.is_enabled() and sys.stderr is not None:
        faulthandler.enable()


def obey_signals() -> None:
    """In what a task forks, as `multiprocessing` does: end when told to, or its pool waits for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def adopt_orphans() -> None:
    """Linux: become the parent of what our children leave behind, so that we see its end and reap it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap_group(group: int) -> bool:
    """Reap what has ended of a process group that is ours; whether anything of it is left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def reap_strays(own: Collection[int]) -> None:
    """Reap orphans that have ended; `own` are children that somebody else waits for."""
    with contextlib.suppress(ChildProcessError, AttributeError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def end_group() -> None:
    """End this process and all that it started in its group, now."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes uvloop's loop where it is installed; None: asyncio's own will do."""
    try:
        import uvloop
    except ImportError:
        return None
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


def run_through(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
    """Let the event loop turn until this is done. A stray `sys.exit()` in some task does not end the process."""
    future = asyncio.ensure_future(work, loop=loop)
    while True:
        try:
            return loop.run_until_complete(future)
        except (SystemExit, KeyboardInterrupt) as error:
            if future.done():
                raise
            logger.error("a task in the background raised %s; nothing ends by that", type(error).__name__)
