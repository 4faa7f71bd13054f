"""Starts real workers for the tests and reads what their jobs did."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests import servers
from windlass import App
from windlass.store.contract import PAUSE, REPORT

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0
"""Seconds after which a test gives up waiting; nothing measures time against it."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, or fail with `what`."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE:g} s for: {what}"
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    """Whether a process still does something; a zombie that nobody reaps does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Effect:
    """One line that a job wrote."""

    job: str
    fence: int
    pid: int
    at: float
    text: str


def empty_store(kind: str, folder: Path) -> str:
    """The URL of a store of that kind with nothing in it."""
    name = f"rig_{uuid.uuid4().hex[:12]}"
    match kind:
        case "postgres":
            return f"{servers.postgres_url()}?schema={name}"
        case "redis":
            return f"{servers.redis_url()}?prefix={name}"
    return f"sqlite:///{folder}/windlass.db"


def closing(app: App, work: Coroutine[Any, Any, T]) -> T:
    """The result of work on an app, which is closed then."""

    async def main() -> T:
        try:
            return await work
        finally:
            await app.aclose()

    return asyncio.run(main())


class Rig:
    """One store, one file of effects, any number of workers."""

    def __init__(self, folder: Path, url: str | None = None, *, lease: float = 15.0) -> None:
        self.url = url or empty_store("sqlite", folder)
        self.log = folder / "worker.log"
        self._effects = folder / "effects"
        self.environment = os.environ | {
            "WINDLASS_URL": self.url,
            "EFFECTS": str(self._effects),
            "SAMPLE_LEASE": str(lease),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        }
        self._workers: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, app: str = "tests.worker.sample:app", cwd: Path = ROOT) -> subprocess.Popen[bytes]:
        """Start a worker."""
        command = [sys.executable, "-m", "windlass", "worker", app, *arguments]
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                command, cwd=cwd, env=self.environment, stderr=log, stdout=log, start_new_session=True
            )
        self._workers.append(worker)
        return worker

    @contextmanager
    def worker(self, *arguments: str, app: str = "tests.worker.sample:app") -> Iterator[subprocess.Popen[bytes]]:
        """A worker for the length of a block, stopped as an operator would."""
        worker = self.start(*arguments, app=app)
        yield worker
        self.stop(worker)

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        """SIGTERM, and the exit code."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(PATIENCE)

    def effects(self, text: str = "") -> list[Effect]:
        """What jobs wrote, in order, if it contains `text`."""
        lines = self._effects.read_text().splitlines() if self._effects.exists() else []
        split = [line.split(" ", 4) for line in lines]
        return [
            Effect(job, int(fence), int(pid), float(at), rest) for job, fence, pid, at, rest in split if text in rest
        ]

    def text(self) -> str:
        """The workers' log."""
        return self.log.read_text()

    def runners(self, worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """The runner processes of a worker."""
        return [one for one in psutil.Process(worker.pid).children() if "windlass.worker.process" in one.cmdline()]

    def told(self, app: App) -> list[str]:
        """The documents about workers that are in the store."""

        async def names() -> list[str]:
            store = await app.connect()
            return [doc.name for kind in (REPORT, PAUSE) for doc in (await store.load(kind)).docs]

        return closing(app, names())

    def close(self) -> None:
        """Kill what is left."""
        for worker in self._workers:
            if worker.poll() is None:
                for one in psutil.Process(worker.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
                worker.kill()
            worker.wait()
