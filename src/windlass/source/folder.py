"""A watched folder: each file is a message, its path is what the task gets.

A file is known by its path, inode, size and time of change; it is left where it is, and its task moves or removes it.
Files that were there before count. One is taken when it has not changed for SETTLED seconds: whoever writes longer
writes under a name that begins with a dot, or elsewhere, and renames. All workers may watch: a file is one job.
"""

import asyncio
import contextlib
import fnmatch
import os
import time
from collections.abc import Sequence
from pathlib import Path

from windlass.errors import ConfigError
from windlass.source.feed import Address, Feed, Message, library

SETTLED = 1.0
"""Seconds that a file has to stay as it is."""

LOOK_EVERY = 5.0
"""Seconds between two looks, where the system tells nothing of changes."""

DEBOUNCE = 200
"""Milliseconds that changes are gathered."""


class FolderFeed(Feed):
    """One look-out on a folder."""

    text = True

    def __init__(self, address: Address, name: str) -> None:
        super().__init__(address, name)
        if address.hosts[0][0] or not address.path or set(address.options) - {"match"}:
            raise ConfigError(f"expected a source as file:///path/of/a/folder[?match=*.csv]; {address!r} came")
        self._folder = Path("/", *address.path)
        self._match = address.options.get("match", "*")
        self._done: set[str] = set()
        self._waiting: dict[str, tuple[str, float]] = {}
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._next = 0.0

    async def open(self) -> None:
        await asyncio.to_thread(os.listdir, self._folder)
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        self._stopped.set()
        if self._watching is not None:
            await asyncio.wait({self._watching})

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        if not (self._waiting or self._changed.is_set()) and time.monotonic() < self._next:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
        self._changed.clear()
        found = await asyncio.to_thread(self._look)
        self._next = time.monotonic() + LOOK_EVERY
        if not found and self._waiting:
            await asyncio.sleep(min(wait, SETTLED / 4))
        if len(found) > most:
            self._changed.set()
        return found[:most]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._done.add(message.handle)
            self._waiting.pop(message.topic, None)

    def _look(self) -> list[Message]:
        """The files that have settled and are not done, in the order of their names."""
        now, there = time.monotonic(), dict(files_in(self._folder, self._match))
        self._done &= set(there.values())
        new = {path: identity for path, identity in there.items() if identity not in self._done}
        known = self._waiting
        self._waiting = {
            path: known[path] if known.get(path, ("",))[0] == identity else (identity, now)
            for path, identity in new.items()
        }
        settled = sorted(path for path, (_, since) in self._waiting.items() if now - since >= SETTLED)
        return [
            Message(
                body=os.fsencode(path), identity=new[path], topic=path, handle=new[path], key=os.path.basename(path)
            )
            for path in settled
        ]

    async def _watch(self) -> None:
        """Be told of changes; a system that cannot tell is looked at every now and then."""
        with contextlib.suppress(Exception):
            changes = library("watchfiles").awatch(
                self._folder, recursive=False, debounce=DEBOUNCE, stop_event=self._stopped
            )
            async for _ in changes:
                self._changed.set()


def files_in(folder: Path, match: str) -> Sequence[tuple[str, str]]:
    """The paths and identities of the files of a folder that are not hidden."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.name[0] != "." and fnmatch.fnmatchcase(entry.name, match) and entry.is_file():
                    now = entry.stat()
                    found.append((entry.path, f"{entry.path}\0{now.st_ino}\0{now.st_mtime_ns}\0{now.st_size}"))
    return found
