"""Long trials of what Windlass promises, as commands: python -m benchmarks.trials kill|backlog|locked [--seconds N].

Each prints its figures and ends with exit code 1 if a promise was broken.
"""

import argparse
import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

import psutil
from uuid_utils import uuid7

ROOT = Path(__file__).parent.parent
LEASE = 5.0


class Trial:
    """A store, a file of effects that jobs append to, and workers of `benchmarks.trial_tasks`."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/windlass.db"
        self.effects = Path(folder) / "effects"
        os.environ |= {"WINDLASS_URL": f"sqlite:///{self.path}", "EFFECTS": str(self.effects), "LEASE": str(LEASE)}
        self.log = Path(folder) / "log"

    def start(self, processes: int, concurrency: int) -> subprocess.Popen[bytes]:
        """A worker."""
        command = [sys.executable, "-m", "windlass", "worker", "benchmarks.trial_tasks:app"]
        command += ["-p", str(processes), "-c", str(concurrency)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def lines(self) -> list[list[str]]:
        """What jobs wrote: [job, fence, moment, start or end]."""
        return [line.split() for line in self.effects.read_text().splitlines()] if self.effects.exists() else []


def runners(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The runner processes of a worker."""
    try:
        found: list[psutil.Process] = psutil.Process(worker.pid).children()
    except psutil.NoSuchProcess:
        return []
    return found


def kill(trial: Trial, seconds: float) -> bool:
    """Jobs of 20 ms on -p 2 -c 8; every second a random runner, or the whole worker, is killed and comes back."""
    from benchmarks.trial_tasks import app, work

    jobs = app.enqueue_many([work.bind(0.02) for _ in range(10_000)])
    worker = trial.start(2, 8)
    kills: list[tuple[float, str, list[int]]] = []
    end = time.monotonic() + seconds
    time.sleep(2)
    while time.monotonic() < end:
        time.sleep(1)
        if app.jobs.count(state="ready") < 1000:
            jobs += app.enqueue_many([work.bind(0.02) for _ in range(2000)])
        victims = runners(worker)
        if random.random() < 0.25 or not victims:
            kills.append((time.time(), "worker", [one.pid for one in victims]))
            worker.kill()
            worker.wait()
            worker = trial.start(2, 8)
        else:
            victim = random.choice(victims)
            kills.append((time.time(), "runner", [victim.pid]))
            with suppress(psutil.NoSuchProcess):
                victim.kill()
    until = time.monotonic() + 120
    while time.monotonic() < until and app.jobs.count(state="succeeded") + app.jobs.count(state="failed") < len(jobs):
        time.sleep(0.5)
    worker.send_signal(signal.SIGTERM)
    worker.wait()
    return judge_kills(trial, {job.id for job in jobs}, kills)


def judge_kills(trial: Trial, jobs: set[str], kills: list[tuple[float, str, list[int]]]) -> bool:
    """Compare what was enqueued, what ran and what the store says."""
    starts: defaultdict[str, list[tuple[float, int, int]]] = defaultdict(list)
    ends: Counter[str] = Counter()
    for job, fence, moment, what, pid in trial.lines():
        if what == "start":
            starts[job].append((float(moment), int(fence), int(pid)))
        else:
            ends[job] += 1
    db = sqlite3.connect(trial.path)
    states = Counter(row[0] for row in db.execute("SELECT state FROM jobs"))
    charged = db.execute("SELECT count(*) FROM jobs WHERE attempt > 1").fetchone()[0]
    twice = sum(len({fence for _, fence, _ in runs}) < len(runs) for runs in starts.values())
    back = {
        (job, fence): at / 1e6
        for job, fence, at in db.execute(
            "SELECT job, fence, ended_at FROM attempts WHERE ending IN ('lost', 'interrupted')"
        )
    }
    killed_by = {pid: (at, kind) for at, kind, pids in kills for pid in pids}
    ready: defaultdict[str, list[float]] = defaultdict(list)
    again: defaultdict[str, list[float]] = defaultdict(list)
    for job, runs in starts.items():
        ordered = sorted(runs, key=lambda run: run[1])
        for run, following in itertools.pairwise(ordered):
            at, kind = killed_by.get(run[2], (0.0, ""))
            if kind and (job, run[1]) in back:
                ready[kind].append(back[job, run[1]] - at)
                again[kind].append(following[0] - at)
    lost = jobs - set(starts)
    print(f"jobs {len(jobs):,}; states {dict(states)}; kills {Counter(kind for _, kind, _ in kills)}")
    print(
        f"lost {len(lost)}; ended twice in user code (killed after its work, before its settle) "
        f"{sum(count > 1 for count in ends.values())}; one attempt started twice {twice}; charged {charged}"
    )
    for kind in ("runner", "worker"):
        print(
            f"after the death of a {kind} (lease {LEASE:g} s): claimable again {summary(ready[kind])}; "
            f"started again {summary(again[kind])}"
        )
    return not lost and not twice and states == Counter(succeeded=len(jobs)) and not charged


def summary(seconds: list[float]) -> str:
    """Median and maximum."""
    ordered = sorted(seconds)
    return (
        f"{len(ordered)} jobs, p50 {ordered[len(ordered) // 2]:.2f} s, max {ordered[-1]:.2f} s" if ordered else "none"
    )


