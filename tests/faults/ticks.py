"""Schedules of one second while workers are killed and clocks differ: python -m tests.faults.ticks --store S.

Each host has a clock that is up to 30 s off; on SQLite, where all share one, that is set forth and back. In the end
each tick must have exactly one job. Prints one line of figures; the exit code is 1 if a tick has none, or two.
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing

from tests.faults.hosts import OFF, Hosts, command, trial
from windlass import App, every

SETTLE = 15.0
"""Seconds that what is left to catch up gets in the end."""


def made_jobs(app: App) -> dict[str, list[tuple[float, float]]]:
    """By schedule, the tick and the lateness of each job, in seconds."""
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    after: str | None = None
    while True:
        page = app.jobs.find(task="tick", limit=1_000, after=after)
        for job in page:
            assert job.tick
            found[job.schedule].append((job.tick.timestamp(), job.enqueued_at.timestamp() - job.tick.timestamp()))
        after = page.after
        if after is None:
            return found


def figures(app: App) -> dict[str, float]:
    """What became of every tick from each schedule's first to its last."""
    jobs, total, twice, missed, stuck = made_jobs(app), 0, 0, 0, 0
    late: list[float] = []
    for one in app.schedules.list():
        ticks = Counter(tick for tick, _ in jobs[one.name])
        total += len(ticks)
        twice += sum(count - 1 for count in ticks.values())
        first, last = min(ticks), one.last_tick.timestamp()
        missed += round(last - first) + 1 - len(ticks)
        stuck += (one.read_at - one.last_tick).total_seconds() > SETTLE
        late += [seconds for _, seconds in jobs[one.name]]
    late.sort()
    return {
        "ticks": total,
        "twice": twice,
        "missed": missed,
        "stuck": stuck,
        "late_p50": late[len(late) // 2],
        "late_p99": late[int(len(late) * 0.99)],
        "late_max": late[-1],
    }


def soak(store: str, given: argparse.Namespace) -> Mapping[str, float]:
    """One run; its figures. `stuck`: schedules that stopped firing before the end."""
    with trial(store) as (stack, ground, folder, app):
        task = app.task(name="tick")(lambda: None)
        for number in range(given.schedules):
            app.schedules.create(f"s{number}", every(seconds=1), task, catch_up="all", most=1_000)
        made = Hosts(ground, folder, given.workers, random.Random(given.seed), "tests.faults.tick_app:app")
        hosts = stack.enter_context(closing(made))
        end = time.monotonic() + given.seconds
        while time.monotonic() < end:
            time.sleep(hosts.dice.uniform(1, 5))
            hosts.disturb()
        hosts.calm()
        time.sleep(SETTLE + (OFF if hosts.alone else 0))
        for number in range(given.schedules):
            app.schedules.pause(f"s{number}")
        return {**figures(app), **hosts.actions}


if __name__ == "__main__":
    command(__doc__, soak, ("twice", "missed", "stuck"), seconds=600, schedules=100, workers=5)
