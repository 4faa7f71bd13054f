"""One system on one store, measured run by run."""

import json
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.drive import WARM_UP
from benchmarks.marks import Marks
from benchmarks.measure import ROOT, Drained, drain, running, waits
from benchmarks.rivals.stores import Store
from benchmarks.rivals.systems import WINDLASS, System

SINGLES = 2000
"""Jobs that are enqueued one by one, at most, where there is a call for many."""

LEAST = 200
"""Jobs that a drain has at least."""

PACED = 100
"""Jobs of one run whose start is timed."""


@dataclass
class Figures:
    """What was measured of one system: jobs per second of each run, and milliseconds to start of all its paced jobs."""

    single: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)
    drained: list[Drained] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


class Bench:
    """One system on one store; its output goes to a file in `folder`."""

    def __init__(self, system: System, programs: Path, store: Store, folder: str) -> None:
        self.system = system
        self.figures = Figures()
        self._programs, self._store = programs, store
        self._marks = Marks(folder)
        self._log = Path(folder) / "log"

    def run(self, jobs: int) -> None:
        """Measure once, with the system's share of `jobs`. Raises `RuntimeError`, with its last words, if it fails."""
        self._marks.clear()
        self._log.write_bytes(b"")
        self._store.empty()
        try:
            self._measure(max(LEAST, int(jobs * self.system.share)))
        except (TimeoutError, subprocess.CalledProcessError) as error:
            words = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
            raise RuntimeError(f"{error}; its last words: {words[-1] if words else 'none'}") from error

    def _measure(self, jobs: int) -> None:
        singles = min(SINGLES, jobs // 2) if self.system.bulk else jobs
        many = jobs - singles
        self._ask("prepare", 0, 0)
        single = self._ask("one", 0, singles)
        bulk = self._ask("many", singles, many) if many else None
        self._store.settle()
        commands = [self._words(self.system.worker, number) for number in range(self.system.processes)]
        with self._log.open("ab") as log, running(commands, self._env(), log) as pids:
            drained = drain(self._marks, range(jobs), pids, self._store.pids)
            time.sleep(2)
            sent = self._ask("paced", jobs, WARM_UP + PACED)
            late = waits(self._marks, jobs + WARM_UP, sent[WARM_UP:])
        self.figures.single.append(single)
        self.figures.bulk += [bulk] if bulk else []
        self.figures.drained.append(drained)
        self.figures.waits += late

    def _ask(self, verb: str, first: int, count: int) -> Any:
        """What the system's client answers to a line of `benchmarks.drive`."""
        command = [*self._words(self.system.client), verb, str(first), str(count)]
        with self._log.open("ab") as log:
            told = subprocess.run(command, cwd=ROOT, env=self._env(), stdout=subprocess.PIPE, stderr=log, check=True)
        return json.loads(told.stdout) if told.stdout.strip() else None

    def _words(self, command: str, number: int = 0) -> list[str]:
        return shlex.split(command.format(bin=self._programs, store=self._store.url, number=number))

    def _env(self) -> dict[str, str]:
        ours = os.environ.get("PYTHONPATH", "") if self.system is WINDLASS else ""
        return {
            **os.environ,
            **self.system.env,
            "STORE": self._store.url,
            "WINDLASS_URL": self._store.windlass(),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), ours))),
            "NODE_PATH": str(self._programs.parent / "node_modules"),
        }
