"""Limits under load, one bar each: python -m benchmarks.limits rate|fair|blocked|killed|once|debounce|aging|parents.

On the store that WINDLASS_URL names, which must be empty, else on a SQLite file of its own. The commands start their
own workers, and tell what they measured beside what was asked for.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
LEASE = 5
"""Seconds of a worker's lease where processes are killed."""


def lines(word: str) -> list[list[str]]:
    """What tasks wrote under that word so far."""
    file = Path(os.environ["EFFECTS"])
    found = file.read_text().splitlines() if file.exists() else []
    return [line.split()[1:] for line in found if line.split()[0] == word]


@contextlib.contextmanager
def worker(*options: str) -> Iterator[psutil.Process]:
    """A worker beside the block."""
    command = [sys.executable, "-m", "windlass", "worker", "benchmarks.limit_tasks:app", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def until(done: Callable[[], bool], seconds: float) -> float:
    """Wait until it is done; how long that took. Raises `TimeoutError`."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not done within {seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def rate(seconds: float) -> str:
    """Starts in any window of 60 s, and another queue's start beside it."""
    from benchmarks.limit_tasks import app, other, rated

    with worker("-p", "10", "-c", "8"):
        other.enqueue(time.time())
        until(lambda: len(lines("other")) == 1, 60)
        for _ in range(200):
            other.enqueue(time.time())
            time.sleep(0.01)
        until(lambda: len(lines("other")) == 201, 60)
        app.enqueue_many([rated.bind(n) for n in range(1_000)])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            other.enqueue(time.time())
            time.sleep(0.05)
        time.sleep(2)
    starts = sorted(float(at) for _, at in lines("rated"))
    most = max(sum(at <= other <= at + 60 for other in starts) for at in starts)
    times = [float(took) for _, took in lines("other")][1:]
    return (
        f"{len(starts)} starts in {seconds:g} s; at most {most} in any 60 s (asked: 120 = 100 + burst); another queue "
        f"p99 {p99(times[:200]) * 1000:.1f} ms before, {p99(times[200:]) * 1000:.1f} ms beside it"
    )


def fair(_: float) -> str:
    """A tenant with a hundred thousand jobs, then one with ten."""
    from benchmarks.limit_tasks import app, fair

    for _batch in range(20):
        app.enqueue_many([fair.bind("a") for _ in range(5_000)])
    with worker("-p", "1", "-c", "8"):
        until(lambda: len(lines("fair")) > 100, 60)
        began, before = time.time(), len(lines("fair"))
        app.enqueue_many([fair.bind("b") for _ in range(10)])
        until(lambda: sum(tenant == "b" for tenant, _ in lines("fair")) == 10, 60)
        last = max(float(at) for tenant, at in lines("fair") if tenant == "b") - 0.1 - began
        time.sleep(5)
        alone = [float(at) for tenant, at in lines("fair")[before:] if tenant == "a"]
        late = [at for at in alone if at > began + last + 0.5]
        share = (len(late) - 1) / (late[-1] - late[0]) / 80
    return f"the second tenant started within {last:.2f} s (asked: 2); the first alone at {share:.0%} of the full rate"


def blocked(_: float) -> str:
    """A hundred thousand jobs behind a limit of one, and others in the same queue."""
    from benchmarks.limit_tasks import app, free, one

    def drain(count: int) -> float:
        app.enqueue_many([free.bind() for _ in range(count)])
        began = time.monotonic()
        until(lambda: app.jobs.count(task="free", state="ready") == 0, 300)
        return count / (time.monotonic() - began)

    with worker("-c", "50"):
        drain(1_000)
        plain = [drain(10_000), drain(10_000)]
        for _batch in range(20):
            app.enqueue_many([one.bind(3600) for _ in range(5_000)])
        until(lambda: app.jobs.count(task="one", state="running") == 1, 60)
        behind = [drain(10_000), drain(10_000)]
    return (
        f"{max(plain):,.0f} jobs/s without, {max(behind):,.0f} beside them: {max(behind) / max(plain):.0%} (asked: 90)"
    )


def killed(_: float) -> str:
    """A limit of one on each of 200 keys, while runners die."""
    from benchmarks.limit_tasks import app, keyed

    keys, each, deaths = 200, 150, 200
    for n in range(each):
        app.enqueue_many([keyed.bind(key, n) for key in range(keys)])
    kills: dict[int, float] = {}
    os.environ["WINDLASS_LEASE"] = str(LEASE)
    with worker("-p", "4", "-c", "8") as supervisor:
        while len(kills) < deaths and app.jobs.count(task="keyed", state="succeeded") < keys * each:
            time.sleep(random.uniform(0.5, 2.0))
            if runners := [one for one in supervisor.children() if one.pid not in kills]:
                kills[(dying := random.choice(runners)).pid] = time.time()
                dying.kill()
        until(lambda: app.jobs.count(task="keyed", state="succeeded") == keys * each, 600)
    together, gaps = kept_apart(kills)
    return (
        f"{len(kills)} runners killed, {len(gaps)} of them in a job; {together} times two of one key at once "
        f"(asked: 0); the next of a key after at most {max(gaps, default=0):.2f} s (asked: {LEASE + 2})"
    )


def kept_apart(kills: dict[int, float]) -> tuple[int, list[float]]:
    """How often two jobs of a key ran at once, and the seconds from each death in a job to the next of its key."""
    told = [("begin", *line) for line in lines("begin")] + [("end", *line) for line in lines("end")]
    together, gaps = 0, []
    running: dict[str, tuple[str, str]] = {}
    for word, key, _, at, *processes in sorted(told, key=lambda line: float(line[3])):
        there = running.pop(key, None)
        if word == "end":
            together += there != tuple(processes)
            continue
        if there:
            died = min(kills.get(int(process), float("inf")) for process in there)
            together += died > float(at)
            gaps.append(float(at) - died)
        running[key] = (processes[0], processes[1])
    return together, gaps


def once(_: float) -> str:
    """Many processes enqueue one key, some rolled back, some killed."""
    from benchmarks.limit_tasks import app

    processes = [multiprocessing.get_context("spawn").Process(target=put_many, args=(n,)) for n in range(16)]
    for process in processes:
        process.start()
    most = 0
    while any(process.is_alive() for process in processes):
        most = max(most, app.jobs.count(task="free"))
        if random.random() < 0.05:
            random.choice(processes).kill()
        time.sleep(0.2)
    found = app.jobs.count(task="free")
    return f"at most {most} live jobs of one key from 16 processes x 250 (asked: 1); {found} in the end"


def put_many(n: int) -> None:
    """One of those processes."""
    from benchmarks.limit_tasks import app, free

    for _ in range(250):
        job = free.using(unique="the only one").enqueue()
        if not app.jobs.get_many([job.id]):
            raise SystemExit(f"process {n}: there is no job {job.id}, and it was answered")
    app.close()


def debounce(_: float) -> str:
    """A thousand calls in ten seconds."""
    from benchmarks.limit_tasks import saved

    with worker("-c", "4"):
        began = time.monotonic()
        for n in range(1_000):
            saved.enqueue("d", n)
            time.sleep(max(0.0, began + (n + 1) * 0.01 - time.monotonic()))
        until(lambda: any(int(n) == 999 for _, n, _ in lines("saved")), 30)
        time.sleep(3)
    runs = [int(n) for _, n, _ in lines("saved")]
    return f"{len(runs)} runs for 1,000 calls in 10 s (asked: 2 or 3), with the arguments {runs}"


def aging(seconds: float) -> str:
    """Jobs of low priority under twice the capacity in high ones, where the queue ages by 6 s."""
    from benchmarks.limit_tasks import aged, app

    with worker("-c", "4"):
        end = time.monotonic() + min(seconds, 40)
        app.enqueue_many([aged.using(priority=-100).bind("low", time.time()) for _ in range(20)])
        while time.monotonic() < end:
            app.enqueue_many([aged.using(priority=100).bind("high", time.time()) for _ in range(40)])
            time.sleep(0.1)
    waits = [float(took) for word, took in lines("aged") if word == "low"]
    return f"{len(waits)} of 20 of low priority ran, after at most {max(waits):.1f} s (asked: 6 and a job)"


def parents(_: float) -> str:
    """A tree of jobs that wait for their children, three levels deep, in one slot, and one behind a limit of 1."""
    from benchmarks.limit_tasks import parent, single

    with worker("-p", "1", "-c", "1"):
        took = []
        for task in (parent, single):
            task.enqueue(0, 0).result(timeout=60)
            began = time.monotonic()
            count = task.enqueue(3, 10).result(timeout=600)
            took.append(time.monotonic() - began)
    return (
        f"{count:,} jobs (asked: 1,111) in {took[0]:.1f} s (asked: within 60), behind a limit of 1 in {took[1]:.1f} s"
    )


BARS = {one.__name__: one for one in (rate, fair, blocked, killed, once, debounce, aging, parents)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bar", choices=list(BARS))
    parser.add_argument("--seconds", type=float, default=150, help="how long `rate` and `aging` look")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("WINDLASS_URL", f"sqlite:///{folder}/windlass.db")
        os.environ["EFFECTS"] = f"{folder}/effects"
        print(f"{given.bar}: {BARS[given.bar](given.seconds)}", flush=True)


if __name__ == "__main__":
    main()
