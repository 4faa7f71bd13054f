"""The only way from blocking code into asynchronous code: one event loop on a thread in the background."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_starting = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, waited for by this thread. Raises `RuntimeError` inside a running event loop."""
    try:
        refuse_in_loop(getattr(work, "__name__", "this").lstrip("_"))
    except RuntimeError:
        work.close()
        raise
    return asyncio.run_coroutine_threadsafe(work, background_loop()).result()


def refuse_in_loop(twin: str) -> None:
    """Raise `RuntimeError` where waiting would block an event loop; `twin` is what to await there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"this call would block the running event loop: in async code await {twin}(…) instead")


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started on first use in this process."""
    global _loop
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="windlass-blocking", daemon=True).start()
        return _loop


def _forget() -> None:
    """In a forked child the thread does not exist."""
    global _loop, _starting
    _loop, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
