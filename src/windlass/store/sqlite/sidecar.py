"""The folder beside the database: who is alive, and bells to wake who waits. No writer can stand in front of it."""

import asyncio
import contextlib
import errno
import logging
import os
import struct
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from windlass.clock import Clock
from windlass.errors import StoreUnavailable
from windlass.store.contract import Topic
from windlass.store.waiters import Waiters

logger = logging.getLogger("windlass.store")

BEAT = struct.Struct("=d36s")
"""A beat: seconds by the boot clock, and which boot."""


class Sidecar(Protocol):
    """Beats and bells, in files for a file and in memory for `:memory:`."""

    def beat(self, worker: str) -> None:
        """Note that `worker` lives now."""

    def ages(self, workers: Iterable[str]) -> dict[str, float]:
        """Seconds since the last beat of each worker; infinite for one that has none, or from before a reboot."""

    def forget(self, worker: str) -> None:
        """Drop the beats of a worker that is gone."""

    def ring(self, topic: Topic) -> None:
        """Wake all who wait for `topic`, in every process."""

    async def listen(self, topic: Topic, timeout: float) -> bool:
        """Wait for a ring that came after the last one heard; whether it came within `timeout` seconds."""

    def close(self) -> None:
        """Stop listening."""


def boot_id() -> str:
    """What changes when the machine starts anew; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def ring_all(folder: Path, topic: Topic) -> None:
    """Ring every bell for `topic` in a folder, if there are any."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(f"bell-{topic}-")]
    except OSError:
        return
    for name in names:
        ring_one(folder / name)


def ring_one(path: Path) -> None:
    """Ring one bell; drop it if nobody hears it any more."""
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody has it open: its owner died
            with contextlib.suppress(OSError):
                path.unlink()
        return
    with contextlib.suppress(OSError):
        os.write(pipe, b"!")
    os.close(pipe)


class FileSidecar:
    """Beats are small files, bells are named pipes: a byte in one wakes its reader, without polling."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._boot = boot_id()
        self._bells: dict[Topic, tuple[int, Path]] = {}
        self._readers: dict[tuple[asyncio.AbstractEventLoop, Topic], int] = {}
        self._waiters = Waiters()
        self._lock = threading.Lock()
        folder.mkdir(exist_ok=True)

    def beat(self, worker: str) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            handle = os.open(self._folder / f"beat-{worker}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # In place and aligned: a full disk cannot refuse it, and no reader sees half of it.
                os.pwrite(handle, BEAT.pack(self._clock.boot(), self._boot.encode()), 0)
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreUnavailable(f"the beat of worker {worker} cannot be written: {error}") from error

    def ages(self, workers: Iterable[str]) -> dict[str, float]:
        now = self._clock.boot()
        return {worker: now - self._last(worker) for worker in workers}

    def _last(self, worker: str) -> float:
        try:
            at, boot = BEAT.unpack((self._folder / f"beat-{worker}").read_bytes())
        except (FileNotFoundError, struct.error):
            return float("-inf")
        except OSError as error:
            raise StoreUnavailable(f"the beat of worker {worker} cannot be read: {error}") from error
        return float(at) if boot.rstrip(b"\0") == self._boot.encode() else float("-inf")

    def forget(self, worker: str) -> None:
        (self._folder / f"beat-{worker}").unlink(missing_ok=True)

    def ring(self, topic: Topic) -> None:
        ring_all(self._folder, topic)

    async def listen(self, topic: Topic, timeout: float) -> bool:
        try:
            pipe = self._bell(topic)
        except OSError as error:  # no named pipes here: hints are lost, and looking again finds everything
            logger.debug("%s has no bells: %s", self._folder, error)
            await asyncio.sleep(timeout)
            return False
        loop = asyncio.get_running_loop()
        key = (loop, topic)
        if key not in self._readers:
            loop.add_reader(pipe, self._hear, topic, pipe)
        self._readers[key] = self._readers.get(key, 0) + 1
        try:
            return await self._waiters.wait(topic, timeout)
        finally:
            self._readers[key] -= 1
            if not self._readers[key]:
                del self._readers[key]
                loop.remove_reader(pipe)

    def _hear(self, topic: Topic, pipe: int) -> None:
        with contextlib.suppress(OSError):
            os.read(pipe, 65536)
        self._waiters.wake(topic)

    def _bell(self, topic: Topic) -> int:
        with self._lock:
            if topic not in self._bells:
                self._folder.mkdir(exist_ok=True)
                path = self._folder / f"bell-{topic}-{uuid.uuid4().hex}"
                fresh = path.with_name(f"new-{path.name}")  # under its own name only once it is open: see ring_one
                os.mkfifo(fresh, 0o622)
                pipe = os.open(fresh, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                fresh.rename(path)
                self._bells[topic] = (pipe, path)
            return self._bells[topic][0]

    def close(self) -> None:
        with self._lock:
            for pipe, path in self._bells.values():
                os.close(pipe)
                path.unlink(missing_ok=True)
            self._bells.clear()


class MemorySidecar:
    """The same for a database that lives in one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beats: dict[str, float] = {}
        self._waiters = Waiters()

    def beat(self, worker: str) -> None:
        self._beats[worker] = self._clock.boot()

    def ages(self, workers: Iterable[str]) -> dict[str, float]:
        now = self._clock.boot()
        return {worker: now - self._beats.get(worker, float("-inf")) for worker in workers}

    def forget(self, worker: str) -> None:
        self._beats.pop(worker, None)

    def ring(self, topic: Topic) -> None:
        self._waiters.wake(topic)

    async def listen(self, topic: Topic, timeout: float) -> bool:
        return await self._waiters.wait(topic, timeout)

    def close(self) -> None:
        self._beats.clear()
