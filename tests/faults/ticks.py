"""Schedules of one second while workers are killed and clocks differ: python -m tests.faults.ticks --store S.

Each host has a clock that is up to 30 s off; on SQLite, where all share one, that is set forth and back. In the end
each tick must have exactly one job. Prints one line of figures; the exit code is 1 if a tick has none, or two.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.faults.field import ROOT, Tree, send
from tests.faults.grounds import GROUNDS, KINDS, FakedTime, Ground
from tests.faults.guard import guarded
from windlass import App, every

OFF = 30
"""Seconds that a clock is off, at most."""

FROZEN = 30.0
"""Seconds that a worker stands still."""

SETTLE = 15.0
"""Seconds that what is left to catch up gets in the end."""


class Hosts:
    """Workers, each on a host with a clock of its own."""

    def __init__(
        self,
        ground: Ground,
        folder: Path,
        count: int,
        dice: random.Random,
        app: str = "tests.faults.tick_app:app",
        off: int = OFF,
    ) -> None:
        self.dice, self._off = dice, off
        self.alone = ground.kind == "sqlite"
        self.actions: Counter[str] = Counter()
        self.clocks: list[FakedTime] = []
        self.trees: list[Tree] = []
        self._frozen: set[Tree] = set()
        self._thaws: list[threading.Timer] = []
        for number in range(count):
            place = folder / f"host-{number}"
            place.mkdir()
            if not (self.alone and self.clocks):
                self.clocks.append(FakedTime(place))
                self.clocks[-1].set(0 if self.alone else dice.randint(-off, off))
            environment = os.environ | self.clocks[-1].environment
            environment |= {"WINDLASS_URL": ground.url, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{ROOT}/tests/faults/shim"}
            command = [sys.executable, "-m", "windlass", "worker", app, "-p", "1", "-c", "20"]
            self.trees.append(Tree(command, environment, folder / "worker.log"))

    def disturb(self) -> None:
        """One thing that happens to one of them."""
        moving = [tree for tree in self.trees if tree not in self._frozen]
        kinds = ["kill", "supervisor", "freeze"] + (["clock"] if self.alone and self._off else [])
        kind = self.dice.choice(kinds)
        tree = self.dice.choice(moving) if moving else None
        if kind == "clock":
            self.clocks[0].set(self.dice.choice((-OFF, 0, OFF)))
        elif tree is None or (kind == "freeze" and len(moving) < 2):
            return
        elif kind == "freeze":
            self._freeze(tree)
        else:
            for pid in tree.pids() if kind == "kill" else [tree.pid]:
                send(pid, signal.SIGKILL)
            tree.process.wait()
            tree.start()
        self.actions[kind] += 1

    def _freeze(self, tree: Tree) -> None:
        pids = tree.pids()
        self._frozen.add(tree)
        for pid in pids:
            send(pid, signal.SIGSTOP)

        def thaw() -> None:
            for pid in pids:
                send(pid, signal.SIGCONT)
            self._frozen.discard(tree)

        self._thaws.append(threading.Timer(FROZEN, thaw))
        self._thaws[-1].start()

    def calm(self) -> None:
        """All run again, and go by one clock."""
        for one in self._thaws:
            one.join()
        if self.alone:
            self.clocks[0].set(0)
        for tree in self.trees:
            if not tree.alive:
                tree.start()

    def close(self) -> None:
        """Stop them."""
        for tree in self.trees:
            tree.end()


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
    jobs, total, twice, missed = made_jobs(app), 0, 0, 0
    late: list[float] = []
    for one in app.schedules.list():
        ticks = Counter(tick for tick, _ in jobs[one.name])
        total += len(ticks)
        twice += sum(count - 1 for count in ticks.values())
        first, last = min(ticks), one.last_tick.timestamp()
        missed += round(last - first) + 1 - len(ticks)
        late += [seconds for _, seconds in jobs[one.name]]
    late.sort()
    return {
        "ticks": total,
        "twice": twice,
        "missed": missed,
        "late_p50": late[len(late) // 2],
        "late_p99": late[int(len(late) * 0.99)],
        "late_max": late[-1],
    }


def soak(store: str, seconds: float, schedules: int, workers: int, seed: int) -> dict[str, Any]:
    """One run; its figures."""
    folder = Path(tempfile.mkdtemp(prefix="windlass-ticks-"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.enter_context(guarded(folder))
        ground = stack.enter_context(closing(GROUNDS[store](folder)))
        app = App(ground.url)
        stack.callback(app.close)
        task = app.task(name="tick")(lambda: None)
        for number in range(schedules):
            app.schedules.create(f"s{number}", every(seconds=1), task, catch_up="all", most=1_000)
        hosts = stack.enter_context(closing(Hosts(ground, folder, workers, random.Random(seed))))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(hosts.dice.uniform(1, 5))
            hosts.disturb()
        hosts.calm()
        time.sleep(SETTLE + (OFF if hosts.alone else 0))
        for number in range(schedules):
            app.schedules.pause(f"s{number}")
        found = {**figures(app), **hosts.actions}
    if not (found["twice"] or found["missed"]):
        shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=KINDS, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found = soak(given.store, given.seconds, given.schedules, given.workers, given.seed)
    shown = ", ".join(f"{name} {value:,.2f}".removesuffix(".00") for name, value in found.items())
    print(f"{given.store:<10} seed {given.seed}: {shown}", flush=True)
    sys.exit(bool(found["twice"] or found["missed"]))


if __name__ == "__main__":
    main()
