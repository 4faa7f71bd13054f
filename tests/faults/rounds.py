"""Rounds of faults on a store, and their figures."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.faults import clocks, deaths, deploys, disk, misdeeds, network, outages
from tests.faults.bars import bar_of
from tests.faults.field import ROOT, Field, Mix
from tests.faults.grounds import GROUNDS, KINDS, SERVERS, CannotInject, Ground
from tests.faults.guard import guarded
from tests.faults.verdict import Figures, judge, merged, times

SHIM = f"{ROOT / 'src'}:{ROOT}:{Path(__file__).parent / 'shim'}"
"""The path of workers whose time is faked."""

Round = Callable[[Field], Figures]
USUAL = Mix()

HALF = Mix(rate=15)
"""Fills four slots: one worker can carry it while the other is away, else the figures would tell of the backlog."""

ROLLING = Mix(rate=200, seconds=(0.01, 0.01), long=20.0, longs=0.2)
"""A worker lives for two rounds on average, and a job of 20 s needs four, so it is begun some ten times. With more of
these, all slots come to hold such jobs, and nothing else starts."""


@dataclass(frozen=True)
class Fault:
    """One fault: a round of it, what it needs of the store, and the workers and the load that it wants."""

    name: str
    round: Round
    stores: Sequence[str] = KINDS
    needs: str = ""
    trees: int = 2
    processes: int = 1
    slots: int = 8
    mix: Mix = USUAL
    calm: bool = True
    """Whether the next round waits until nothing is left of this one; otherwise only the last does."""
    at_a_time: int = 25
    """Rounds between two looks at the whole history, after which the state is written."""


SOAKS = ("kill", "zombie", "rolling", "poisons")
"""The faults that take long: only when asked for by name."""

FAULTS = {
    one.name: one
    for one in (
        Fault("kill-child", deaths.kill_child),
        Fault("kill-runner", deaths.kill_runner),
        Fault("kill-supervisor", deaths.kill_supervisor, mix=HALF),
        Fault("kill-tree", deaths.kill_tree, mix=HALF),
        Fault("freeze", deaths.freeze, mix=HALF),
        Fault("pause", deaths.pause),
        Fault("term", deaths.term, mix=Mix(long=5.0), slots=40),
        Fault("poison", misdeeds.die),
        Fault("memory", misdeeds.gorge),
        Fault("no-memory", misdeeds.starve),
        Fault("blocked-loop", misdeeds.block),
        Fault("deaf", misdeeds.shrug),
        Fault("forks", misdeeds.breed),
        Fault("server-restart", outages.restart, SERVERS),
        Fault("server-kill", outages.crash, SERVERS),
        Fault("server-down", outages.down, SERVERS),
        Fault("server-frozen", outages.hang, SERVERS),
        Fault("dropped", outages.drop, SERVERS),
        Fault("failover", outages.fail_over, SERVERS, "replica"),
        Fault("connections", outages.crowd, SERVERS, "few"),
        Fault("transaction", outages.hold),
        Fault("cut", network.cut, SERVERS, "proxy"),
        Fault("black-hole", network.hole, SERVERS, "proxy"),
        Fault("one-way", network.one_way, SERVERS, "proxy"),
        Fault("latency", network.latency, SERVERS, "proxy"),
        Fault("disk-full", disk.full, KINDS, "disk"),
        Fault("read-only", disk.read_only),
        Fault("worker-clock", clocks.of_workers, KINDS, "watch"),
        Fault("server-clock", clocks.of_the_server, SERVERS, "clock"),
        Fault("versions", deploys.versions),
        Fault("backlog", deploys.backlog),
        Fault("kill", deaths.kill_any, trees=4, processes=2, mix=Mix(rate=20), calm=False, at_a_time=125),
        Fault("zombie", deaths.freeze_long, mix=HALF),
        Fault("rolling", deaths.term, slots=40, mix=ROLLING),
        Fault("poisons", misdeeds.poisons),
    )
}


@dataclass
class Report:
    """What came of the faults of one field."""

    figures: dict[str, Figures]
    stories: list[str]
    """What was wrong, job by job."""


def run(
    store: str,
    faults: Sequence[Fault],
    rounds: int,
    *,
    until: float = float("inf"),
    seed: int = 0,
    backlog: int = 3_000,
) -> Report:
    """Up to `rounds` rounds of each fault in turn, until the monotonic clock says `until`, on one field.

    The faults must want the same of it. Raises `CannotInject`. The folder stays when something was wrong.
    """
    folder = Path(tempfile.mkdtemp(prefix="windlass-faults-"))
    folder.chmod(0o755)
    with (
        guarded(folder),
        closing(GROUNDS[store](folder, faults[0].needs)) as ground,
        closing(make_field(ground, folder, faults, seed, backlog)) as field,
    ):
        done = [one for _ in range(rounds) if time.monotonic() < until for one in play(field, faults, until)]
        field.finish()
        report = told(field, done)
    if report.stories:
        report.stories.append(f"all of it is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def make_field(ground: Ground, folder: Path, faults: Sequence[Fault], seed: int, backlog: int) -> Field:
    """The field that these faults want."""
    first = faults[0]
    environment = {**ground.time.environment, "PYTHONPATH": SHIM} if ground.time and first.needs == "watch" else {}
    return Field(
        ground,
        folder,
        trees=max(one.trees for one in faults),
        processes=max(one.processes for one in faults),
        slots=first.slots,
        mix=first.mix,
        seed=seed,
        backlog=backlog,
        environment=environment,
    )


def play(field: Field, faults: Sequence[Fault], until: float) -> list[tuple[str, Figures]]:
    """A round of each, in a random order."""
    done = []
    for one in field.dice.sample(faults, len(faults)):
        if time.monotonic() >= until:
            break
        field.fault = one.name
        field.rest()
        figures = {"rounds": 1, **one.round(field)}
        done.append((one.name, {"back": field.calm(), **figures} if one.calm else figures))
    return done


def told(field: Field, done: Sequence[tuple[str, Figures]]) -> Report:
    """The figures of each fault. What the whole history says is said of each, as it cannot be told apart."""
    whole, wrong = judge(field)
    again = times(field)
    figures = {}
    for name in dict.fromkeys(name for name, _ in done):
        figures[name] = merged(figures for fault, figures in done if fault == name) | whole
        figures[name] |= again[name]
    return Report(figures, [str(one) for one in wrong[:5]])


def verdict(store: str, fault: str, figures: Figures) -> tuple[bool, str]:
    """Whether the bars were met, and a line that says so. What was not measured was not met."""
    bars = bar_of(store, fault)
    missed = [name for name, most in bars.items() if figures.get(name, math.inf) > most]
    shown = ", ".join(f"{name} {value:,.2f}".removesuffix(".00") for name, value in figures.items())
    asked = ", ".join(f"{name} ≤ {most:g}" for name, most in bars.items() if most)
    zero = ", ".join(name for name, most in bars.items() if not most)
    word = f"MISSED ({', '.join(missed)})" if missed else "met"
    return not missed, f"{store:<10} {fault:<16} {shown} | {asked}; 0 of {zero} | {word}"


__all__ = ["FAULTS", "SERVERS", "CannotInject", "Fault", "Report", "run", "verdict"]
