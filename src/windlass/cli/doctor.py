"""`windlass doctor` and `windlass migrate`: is this installation well, and is its store up to date?"""

import platform
import re
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import click

from windlass import blocking
from windlass.cli import UNHEALTHY, Problem
from windlass.cli.output import cell, counted, print_json
from windlass.cli.reach import file_of, find_url, json_option, on_store, shown, url_option
from windlass.errors import StoreUnavailable, WindlassError
from windlass.gates import paused_keys
from windlass.model import Line, State, WorkerInfo
from windlass.pause import DRAIN
from windlass.queues import Paused, held_in
from windlass.store.contract import Store
from windlass.store.dispatch import bounded, make_store
from windlass.view import NO_WORKER, duration, living, nobody

SLOW_OPEN = 1.0
"""Seconds to open the store from which on doctor says so."""

CALLS = 20
"""Cheap calls that the latency is the median of."""

SLOW_CALL = 0.02
"""Seconds for a cheap call from which on doctor says so."""

CLOCK_OFFSET = 5.0
"""Seconds between the store's clock and this host's from which on doctor says so."""

NUMBER = re.compile(r"\s*([-+]?[\d.]+)\s*(ms|s)?")

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. A `problem` makes the whole unhealthy; `do` says what to do about it."""

    level: Literal["ok", "warning", "problem"]
    name: str
    found: str
    do: str = ""


@click.command()
@click.argument("store_url", metavar="[URL]", required=False)
@url_option
@json_option
def doctor(store_url: str | None, url: str | None, as_json: bool) -> None:
    """Check the store, this machine and the workers, and say what to do. Exit code 3: something is not healthy."""
    checks = [*machine(), *the_store(store_url or url)]
    healthy = all(check.level != "problem" for check in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    else:
        print_checks(checks)
        click.echo("\nHealthy." if healthy else "\nNot healthy: see ✗ above.")
    if not healthy:
        raise SystemExit(UNHEALTHY)


def print_checks(checks: Sequence[Check]) -> None:
    """The checks, one a line, and what to do below those that need it."""
    wide = max(len(check.name) for check in checks)
    for check in checks:
        mark, colour = MARKS[check.level]
        click.echo(f"{click.style(mark, fg=colour)} {check.name:<{wide}}  {cell(check.found)}")
        if check.do:
            click.echo(f"  {'':<{wide}}  → {check.do}")


def machine() -> Iterator[Check]:
    """What runs here."""
    yield Check("ok", "windlass", version("windlass"))
    yield Check("ok", "python", f"{platform.python_version()} ({sys.platform})")
    yield Check("ok", "sqlite", sqlite3.sqlite_version)
    if find_spec("uvloop"):
        yield Check("ok", "uvloop", "installed")
    elif sys.platform != "win32":
        yield Check("warning", "uvloop", "not installed", "runners are slower without it: pip install uvloop")


def the_store(url: str | None) -> list[Check]:
    """Whether the store can be reached, what it tells of itself, and who works on it."""
    try:
        found = find_url(url)
        began = time.perf_counter()
        return [Check("ok", "store", shown(found)), *on_store(found, lambda store: examine(store, began))]
    except WindlassError as error:
        return [Check("problem", "store", str(error))]
    except Exception as error:  # a driver's own; whoever asks the doctor has trouble enough
        return [Check("problem", "store", f"{type(error).__name__}: {error}")]


async def examine(store: Store, began: float) -> list[Check]:
    """The checks that need an open store. `began`: when opening it began."""
    took = time.perf_counter() - began
    slow = "the disk or the network is slow, or another process holds the store" if took > SLOW_OPEN else ""
    lines, workers = await store.stats(), await store.workers()
    return [
        Check("warning" if slow else "ok", "opened in", duration(took), slow),
        await latency(store),
        *[fact(name, value) for name, value in (await store.probe()).items() if name != "latency"],
        *crew(workers, lines),
        *orphans(lines, workers),
        *[held_up(one, drained=name.startswith(DRAIN)) for name, one in (await held_in(store)).items()],
        *[held_up(one, drained=False) for one in await paused_keys(store)],
    ]


async def latency(store: Store) -> Check:
    """How long the store takes for next to nothing."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await store.get(["none"])
        times.append(time.perf_counter() - began)
    middle = statistics.median(times)
    found = f"{middle * 1000:.2g} ms, the median of {CALLS} calls"
    if middle < SLOW_CALL:
        return Check("ok", "latency", found)
    return Check("warning", "latency", found, "every job waits for this: move the workers closer to the store")


