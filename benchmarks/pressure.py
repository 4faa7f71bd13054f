"""Back-pressure under load: python -m benchmarks.pressure [--seconds 600] [block reject drop_oldest shed_lowest].

A producer ten times faster than its consumers, for each answer of a queue of 1,000 that is full. In full it takes 600
seconds for each; a tenth of a minute shows the shape. On the store that WINDLASS_URL names, which must be empty, else
on a SQLite file of its own. Each line tells what was measured, and the bar it met or missed.
"""

import argparse
import os
import random
import tempfile
import time

import psutil

from benchmarks.limits import lines, until, worker

MOST = 1_000
"""Jobs that a queue takes."""

BATCH = 20
"""Jobs in one call; one call in each 10 ms is ten times what four slots of 20 ms do."""

ROOM = MOST + MOST // 10
"""How many may stand in it at most: the bound is soft by what is stored between two looks."""

GROWTH = 64
"""Megabytes by which the producer may grow."""


def push(queue: str, seconds: float) -> None:
    """Fill one queue, drain it, and tell what became of the jobs."""
    from benchmarks.limit_tasks import app, pushed
    from windlass import QueueFull

    accepted, refused, deepest, n = 0, 0, 0, 0
    before = len(lines("pushed"))
    dropped = app.jobs.count(task="pushed", state="cancelled")
    with worker("-p", "1", "-c", "4"):
        us = psutil.Process()
        start = us.memory_info().rss
        began = looked = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            calls = [
                pushed.using(queue=queue, priority=random.randint(-9, 9)).bind(n + number) for number in range(BATCH)
            ]
            n += BATCH
            try:
                accepted += len(app.enqueue_many(calls))
            except QueueFull as full:
                accepted += len(full.stored)
                refused += BATCH - len(full.stored)
            if now > looked + 0.5:
                looked = now
                deepest = max(deepest, app.jobs.count(queue=queue, state="ready"))
            time.sleep(max(0.0, now + 0.01 - time.monotonic()))
        grown = (us.memory_info().rss - start) / 1e6
        until(
            lambda: app.jobs.count(queue=queue, state="ready") + app.jobs.count(queue=queue, state="running") == 0, 120
        )
    ran = [int(number) for (number,) in lines("pushed")[before:]]
    dropped = app.jobs.count(task="pushed", state="cancelled") - dropped
    lost = accepted - len(set(ran)) - dropped
    print(f"{queue}: {accepted:,} accepted, {refused:,} refused, {len(ran):,} ran, {dropped:,} dropped")
    tell(queue, "jobs in the queue at most", deepest, ROOM)
    tell(queue, "accepted jobs lost", lost, 0)
    tell(queue, "megabytes the producer grew by", round(grown, 1), GROWTH)


def tell(queue: str, what: str, figure: float, most: float) -> None:
    """One line of one bar."""
    print(f"{queue}: {what}: {figure:,} (asked: {most:,}): {'met' if figure <= most else 'MISSED'}", flush=True)


def main() -> None:
    from windlass.description import DROPS

    answers = ["block", "reject", *sorted(DROPS)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queues", nargs="*", metavar="ANSWER", help="all of them when none is named")
    parser.add_argument("--seconds", type=float, default=600, help="how long it pushes into each")
    given = parser.parse_args()
    if unknown := set(given.queues) - set(answers):
        parser.error(f"expected some of {', '.join(answers)}; {', '.join(unknown)} came")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("WINDLASS_URL", f"sqlite:///{folder}/windlass.db")
        os.environ["EFFECTS"] = f"{folder}/effects"
        for queue in given.queues or answers:
            push(queue, given.seconds)


if __name__ == "__main__":
    main()
