"""The only way from blocking code into asynchronous code: one event loop on a thread in the background."""

import asyncio
import atexit
import concurrent.futures
import ctypes
import functools
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")

asyncio.new_event_loop().close()  # the first one takes a lock of asyncio's own, which a fork at that moment would keep

_starting = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """The result of a coroutine, waited for by this thread. Raises `RuntimeError` inside a running event loop, and
    `TimeoutError` when `timeout` seconds are over; the work is then cancelled, but not waited for. Work that somebody
    else has cancelled raises `asyncio.CancelledError` here too."""
    try:
        refuse_in_loop(getattr(work, "__name__", "this").lstrip("_"))
    except RuntimeError:
        work.close()
        raise
    future = asyncio.run_coroutine_threadsafe(work, background_loop())
    try:
        return future.result(timeout)
    except concurrent.futures.CancelledError:
        raise asyncio.CancelledError from None
    except BaseException:
        future.cancel()  # Ctrl-C or the timeout ends the work too; after an error of its own this does nothing
        raise


def twin(method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[S, P], T]:
    """The blocking twin of an async method: `result = twin(aresult)`."""

    @functools.wraps(method)
    def blocking(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self, *args, **kwargs))

    blocking.__name__ = method.__name__.removeprefix("a")
    blocking.__qualname__ = method.__qualname__.removesuffix(method.__name__) + blocking.__name__
    return blocking


class Stream(Generic[T]):
    """What comes one after the other, with `async for` or, in blocking code, `for`; each loop begins anew."""

    def __init__(self, source: Callable[[], AsyncIterator[T]]) -> None:
        self._source = source

    def __aiter__(self) -> AsyncIterator[T]:
        return self._source()

    def __iter__(self) -> Iterator[T]:
        refuse_in_loop("async for …", "write {}")
        source = self._source()

        async def following() -> tuple[T, ...]:
            async for value in source:
                return (value,)
            return ()

        while found := run(following()):
            yield found[0]


def refuse_in_loop(twin: str, how: str = "await {}(…)") -> None:
    """Raise `RuntimeError` where waiting would block an event loop; `twin` is what to write there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"this call would block the running event loop: in async code, {how.format(twin)} instead")


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started on first use in this process."""
    global _loop, _thread
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="windlass-blocking", daemon=True)
            _thread.start()
        return _loop


def is_on() -> bool:
    """Whether the loop was started in this process."""
    return _loop is not None


def stop() -> None:
    """End the thread and close the loop; the next `run` starts new ones."""
    global _loop, _thread
    with _starting:
        loop, thread, _loop, _thread = _loop, _thread, None, None
    if loop and thread:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(1.0)
        if not loop.is_running():
            loop.close()


def immortal() -> list[Any]:
    """A list that is never taken apart, not even at the end of the process: what is in it is neither closed nor warned
    about."""
    kept: list[Any] = []
    if sys.implementation.name == "cpython":
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    return kept


def _forget() -> None:
    """In a forked child the thread does not exist, and the loop is the parent's."""
    global _loop, _thread, _starting
    _inherited.append(_loop)
    _loop, _thread, _starting = None, None, threading.Lock()


_inherited = immortal()
"""A child never closes what belongs to its parent."""

atexit.register(stop)
os.register_at_fork(after_in_child=_forget)
