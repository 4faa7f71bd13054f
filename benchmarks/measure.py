"""What a running worker does with its jobs, and what that costs; the same for every system that is measured."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import psycopg
import redis

from benchmarks.marks import Marks

ROOT = Path(__file__).parent.parent
STILL = 60.0
"""Seconds without a start after which a drain is given up."""

STOP = 15.0
"""Seconds that a worker may take to end."""


@dataclass(frozen=True)
class Drained:
    """Jobs per second, and microseconds of CPU time per job.

    The rate is that of the middle four fifths of the starts: there all processes run, and what a worker took beforehand
    and has yet to finish at the end weighs nothing.
    """

    rate: float
    worker: float
    server: float


@contextmanager
def running(
    commands: Sequence[Sequence[str]], env: dict[str, str] | None = None, log: IO[bytes] | None = None
) -> Iterator[list[int]]:
    """Workers with their children, from the root of the repository; their process ids."""
    workers = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        for command in commands
    ]
    try:
        yield [one.pid for one in workers]
    finally:
        for one in workers:
            one.send_signal(signal.SIGTERM)
        for one in workers:
            with suppress(subprocess.TimeoutExpired):
                one.wait(STOP)
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()


def tree(pids: list[int]) -> list[psutil.Process]:
    """Processes and all their descendants, for as many as are there."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return found


def spent(processes: list[psutil.Process]) -> float:
    """Seconds of CPU time that processes have taken in all."""
    total = 0.0
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            total += sum(one.cpu_times()[:2])
    return total


def servers_at(url: str) -> list[int]:
    """The server that a URL leads to, if it is one of PostgreSQL or a single Redis; it runs on this machine."""
    if url.startswith("postgres"):
        with psycopg.connect(url.partition("?")[0]) as db:
            main = psutil.Process(db.info.backend_pid).parent()
        return [main.pid] if main else []
    if url.startswith("redis:"):
        client: Any = redis.Redis.from_url(url.partition("?")[0])
        with client:
            return [client.info("server")["process_id"]]
    return []


def drain(marks: Marks, numbers: range, worker: list[int], server: Callable[[], list[int]]) -> Drained:
    """Watch a worker start jobs that wait already. Raises `TimeoutError` when nothing goes on."""
    first, count = numbers.start, len(numbers)
    wait_for(marks, first, count, count // 10)
    ours, theirs = tree(worker), tree(server())
    done = len(marks.starts(first, count))
    before = spent(ours), spent(theirs)
    wait_for(marks, first, count, count)
    left = max(1, count - done)
    costs = [(spent(some) - then) / left * 1e6 for some, then in zip((ours, theirs), before, strict=True)]
    starts = sorted(marks.starts(first, count))
    early, late = count // 10, count - 1 - count // 10
    return Drained((late - early) / (starts[late] - starts[early]), *costs)


def waits(marks: Marks, first: int, sent: list[float]) -> list[float]:
    """Milliseconds from before each enqueue to the start, sorted; the jobs are `first`, `first + 1` and so on."""
    wait_for(marks, first, len(sent), len(sent))
    return sorted((start - then) * 1000 for start, then in zip(marks.starts(first, len(sent)), sent, strict=True))


def wait_for(marks: Marks, first: int, count: int, enough: int) -> None:
    """Until `enough` of some jobs have started."""
    seen, deadline = -1, 0.0
    while (now := len(marks.starts(first, count))) < enough:
        if now > seen:
            seen, deadline = now, time.monotonic() + STILL
        if time.monotonic() > deadline:
            raise TimeoutError(f"{now} of {count} jobs had started, and none for {STILL:g} s")
        time.sleep(0.1)
