"""Events with five subscribers while workers and the publisher are killed: python -m tests.faults.publishes --store S.

In the end each event must have made exactly one job for each subscriber. Prints one line of figures; the exit code is 1
if one has none, or two.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.faults.field import ROOT, send
from tests.faults.grounds import GROUNDS, KINDS
from tests.faults.guard import guarded
from tests.faults.ticks import Hosts
from windlass import App

EVENTS = "tests.faults.event_app"
SUBSCRIBERS = 5


class Publisher:
    """The process that publishes, started again when it was killed."""

    def __init__(self, url: str, folder: Path, most: int) -> None:
        self.file, self._most = folder / "published", most
        self._environment = os.environ | {"WINDLASS_URL": url, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        self.start()

    def start(self) -> None:
        """Go on where the last one stopped."""
        command = [sys.executable, "-m", EVENTS, str(self.file), str(self._most)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self._environment)

    def kill(self) -> None:
        """In the midst of whatever it does."""
        send(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def done(self) -> bool:
        """Whether all is published."""
        return self.process.poll() == 0

    def close(self) -> None:
        """End it."""
        self.kill()


def made(app: App) -> Counter[tuple[str, str]]:
    """How many jobs there are by task and event."""
    found: Counter[tuple[str, str]] = Counter()
    for number in range(SUBSCRIBERS):
        after: str | None = None
        while True:
            page = app.jobs.find(task=f"hear{number}", limit=1_000, after=after)
            found.update((job.task, job.meta["event"]) for job in page)
            after = page.after
            if after is None:
                break
    return found


def soak(store: str, most: int, seed: int) -> dict[str, Any]:
    """One run; its figures."""
    folder, kills, dice = Path(tempfile.mkdtemp(prefix="windlass-publishes-")), 0, random.Random(seed)
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.enter_context(guarded(folder))
        ground = stack.enter_context(closing(GROUNDS[store](folder)))
        app = App(ground.url)
        stack.callback(app.close)
        app.jobs.count(state="ready")
        hosts = stack.enter_context(closing(Hosts(ground, folder, 2, dice, f"{EVENTS}:app", off=0)))
        while not app.events.list():
            time.sleep(0.2)
        publisher = stack.enter_context(closing(Publisher(ground.url, folder, most)))
        while not publisher.done:
            time.sleep(dice.uniform(0.5, 2))
            if publisher.done:
                break
            if dice.random() < 0.5:
                publisher.kill()
                publisher.start()
                kills += 1
            else:
                hosts.disturb()
        hosts.calm()
        found = made(app)
    wanted = {(f"hear{number}", f"event-{event}") for number in range(SUBSCRIBERS) for event in range(most)}
    figures = {
        "events": most,
        "jobs": found.total(),
        "twice": sum(count - 1 for count in found.values()),
        "missed": len(wanted - found.keys()),
        "unknown": len(found.keys() - wanted),
        "publisher": kills,
        **hosts.actions,
    }
    if not (figures["twice"] or figures["missed"] or figures["unknown"]):
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=KINDS, required=True)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    figures = soak(given.store, given.events, given.seed)
    print(f"{given.store:<10} seed {given.seed}: {', '.join(f'{name} {value:,}' for name, value in figures.items())}")
    sys.exit(bool(figures["twice"] or figures["missed"] or figures["unknown"]))


if __name__ == "__main__":
    main()
