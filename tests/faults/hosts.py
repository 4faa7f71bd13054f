"""What soaks of schedules and events share: workers on hosts with clocks of their own, and their command line."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.faults.field import ROOT, Tree, send
from tests.faults.grounds import GROUNDS, KINDS, FakedTime, Ground
from tests.faults.guard import guarded
from windlass import App

OFF = 30
"""Seconds that a clock is off, at most."""

FROZEN = 30.0
"""Seconds that a worker stands still."""


class Hosts:
    """Workers, each on a host with a clock of its own."""

    def __init__(
        self,
        ground: Ground,
        folder: Path,
        count: int,
        dice: random.Random,
        app: str,
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


@contextmanager
def trial(store: str) -> Iterator[tuple[ExitStack, Ground, Path, App]]:
    """A store of that kind, a folder, an app on it, and what is closed in the end. The folder stays after an error."""
    folder = Path(tempfile.mkdtemp(prefix="windlass-soak-"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.enter_context(guarded(folder))
        ground = stack.enter_context(closing(GROUNDS[store](folder)))
        app = App(ground.url)
        stack.callback(app.close)
        yield stack, ground, folder, app
    shutil.rmtree(folder, ignore_errors=True)


Soak = Callable[[str, argparse.Namespace], Mapping[str, float]]


def command(doc: str | None, soak: Soak, zero: tuple[str, ...], **numbers: int) -> None:
    """Run a soak as asked for on the command line: `numbers` are options with their defaults. Prints its figures; the
    exit code is 1 if one of `zero` is not 0."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=KINDS, required=True)
    for name, default in {**numbers, "seed": time.time_ns() % 1_000_000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found = soak(given.store, given)
    shown = ", ".join(f"{name} {value:,.2f}".removesuffix(".00") for name, value in found.items())
    print(f"{given.store:<10} seed {given.seed}: {shown}", flush=True)
    sys.exit(any(found[name] for name in zero))
