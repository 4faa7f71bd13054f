"""How fast Windlass is on a store, beside what the store itself can do in the same minute on the same machine.

    python -m benchmarks.speed [--runs 5] [--jobs 60000] [--url sqlite:///…]

The URL, or WINDLASS_URL, may name any store; a server has to run on this machine. Prints the median of the runs and
their spread, and the CPU time that a drained job took, which is the steadier figure. The machine should be quiet: the
spread tells whether it was.
"""

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
from uuid_utils import uuid7

from benchmarks import drive, measure
from benchmarks.drive import RATE, at_once, in_bulk, paced
from benchmarks.marks import Marks
from benchmarks.measure import running, servers_at, spent, tree, wait_for, waits

BULK = 10_000


def raw_insert(path: str, count: int) -> float:
    """Rows per second that plain sqlite3 inserts in batches, synced like ours: id, queue, payload and one index."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE raw (id TEXT PRIMARY KEY, queue TEXT, priority INT, rank INT, state TEXT, args TEXT)")
    db.execute("CREATE INDEX raw_ready ON raw (queue, priority DESC, rank, id) WHERE state = 'ready'")
    rows = [(str(uuid7()), "default", 0, 1, "ready", '{"n":1}') for _ in range(count)]
    began = time.perf_counter()
    for start in range(0, count, BULK):
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?, ?)", rows[start : start + BULK])
        db.execute("COMMIT")
    rate = count / (time.perf_counter() - began)
    db.close()
    return rate


def raw_drain(path: str) -> float:
    """Rows per second that plain sqlite3 claims and finishes, 200 at a time in one commit."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    began, done, ids = time.perf_counter(), 0, "[]"
    while True:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE raw SET state = 'done' WHERE id IN (SELECT value FROM json_each(?))", (ids,))
        ids = db.execute(
            "SELECT json_group_array(id) FROM (SELECT id FROM raw WHERE state = 'ready' AND queue = 'default' "
            "ORDER BY priority DESC, rank, id LIMIT 200)"
        ).fetchone()[0]
        db.execute("UPDATE raw SET state = 'running' WHERE id IN (SELECT value FROM json_each(?))", (ids,))
        db.execute("COMMIT")
        if ids == "[]":
            break
        done += len(json.loads(ids))
    rate = done / (time.perf_counter() - began)
    db.close()
    return rate