def fill(path: str, count: int, **columns: object) -> None:
    """Rows put straight into the jobs table, with ids as enqueueing makes them."""
    db = sqlite3.connect(path, isolation_level=None)
    now = int(time.time() * 1e6)
    row: dict[str, object] = {
        "line": "default/x", "queue": "default", "task": "x", "priority": 0, "rank": now, "state": "ready",
        "run_at": now, "args": '{"seconds":0}', "enqueued_at": now,
    } | columns  # fmt: skip
    names = ", ".join(row)
    db.execute("BEGIN IMMEDIATE")
    sql = f"INSERT INTO jobs (id, {names}) VALUES (?, {', '.join('?' * len(row))})"
    db.executemany(sql, ((str(uuid7()), *row.values()) for _ in range(count)))
    db.execute("COMMIT")
    db.close()


def memory(worker: subprocess.Popen[bytes]) -> float:
    """MB of proportional memory of a worker with its runners."""
    tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    return float(sum(one.memory_full_info().pss for one in tree)) / 1e6


def starts(task: object, count: int) -> list[float]:
    """Milliseconds to start, sorted, of single jobs."""
    waits = []
    for _ in range(count):
        job = task.enqueue(time.time())  # type: ignore[attr-defined]
        waits.append(job.result(timeout=60) * 1000)
        time.sleep(0.02)
    return sorted(waits)


def backlog(trial: Trial, seconds: float) -> bool:
    """A million jobs due tomorrow; a million of an unknown task at the head; a million due in one second."""
    from benchmarks.trial_tasks import app, stamp

    stamp.enqueue(0)
    worker = trial.start(2, 8)
    starts(stamp, 20)
    empty, before = starts(stamp, 100), memory(worker)
    tomorrow = int((time.time() + 86_400) * 1e6)
    fill(trial.path, 1_000_000, state="scheduled", run_at=tomorrow, rank=tomorrow)
    time.sleep(3)
    delayed, grown = starts(stamp, 100), memory(worker) - before
    fill(trial.path, 1_000_000, task="unknown.task", line="default/unknown.task", priority=100)
    time.sleep(3)
    foreign = starts(stamp, 100)
    print(f"start of an immediate job, empty:                p50 {empty[50]:.1f} ms, p99 {empty[98]:.1f} ms")
    print(
        f"beside 1,000,000 due tomorrow:                   p50 {delayed[50]:.1f} ms, p99 {delayed[98]:.1f} ms; "
        f"worker grew {grown:.1f} MB"
    )
    print(f"behind 1,000,000 of an unknown task:             p50 {foreign[50]:.1f} ms, p99 {foreign[98]:.1f} ms")
    soon = int((time.time() + 25) * 1e6)
    line = f"default/{stamp.name}"
    fill(trial.path, 1_000_000, state="scheduled", run_at=soon, rank=soon, task=stamp.name, line=line,
         args='{"sent":0}')  # fmt: skip
    time.sleep(max(0.0, soon / 1e6 - time.time()))
    waits = []
    while time.time() < soon / 1e6 + seconds:
        began = time.time()
        stamp.using(priority=50).enqueue(began).result(timeout=60)
        waits.append((time.time() - began) * 1000)
    worker.send_signal(signal.SIGTERM)
    worker.wait()
    waits.sort()
    done = sqlite3.connect(trial.path).execute("SELECT count(*) FROM jobs WHERE state = 'succeeded'").fetchone()[0]
    print(
        f"while 1,000,000 due in one second drain ({done:,} done in {seconds:g} s): urgent jobs there and back "
        f"p50 {waits[len(waits) // 2]:.1f} ms, p99 {waits[int(len(waits) * 0.99)]:.1f} ms, n={len(waits)}"
    )
    app.close()
    return grown < 20 and delayed[98] < 100


def enqueue_for(seconds: float, failures: "multiprocessing.Queue[str]", count: "multiprocessing.Queue[int]") -> None:
    """Enqueue one by one until the time is over."""
    from benchmarks.trial_tasks import work

    end, done = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            work.enqueue(0.0)
            done += 1
        except Exception as error:
            failures.put(repr(error))
    count.put(done)


def locked(trial: Trial, seconds: float) -> bool:
    """16 processes enqueue, 4 workers run, and a foreign program holds the write lock for 2 s again and again."""
    from benchmarks.trial_tasks import app, work

    work.enqueue(0.0)
    workers = [trial.start(1, 8) for _ in range(4)]
    spawn = multiprocessing.get_context("spawn")
    failures: multiprocessing.Queue[str] = spawn.Queue()
    counts: multiprocessing.Queue[int] = spawn.Queue()
    producers = [spawn.Process(target=enqueue_for, args=(seconds, failures, counts)) for _ in range(16)]
    for one in producers:
        one.start()
    foreign = sqlite3.connect(trial.path, isolation_level=None, timeout=60)
    holds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        foreign.execute("BEGIN IMMEDIATE")
        time.sleep(2)
        foreign.execute("ROLLBACK")
        holds += 1
        time.sleep(random.uniform(0.2, 4))
    enqueued = sum(counts.get() for _ in producers) + 1
    for one in producers:
        one.join()
    until = time.monotonic() + 300
    while app.jobs.count(state="succeeded") < enqueued and time.monotonic() < until:
        time.sleep(0.5)
    done = app.jobs.count(state="succeeded")
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    complaints = trial.log.read_text().count("locked")
    seen = []
    while not failures.empty():
        seen.append(failures.get())
    print(
        f"{seconds:g} s, {holds} times 2 s of foreign lock: {enqueued:,} enqueued, {done:,} succeeded, errors at "
        f"producers {len(seen)} {Counter(seen).most_common(2)}, 'locked' in the workers' log {complaints}"
    )
    return enqueued == done and not seen and not complaints


def main() -> None:
    """Run one trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=["kill", "backlog", "locked"])
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = globals()[options.trial](Trial(folder), options.seconds)
        print("kept" if good else "BROKEN")
        sys.exit(not good)


if __name__ == "__main__":
    main()
