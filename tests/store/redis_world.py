"""Redis under test: a prefix per world, and time that tests set."""

import contextlib
import functools
import time
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import redis
from redis.cluster import RedisCluster

from tests import servers
from tests.servers import Redis
from tests.store.world import PushedClock, World
from windlass.clock import FakeClock, SystemClock
from windlass.store.contract import Store
from windlass.store.dispatch import make_store
from windlass.store.redis.scripts import CLOCK
from windlass.store.redis.store import RedisStore

FAKE_CLOCK = """
local function now()
  return tonumber(redis.call('HGET', KEYS[1] .. 'clock', 'now'))
end
local function steady()
  return tonumber(redis.call('HGET', KEYS[1] .. 'clock', 'boot'))
end
"""
"""Time as the tests left it, instead of the server's."""


class RedisWorld(World):
    """The server of this run; every world has a prefix of its own."""

    kind = "redis"

    def __init__(self, folder: Path, clock: FakeClock | SystemClock | None = None, options: str = "") -> None:
        super().__init__(folder, clock or PushedClock())
        if isinstance(self.clock, PushedClock):
            self.clock.push = self.set_clock
        self.prefix = f"test-{uuid.uuid4().hex[:12]}"
        self.options = options

    @property
    def server(self) -> str:
        """The URL of the server under test, without options."""
        return servers.redis_url()

    @property
    def url(self) -> str:
        return f"{self.server}?prefix={self.prefix}{self.options}"

    @functools.cached_property
    def raw(self) -> Any:
        """A blocking client on the same keys."""
        return redis.Redis.from_url(self.server)

    def connect(self) -> Store:
        self.set_clock()
        return RedisStore(self.url, self.clock, _clock=FAKE_CLOCK if isinstance(self.clock, FakeClock) else CLOCK)

    def set_clock(self) -> None:
        """Let the server read the time of `clock`."""
        if isinstance(self.clock, FakeClock):
            now, boot = (round(seconds * 1_000_000) for seconds in (self.clock.now(), self.clock.boot()))
            self.raw.hset(self.key("clock"), mapping={"now": now, "boot": boot})

    def key(self, name: str) -> str:
        """The full name of a key of this world."""
        return f"{{{self.prefix}}}:{name}"

    async def now(self) -> float:
        if isinstance(self.clock, FakeClock):
            return self.clock.now()
        return time.time()  # the server runs on this host

    async def close(self) -> None:
        await super().close()
        self.wipe()
        self.raw.close()

    def wipe(self) -> None:
        """Drop all keys of this world."""
        keys = list(self.raw.scan_iter(self.key("*"), count=5_000))
        if keys:
            self.raw.unlink(*keys)


class ClusterWorld(RedisWorld):
    """A cluster of three masters."""

    kind = "cluster"

    @property
    def server(self) -> str:
        return servers.cluster_url()

    @functools.cached_property
    def raw(self) -> Any:
        return RedisCluster(host="127.0.0.1", port=servers.cluster_nodes()[0].port)


class OwnWorld(RedisWorld):
    """A world on a server of its own."""

    def __init__(self, folder: Path, own: Redis, options: str = "") -> None:
        self.own = own
        super().__init__(folder, SystemClock(), options)

    @property
    def server(self) -> str:
        return self.own.url

    def wipe(self) -> None:
        """The server goes, and its keys with it."""


@contextlib.asynccontextmanager
async def opened(folder: Path, options: str = "", **settings: str) -> AsyncGenerator[OwnWorld, None]:
    with Redis(**settings) as server:
        world = OwnWorld(folder, server, options)
        await world.open()
        try:
            yield world
        finally:
            await world.close()


async def try_open(url: str) -> None:
    """Open a store and close it."""
    store = make_store(url)
    try:
        await store.open()
    finally:
        await store.close()
