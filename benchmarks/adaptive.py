"""What `-c auto` finds, beside fixed concurrency: python -m benchmarks.adaptive [WORKLOAD …] [--rounds 2].

For each workload (see benchmarks/adaptive_tasks.py), a worker with one runner on SQLite has more jobs than it can do.
A setting's rate is that of SECONDS once it is warm; `auto` has WARM to find its limit in, and its rate from the first
job on is shown too. The settings take turns; of the rounds the best counts, as the machine may be busy in some.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass

from benchmarks.marks import Marks
from benchmarks.measure import running
from tests.servers import free_port

WORKLOADS = {"waits": (6, 2_500), "computes": (60, 100), "calls": (25, 250), "nothing": (10_000, 10_000)}
"""Jobs per second that no slot does, and no setting."""

SETTINGS = ("1", "4", "16", "64", "auto")
WARM, WARM_FIXED, SECONDS = 20.0, 3.0, 8.0
BATCH = 5_000
APP = "benchmarks.adaptive_tasks:app"


@dataclass(frozen=True, order=True)
class Rate:
    """Jobs per second when warm, and from the first job on; how many at a time in the end."""

    warm: float
    all: float
    limit: int


def measure(workload: str, setting: str, queue: str, marks: Marks) -> Rate:
    """One worker, for as long as it takes."""
    from benchmarks import adaptive_tasks

    warm = WARM if setting == "auto" else WARM_FIXED
    slot, most = WORKLOADS[workload]
    count = int((most if setting == "auto" else min(most, slot * int(setting))) * (warm + SECONDS + 1))
    task = getattr(adaptive_tasks, workload).using(queue=queue)
    for start in range(0, count, BATCH):
        adaptive_tasks.app.enqueue_many([task.bind(n) for n in range(start, min(count, start + BATCH))])
    marks.clear()
    health = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "windlass", "worker", APP, "-p", "1", "-c", setting, "-q", queue, "--quiet"]
    with running([[*command, "--health", health]]):
        while not marks.starts(0, count):
            time.sleep(0.02)
        began = time.time()
        time.sleep(warm + SECONDS)
        with urllib.request.urlopen(f"http://{health}/readyz") as answer:
            limit = json.load(answer)["slots"]
    ends = [end - began for end in marks.starts(0, count)]
    if len(ends) == count:
        raise RuntimeError(f"{workload} with -c {setting} had not enough jobs")
    return Rate(
        warm=sum(warm <= end < warm + SECONDS for end in ends) / SECONDS,
        all=sum(end < warm + SECONDS for end in ends) / (warm + SECONDS),
        limit=limit,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=[*WORKLOADS], help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WINDLASS_URL"] = f"sqlite:///{folder}/windlass.db"
        marks = Marks(folder)
        for workload in given.workloads:
            best: dict[str, Rate] = {}
            for number in range(given.rounds):
                for setting in SETTINGS:
                    rate = measure(workload, setting, f"{workload}-{setting}-{number}", marks)
                    best[setting] = max(rate, best.get(setting, rate))
            top = max(rate.warm for setting, rate in best.items() if setting != "auto")
            for setting, rate in best.items():
                print(f"{workload:8}  -c {setting:4}  {rate.warm:7,.0f}/s  {rate.warm / top:5.2f} of the best", end="")
                print(f", {rate.all / top:.2f} from the start, at {rate.limit}" if setting == "auto" else "")


if __name__ == "__main__":
    main()
