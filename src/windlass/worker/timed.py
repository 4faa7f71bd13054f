"""How long a store takes: the one place where its calls are measured."""

import time
from bisect import bisect_left
from functools import partial
from typing import Any, cast

from msgspec import Struct

from windlass.errors import StoreUnavailable
from windlass.metrics import CALL_BUCKETS
from windlass.store.contract import Store

METHODS = frozenset(
    {"put", "enlist", "join", "exchange", "settle", "release", "retire", "beat", "reap", "note", "act", "prune"}
    | {"save", "load", "get", "find", "count", "stats", "workers", "tally", "series", "depths"}
)
"""What is measured: all that does not wait on purpose."""


class Called(Struct, frozen=True):
    """Calls of one method: counts by bucket, the seconds of all of them, and how many the store did not take."""

    method: str
    counts: tuple[int, ...]
    seconds: float = 0.0
    errors: int = 0

    def __add__(self, other: "Called") -> "Called":
        counts = tuple(map(int.__add__, self.counts, other.counts))
        return Called(self.method, counts, self.seconds + other.seconds, self.errors + other.errors)


class Calls:
    """Counts between two looks."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._errors: dict[str, int] = {}

    def add(self, method: str, seconds: float) -> None:
        """A call is over."""
        if method not in self._counts:
            self._counts[method], self._seconds[method] = [0] * (len(CALL_BUCKETS) + 1), 0.0
        self._counts[method][bisect_left(CALL_BUCKETS, seconds)] += 1
        self._seconds[method] += seconds

    def fail(self, method: str) -> None:
        """The store did not take a call, or did not answer."""
        self._errors[method] = self._errors.get(method, 0) + 1

    def take(self) -> list[Called]:
        """What happened since the last look."""
        counts, seconds, errors = self._counts, self._seconds, self._errors
        self._counts, self._seconds, self._errors = {}, {}, {}
        return [Called(name, tuple(counts[name]), seconds[name], errors.get(name, 0)) for name in counts]


def timed(store: Store, calls: Calls) -> Store:
    """The same store; what its calls take goes to `calls`."""
    return cast("Store", Timed(store, calls))


class Timed:
    """In front of a store: its methods, measured."""

    def __init__(self, store: Store, calls: Calls) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        found = partial(self._call, call, name) if name in METHODS else call
        setattr(self, name, found)  # the next time it is there
        return found

    async def _call(self, call: Any, name: str, *args: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return await call(*args, **more)
        except StoreUnavailable:
            self._calls.fail(name)
            raise
        finally:
            self._calls.add(name, time.perf_counter() - began)
