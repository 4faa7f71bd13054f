"""Events with five subscribers while workers and the publisher are killed: python -m tests.faults.publishes --store S.

In the end each event must have made exactly one job for each subscriber. Prints one line of figures; the exit code is 1
if one has none, or two.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.faults.field import ROOT, send
from tests.faults.hosts import Hosts, command, trial
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


def soak(store: str, given: argparse.Namespace) -> Mapping[str, float]:
    """One run; its figures."""
    kills, dice, most = 0, random.Random(given.seed), given.events
    with trial(store) as (stack, ground, folder, app):
        app.jobs.count(state="ready")  # the schema is there before two workers want to make it
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
        return {
            "events": most,
            "jobs": found.total(),
            "twice": sum(count - 1 for count in found.values()),
            "missed": len(wanted - found.keys()),
            "unknown": len(found.keys() - wanted),
            "publisher": kills,
            **hosts.actions,
        }


if __name__ == "__main__":
    command(__doc__, soak, ("twice", "missed", "unknown"), events=10_000)