def raw_postgres(url: str, count: int) -> tuple[float, float]:
    """Rows per second that one connection inserts by arrays of 1,000, and claims and deletes 200 at a time."""
    with psycopg.connect(url.split("?")[0], autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS public.windlass_raw")
        db.execute(
            "CREATE TABLE public.windlass_raw (id text PRIMARY KEY, queue text, rank bigint, state text, args text)"
        )
        db.execute("CREATE INDEX ON public.windlass_raw (queue, rank, id) WHERE state = 'ready'")
        insert = "INSERT INTO public.windlass_raw SELECT unnest(%s::text[]), 'default', 1, 'ready', '[[1],{}]'"
        ids = [[str(uuid7()) for _ in range(1000)] for _ in range(count // 1000)]
        began = time.perf_counter()
        for some in ids:
            db.execute(insert, (some,))
        inserted = time.perf_counter()
        claimed: list[str] = ["none"]
        while claimed:
            with db.transaction():
                db.execute("DELETE FROM public.windlass_raw WHERE id = ANY (%s)", (claimed,))
                rows = db.execute(
                    "UPDATE public.windlass_raw SET state = 'running' WHERE id IN (SELECT id FROM public.windlass_raw "
                    "WHERE state = 'ready' AND queue = 'default' ORDER BY rank, id LIMIT 200 FOR UPDATE SKIP LOCKED) "
                    "RETURNING id, args"
                ).fetchall()
                claimed = [row[0] for row in rows]
        ended = time.perf_counter()
        db.execute("DROP TABLE public.windlass_raw")
    return count / (inserted - began), count / (ended - inserted)


def commits(url: str, count: int) -> list[float]:
    """Milliseconds of the commit of one row each, 20 per second, sorted: no job can start before one."""
    took = []
    with psycopg.connect(url.split("?")[0], autocommit=True) as db:
        db.execute("CREATE TABLE IF NOT EXISTS public.windlass_raw (n integer)")
        for n in range(count):
            began = time.perf_counter()
            db.execute("INSERT INTO public.windlass_raw VALUES (%s)", (n,))
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(1 / RATE)
        db.execute("DROP TABLE public.windlass_raw")
    return sorted(took)


def worker(processes: int, concurrency: int) -> AbstractContextManager[list[int]]:
    """A worker on the benchmark's app."""
    command = [sys.executable, "-m", "windlass", "worker", "benchmarks.tasks:app", "--quiet"]
    return running([[*command, "-p", str(processes), "-c", str(concurrency)]])


def fresh(count: int) -> range:
    """Numbers for jobs that no job had."""
    numbers.append(range(numbers[-1].stop, numbers[-1].stop + count))
    return numbers[-1]


numbers = [range(0)]
"""All that were given out."""


def bulk(name: str, jobs: range) -> float:
    """Jobs enqueued per second in calls of BULK, arguments bound and encoded."""
    from benchmarks import tasks

    task = getattr(tasks, name)

    def put(some: list[int]) -> None:
        tasks.app.enqueue_many([task.bind(n) for n in some])

    return at_once(in_bulk(put, jobs, BULK))


def one_by_one(count: int) -> float:
    """Jobs enqueued per second, each in a commit of its own."""
    from benchmarks import tasks

    return at_once(drive.one_by_one(tasks.on_loop.enqueue, fresh(count)))


costs: list[tuple[float, float]] = []
"""Microseconds of CPU time that a job took in each drain: of the worker, and of the server."""


def drain(marks: Marks, name: str, count: int, processes: int, concurrency: int) -> float:
    """Jobs per second of `benchmarks.measure`."""
    from benchmarks import tasks

    jobs = fresh(count)
    bulk(name, jobs)
    with worker(processes, concurrency) as pids:
        found = measure.drain(marks, jobs, pids, lambda: servers_at(os.environ["WINDLASS_URL"]))
        while tasks.app.jobs.count(state="running"):
            time.sleep(0.1)
    costs.append((found.worker, found.server))
    return found.rate


def latency(marks: Marks, count: int) -> list[float]:
    """Milliseconds from before the enqueue to the start in another process, at 20 jobs per second, sorted."""
    from benchmarks import tasks

    first, *_ = fresh(1)
    with worker(2, 10):
        tasks.on_loop.enqueue(first)
        wait_for(marks, first, 1, 1)
        time.sleep(2)
        jobs = fresh(count)
        return waits(marks, jobs.start, at_once(paced(tasks.on_loop.enqueue, jobs)))


def show_waits(what: str, waits: list[float]) -> None:
    """Print a line of 400 waits."""
    print(f"{what:<44} p50 {waits[200]:.2f} ms   p99 {waits[395]:.2f} ms   max {waits[-1]:.2f}")


def idle() -> tuple[float, float]:
    """Per cent of a core, and MB of proportional memory, of an idle worker with two runners."""
    with worker(2, 10) as pids:
        time.sleep(5)
        processes = tree(pids)
        before = spent(processes)
        time.sleep(20)
        return (spent(processes) - before) / 20 * 100, sum(one.memory_full_info().pss for one in processes) / 1e6


def median(what: str, unit: str, measure: Callable[[], float], runs: int) -> float:
    """Measure `runs` times, print the median and the spread."""
    figures = sorted(measure() for _ in range(runs))
    middle = statistics.median(figures)
    print(f"{what:<44} {middle:>10,.0f} {unit}   ({figures[0]:,.0f} … {figures[-1]:,.0f}){cost()}", flush=True)
    return middle


def cost() -> str:
    """The least CPU time that a job took in the drains since this was last asked."""
    if not costs:
        return ""
    of_worker, of_server = (min(one) for one in zip(*costs, strict=True))
    costs.clear()
    return f"   CPU per job: worker {of_worker:.0f} µs, server {of_server:.0f} µs"


def main() -> None:
    """Measure everything once, in a folder of its own unless a URL is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=60_000)
    parser.add_argument("--url")
    parser.add_argument("--only", default="", help="part of a line's name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WINDLASS_URL"] = options.url or os.environ.get("WINDLASS_URL", f"sqlite:///{folder}/windlass.db")
        raw, marks = f"{folder}/raw.db", Marks(folder)
        n = options.jobs

        def raw_both() -> float:
            Path(raw).unlink(missing_ok=True)
            return raw_insert(raw, n)

        url = os.environ["WINDLASS_URL"]
        raws: dict[str, list[tuple[str, str, Callable[[], float]]]] = {
            "sqlite": [
                ("raw sqlite3: insert in bulk", "rows/s", raw_both),
                ("raw sqlite3: claim and finish by 200", "rows/s", lambda: (raw_both(), raw_drain(raw))[1]),
            ],
            "postgresql": [
                ("raw psycopg: insert by 1,000", "rows/s", lambda: raw_postgres(url, n)[0]),
                ("raw psycopg: claim and delete by 200", "rows/s", lambda: raw_postgres(url, n)[1]),
            ],
        }
        lines: list[tuple[str, str, Callable[[], float]]] = [
            *raws.get(url.partition(":")[0], []),
            ("enqueue in bulk", "jobs/s", lambda: bulk("on_loop", fresh(n))),
            ("enqueue one by one", "jobs/s", lambda: one_by_one(3000)),
            ("drain, event loop, -p 1 -c 200", "jobs/s", lambda: drain(marks, "on_loop", n, 1, 200)),
            ("drain, event loop, -p 2 -c 200", "jobs/s", lambda: drain(marks, "on_loop", n, 2, 200)),
            ("drain, threads, -p 2 -c 50", "jobs/s", lambda: drain(marks, "in_thread", n, 2, 50)),
            ("drain, processes, -p 2 -c 50", "jobs/s", lambda: drain(marks, "in_process", BULK, 2, 50)),
        ]
        for what, unit, measure in lines:
            if options.only in what:
                median(what, unit, measure, options.runs)
        if options.only in "latency":
            with ThreadPoolExecutor(1) as beside:
                raw_waits = beside.submit(commits, url, 400) if url.startswith("postgres") else None
                show_waits("start latency at 20/s", latency(marks, 400))
                if raw_waits:
                    show_waits("raw psycopg: commit of a row, beside it", raw_waits.result())
        if options.only in "idle":
            percent, memory = idle()
            print(f"{'idle, supervisor and two runners':<44} {percent:.2f} % of a core   {memory:.1f} MB PSS")


if __name__ == "__main__":
    main()