def fact(key: str, value: str) -> Check:
    """One fact of `Store.probe`."""
    name = key.replace("_", " ")
    if name == "integrity" and value != "ok":
        return Check("problem", name, value, "stop all workers and restore the store from a backup")
    if name == "clock offset" and (number := NUMBER.match(value)):
        return clock(value, float(number[1]) / (1000 if number[2] == "ms" else 1))
    for level in ("problem", "warning"):
        if name.startswith(level):
            return Check(level, name.removeprefix(level).strip("- :") or level, value)
    return Check("ok", name, f"{int(value):,}" if name == "bytes" and value.isdigit() else value)


def clock(found: str, offset: float) -> Check:
    """How many seconds the store's clock is ahead of this host's."""
    if abs(offset) <= CLOCK_OFFSET:
        return Check("ok", "clock offset", found)
    return Check("warning", "clock offset", found, "delays go by the store's clock, run_at by yours: have NTP set both")


def crew(workers: Sequence[WorkerInfo], lines: Sequence[Line]) -> Iterator[Check]:
    """Who works: nobody is a problem as soon as something is due."""
    alive = living(workers)
    due = sum(line.count for line in lines if line.state is State.READY)
    runners = sum(len(worker.runners) for worker in alive)
    if alive:
        yield Check("ok", "workers", f"{len(alive)} running, with {counted(runners, 'runner')}")
    elif due:
        yield Check("problem", "workers", f"none is running, {counted(due)} due", "windlass worker MODULE:APP")
    else:
        yield Check("warning", "workers", "none is running", "windlass worker MODULE:APP")
    for worker in workers:
        if worker not in alive:
            found = f"{worker.id[:8]} on {worker.host} has not beaten for {duration(worker.beat_age)}"
            yield Check("warning", "lost worker", found, "any running worker hands its jobs back within seconds")


def orphans(lines: Sequence[Line], workers: Sequence[WorkerInfo]) -> Iterator[Check]:
    """Jobs that nobody would run although workers are there."""
    found: dict[tuple[str, str, str], int] = {}
    for line in lines:
        reason = nobody(line, workers)
        if reason and reason != NO_WORKER and line.state is not State.RUNNING:
            key = (line.task, line.queue, reason)
            found[key] = found.get(key, 0) + line.count
    for (task, queue, reason), count in found.items():
        yield Check(
            "warning",
            "stranded",
            f"{counted(count)} of {task} in queue {queue}: {reason}",
            "start a worker whose app has the task (an alias, if it was renamed) and that serves the queue",
        )


def held_up(one: Paused, *, drained: bool) -> Check:
    """What is paused, or a queue that is drained, which whoever looks for the reason should see."""
    found = f"{one.kind} {one.name}" + (f": {one.reason}" if one.reason else "")
    group = "gates" if one.kind == "key" else "queues"
    resume = f"windlass {group} resume {one.name}" + (" --task" if one.kind == "task" else "")
    if drained:
        return Check("warning", "draining", found, f"{resume}, when it shall take jobs again")
    return Check("warning", "paused", found, f"{resume}, when it shall go on")


@click.command()
@url_option
@json_option
def migrate(url: str | None, as_json: bool) -> None:
    """Bring the store's schema to this version; a store that is not there yet is made."""
    found = find_url(url)
    taken = list(blocking.run(steps(found)))
    if as_json:
        print_json({"store": shown(found), "taken": taken})
    elif taken:
        click.echo(f"{shown(found)}: {', '.join(taken)}")
    else:
        click.echo(f"{shown(found)} is up to date")


async def steps(url: str) -> Sequence[str]:
    """Migrate without opening, which would do it on the way and not tell."""
    file = file_of(url)
    if file and not file.parent.is_dir():
        raise StoreUnavailable(f"the folder of {file} does not exist: make it, or name another with --url")
    store = bounded(make_store(url))
    try:
        return await store.migrate()
    except WindlassError:
        raise
    except Exception as error:
        raise Problem(f"{shown(url)} cannot be brought up to date: {error}") from error
    finally:
        await store.close()
