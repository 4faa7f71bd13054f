"""The way to a store: by URL, with what every store needs in front of it."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar, cast

from windlass.clock import Clock, SystemClock
from windlass.config import masked, scheme_of
from windlass.errors import ConfigError, StoreUnavailable
from windlass.store.contract import Store
from windlass.store.fork import import_engine

T = TypeVar("T")

ENGINES = {
    "sqlite": ("sqlite.store", "SQLiteStore", ""),
    **dict.fromkeys(("postgresql", "postgres"), ("postgres.store", "PostgresStore", "postgres")),
    **dict.fromkeys(
        ("redis", "rediss", "valkey", "valkeys", "redis+cluster", "rediss+cluster", "redis+sentinel"),
        ("redis.store", "RedisStore", "redis"),
    ),
}
"""By the scheme of a URL: the module and the class of its store, and the extra that installs its driver."""


def make_store(url: str, clock: Clock | None = None) -> Store:
    """The store that `url` names, not opened yet. Raises `ConfigError` for a URL that names none, and for a driver that
    is not installed."""
    scheme = scheme_of(url)
    if scheme not in ENGINES:
        raise ConfigError(
            "expected a store URL such as sqlite:///windlass.db, postgresql://… or redis://…; "
            f"{scheme or masked(url)!r} names no store"
        )
    module, name, extra = ENGINES[scheme]
    try:
        engine = import_engine(f"windlass.store.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a {scheme}:// store needs its driver ({error.name} is missing): pip install 'windlass[{extra}]'"
        ) from error
    store: Store = getattr(engine, name)(url, clock or SystemClock())
    return store


QUICK = frozenset({"open", "close", "get", "holders"})
SLOW = frozenset({"act", "shed", "amend", "save", "load", "find", "count", "stats", "workers", "probe"})
"""The calls that people and web requests wait for. A put has a deadline of its own, workers have their lease."""

WRITES = frozenset({"act", "shed", "amend", "save"})

QUICK_LIMIT, SLOW_LIMIT = 5.0, 30.0
"""Seconds that such calls may take. What is slow is work on many jobs, or waiting for a writer."""


def bounded(store: Store, quick: float = QUICK_LIMIT) -> Store:
    """The same store, no call to which hangs: `StoreUnavailable` after `quick` seconds, or SLOW_LIMIT."""
    return cast("Store", Bounded(store, quick))


class Bounded:
    """In front of a store: its methods, with an end to waiting."""

    def __init__(self, store: Store, quick: float) -> None:
        self._store = store
        self._quick = quick

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        return partial(self._call, call, name) if name in QUICK or name in SLOW else call

    async def _call(self, call: Any, name: str, *args: Any, **more: Any) -> Any:
        limit = self._quick if name in QUICK else SLOW_LIMIT
        return await within(limit, call(*args, **more), unanswered(name, limit))


def unanswered(what: str, limit: float) -> StoreUnavailable:
    """The error of a call that had no answer."""
    done = "it may have been done, and repeating it is safe" if what in WRITES else "nothing was written"
    return StoreUnavailable(
        f"the store did not answer within {limit:g} s ({what}); {done}. Is its server running, and is the network well?"
    )


async def within(seconds: float, work: Coroutine[Any, Any, T], late: Exception) -> T:
    """What `work` returns; after `seconds`, `late` is raised, even if `work` does not end when it is cancelled."""
    task = asyncio.ensure_future(work)
    _waited_for.add(task)
    task.add_done_callback(_over)
    try:
        await asyncio.wait({task}, timeout=max(0.0, seconds))
        if task.done():
            return task.result()
        raise late
    finally:
        task.cancel()


def _over(task: asyncio.Task[Any]) -> None:
    _waited_for.discard(task)
    if not task.cancelled():
        task.exception()  # it was told to whoever waited; nobody waits for one that was late


_waited_for: set[asyncio.Task[Any]] = set()
"""Event loops do not keep tasks alive."""
