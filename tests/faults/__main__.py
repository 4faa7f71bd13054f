"""Faults, with real workers on real servers: python -m tests.faults [--store KIND] --fault NAME | --all [--rounds N].

One line per fault: figures, bars, met or not; the exit code is 1 if a bar was missed. Rounds stand in the folder given
by --folder, those of each commit in a file of their own: a call that was interrupted and is repeated goes on until
there are as many as asked for.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.field import ROOT
from tests.faults.grounds import KINDS, CannotInject
from tests.faults.rounds import FAULTS, SOAKS, Fault, run, verdict
from tests.faults.verdict import Figures, merged

CANNOT = Path(__file__).parent / "cannot.txt"


def cannot() -> dict[tuple[str, str], str]:
    """Why a fault cannot be injected, by store and fault."""
    lines = [line for line in CANNOT.read_text().splitlines() if line and not line.startswith("#")]
    split = [line.partition(": ") for line in lines]
    return {(name.split()[0], name.split()[1]): why for name, _, why in split}


def commit() -> str:
    """What is tried: the commit that is checked out, and whether something was changed since."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


class State:
    """What was done so far."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{commit()}.json"
        self._done: dict[str, list[Figures]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def of(self, store: str, fault: str) -> list[Figures]:
        """The sessions of a fault."""
        return self._done.get(f"{store} {fault}", [])

    def add(self, store: str, fault: str, figures: Figures) -> None:
        """One more; it is on disk when this returns."""
        self._done.setdefault(f"{store} {fault}", []).append(figures)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._done, indent=1))
        fresh.replace(self._file)


def rounds_of(sessions: list[Figures]) -> int:
    """How many rounds there were."""
    return int(sum(one["rounds"] for one in sessions))


def go(store: str, fault: Fault, options: argparse.Namespace, state: State) -> bool:
    """All rounds of one fault; whether its bars were met."""
    if why := cannot().get((store, fault.name)):
        print(f"{store:<10} {fault.name:<16} cannot be injected: {why}", flush=True)
        return True
    until = time.monotonic() + options.seconds
    while (left := options.rounds - rounds_of(state.of(store, fault.name))) > 0 and time.monotonic() < until:
        try:
            report = run(
                store, [fault], min(fault.at_a_time, left), until=until, seed=time.time_ns(), backlog=options.backlog
            )
        except CannotInject as error:
            print(f"{store:<10} {fault.name:<16} FAILED: this machine cannot inject it: {error}", flush=True)
            return False
        for name, figures in report.figures.items():
            state.add(store, name, figures)
        if report.stories:
            print("\n\n".join(report.stories), flush=True)
    met, line = verdict(store, fault.name, merged(state.of(store, fault.name)))
    print(line, flush=True)
    return met


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=KINDS, action="append", help="by default all")
    parser.add_argument("--fault", choices=sorted(FAULTS), action="append", default=[])
    parser.add_argument("--all", action="store_true", help=f"all but {', '.join(SOAKS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round of a fault after so many")
    parser.add_argument("--backlog", type=int, default=100_000, help="jobs that one round of the backlog puts")
    parser.add_argument("--folder", type=Path, default=Path("faults"), help="where the state stands")
    options = parser.parse_args()
    names = [name for name in FAULTS if name in options.fault or (options.all and name not in SOAKS)]
    if not names:
        parser.error("expected --fault NAME or --all")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through all that closes behind itself
    state = State(options.folder)
    stores = options.store or KINDS
    met = [
        go(store, FAULTS[name], options, state) for store in stores for name in names if store in FAULTS[name].stores
    ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
