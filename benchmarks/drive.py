"""How jobs are put into a queue and timed, the same for every system that is measured.

Nothing but the standard library: it runs in the environments of other systems too. `python -m benchmarks.drive MODULE`
obeys `prepare 0 0`, `one FIRST COUNT`, `many FIRST COUNT` or `paced FIRST COUNT`, and prints what it found as JSON.
"""

import asyncio
import importlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Put = Callable[[int], Any]

RATE = 20
"""Jobs per second while latency is measured."""

BATCH = 1000
"""Jobs in one call that takes many."""

WARM_UP = 10
"""Jobs that are put before the clock runs: connections are made, scripts loaded."""


@dataclass(frozen=True)
class Client:
    """What a system offers to those who enqueue. Each call returns when the store has the job; it may be awaitable."""

    one: Put
    many: Callable[[list[int]], Any] | None = None
    prepare: Callable[[], Any] | None = None


async def one_by_one(put: Put, numbers: range) -> float:
    """Jobs per second, each put when the one before it is stored."""
    began = time.perf_counter()
    for n in numbers:
        waiting = put(n)
        if waiting is not None and inspect.isawaitable(waiting):
            await waiting
    return len(numbers) / (time.perf_counter() - began)


async def in_bulk(put: Callable[[list[int]], Any], numbers: range, size: int = BATCH) -> float:
    """Jobs per second, `size` in a call."""
    began = time.perf_counter()
    for start in range(0, len(numbers), size):
        await maybe(put(list(numbers[start : start + size])))
    return len(numbers) / (time.perf_counter() - began)


async def paced(put: Put, numbers: range, rest: Callable[[float], Any] = time.sleep) -> list[float]:
    """When each job was about to be put, in Unix time, at RATE per second."""
    sent = []
    for n in numbers:
        sent.append(time.time())
        await maybe(put(n))
        await maybe(rest(1 / RATE))
    return sent


async def maybe(waiting: Any) -> Any:
    """Wait for what can be waited for."""
    return await waiting if inspect.isawaitable(waiting) else waiting


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, without an event loop."""
    try:
        call.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("expected a client that blocks; got one that waits: its connect must be a coroutine function")


def run(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, in the quickest event loop that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(call)
    return uvloop.run(call)


def main(module: str, verb: str, first: int, count: int) -> None:
    """Do what the command line says with the client that the module's `connect` returns, or its coroutine."""
    connect = importlib.import_module(module).connect
    waits = inspect.iscoroutinefunction(connect)
    numbers = range(first, first + count)

    async def act() -> Any:
        client: Client = await maybe(connect())
        if verb == "prepare":
            return client.prepare and await maybe(client.prepare())
        if verb == "paced":
            return await paced(client.one, numbers, asyncio.sleep if waits else time.sleep)
        await one_by_one(client.one, numbers[:WARM_UP])
        rest = numbers[WARM_UP:]
        return await (in_bulk(client.many, rest) if verb == "many" and client.many else one_by_one(client.one, rest))

    print(json.dumps((run if waits else at_once)(act()), default=str))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
