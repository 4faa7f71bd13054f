"""What the server is and how it is set: what we refuse to start on, what we warn of, what an operator should know."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from redis import exceptions

from windlass.errors import ConfigError, StoreUnavailable
from windlass.store.redis.link import Link
from windlass.store.redis.url import PLAIN, Target

logger = logging.getLogger("windlass.store")

OLDEST = (7, 0)
SCHEMA = 1
STEPS = ("0001_start",)
LAST = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
"""Lines of INFO that say how writing to the disk went."""

SETTINGS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "save")


_said: set[tuple[str, str]] = set()
"""Warnings that this process has given: once each, however often a store is opened."""


@dataclass(frozen=True, slots=True)
class Health:
    """Facts of a server: INFO, and settings as far as it lets us see them."""

    info: Mapping[str, str]
    settings: Mapping[str, str]

    @property
    def engine(self) -> str:
        """Redis or Valkey, with its version."""
        valkey = self.info.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {self.info.get('redis_version', '?')}"

    @property
    def version(self) -> tuple[int, ...]:
        """The version of Redis that it is compatible with."""
        return tuple(int(part) for part in self.info.get("redis_version", "0").split(".")[:2] if part.isdecimal())

    @property
    def policy(self) -> str:
        """What it does when its memory is full."""
        return self.settings.get("maxmemory-policy") or self.info.get("maxmemory_policy", "")

    @property
    def aof(self) -> bool:
        """Whether it writes every change to a log."""
        return self.info.get("aof_enabled") == "1"

    @property
    def snapshots(self) -> bool | None:
        """Whether it writes snapshots by itself; None if it does not tell."""
        return bool(self.settings["save"]) if "save" in self.settings else None

    @property
    def persistence(self) -> str:
        """Both in words."""
        log = f"AOF, fsync {self.settings.get('appendfsync', 'not known')}" if self.aof else ""
        shots = {True: "snapshots", False: "", None: "snapshots not known"}[self.snapshots]
        return ", ".join(part for part in (log, shots) if part) or "none"


async def examine(link: Link) -> Health:
    """Ask the server."""
    lines = (await link.ask("INFO")).decode().splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    try:
        flat = await link.ask("CONFIG", "GET", *SETTINGS)
    except StoreUnavailable as error:  # managed servers forbid it
        if not isinstance(error.__cause__, exceptions.ResponseError):
            raise
        flat = []
    words = [word.decode() for word in flat]
    return Health(info, dict(zip(words[::2], words[1::2], strict=True)))


def refuse(health: Health, target: Target) -> None:
    """Raise `ConfigError` for a server that would lose jobs as it is set."""
    where = f"the server at {target.shown}"
    if health.version < OLDEST:
        raise ConfigError(f"{where} is {health.engine}; Redis 7.0 or Valkey is needed: update it")
    if health.policy not in ("", "noeviction"):
        raise ConfigError(
            f"{where} throws away keys when its memory is full (maxmemory-policy {health.policy}), and with them jobs: "
            "set maxmemory-policy to noeviction, or use a server of its own for Windlass"
        )
    if target.durable and not health.aof and health.snapshots is False:
        raise ConfigError(
            f"{where} keeps nothing on disk, a restart loses all jobs: set appendonly to yes (or save 60 1), or accept "
            "that with ?durability=none in the URL"
        )


def warnings(health: Health, target: Target) -> list[str]:
    """What may be lost as the server is set, and what it did not tell."""
    found = []
    if not health.settings:
        found.append(
            "the server does not let us read its settings (CONFIG GET): make sure that maxmemory-policy is noeviction "
            "and that it persists what it is given"
        )
    if not target.durable:
        found.append("durability=none: whatever the server does not persist is lost when it ends")
    elif not health.aof:
        found.append(
            "the server only writes snapshots (RDB): its crash loses all since the last one, also jobs that were "
            "acknowledged. Set appendonly to yes"
        )
    elif health.settings.get("appendfsync", "always") != "always":
        found.append(
            f"appendfsync is {health.settings['appendfsync']}: a crash of the operating system loses about the last "
            "second of jobs that were acknowledged; a crash of the server alone loses none. Set appendfsync to always "
            "to exclude it"
        )
    return found


async def prepare(link: Link) -> list[str]:
    """Bring the schema up if it is new; the steps taken. Raises `ConfigError` for one that is newer than we are."""
    key = f"{link.target.tag}schema"
    if await link.ask("SET", key, SCHEMA, "NX"):
        return list(STEPS)
    version = int(await link.ask("GET", key) or SCHEMA)
    if version > SCHEMA:
        raise ConfigError(
            f"the jobs at {link.target.shown} have schema {version}, this Windlass knows up to {SCHEMA}: "
            "update Windlass"
        )
    return []


async def admit(link: Link) -> None:
    """Refuse a server that is no place for jobs, warn of what it may lose, bring the schema up."""
    health = await examine(link)
    refuse(health, link.target)
    for text in warnings(health, link.target):
        if (link.target.shown, text) not in _said:
            _said.add((link.target.shown, text))
            logger.warning("%s: %s", link.target.shown, text)
    await prepare(link)


async def probe(link: Link, history: int) -> Mapping[str, str]:
    """`Store.probe`."""
    began = time.time()
    whole, micros = await link.ask("TIME")
    took = time.time() - began
    health = await examine(link)
    limit = int(health.settings.get("maxmemory") or health.info.get("maxmemory") or 0)
    found = {
        "engine": health.engine,
        "server": link.target.shown,
        "kind": {PLAIN: "one server"}.get(link.target.kind, link.target.kind),
        "persistence": health.persistence,
        "eviction": health.policy or "not known",
        "bytes": health.info.get("used_memory", "0"),
        "maxmemory": str(limit) if limit else "no limit",
        "clock_offset": f"{int(whole) + int(micros) / 1e6 - began - took / 2:.6f}",
        "latency": f"{took * 1000:.2f} ms",
        "prefix": link.target.prefix,
        "history": f"{history} of {link.target.history}",
    }
    for number, text in enumerate(warnings(health, link.target), 1):
        found["warning" if number == 1 else f"warning_{number}"] = text
    failed = [name for name in LAST if health.info.get(name, "ok") != "ok"]
    if failed:
        found["problem"] = f"the server could not write to its disk ({', '.join(failed)}): look at its log"
    return found
