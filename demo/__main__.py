"""Run the demo: a worker on SQLite, a real pipeline over the standard library's own sources, and a report."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.tasks import Module, Packed, app, fetch, later, pack, parse, unwanted, urgent
from windlass import Job, State
from windlass.task import Bound

REQUESTS = 400
LATER = 5.0
SAMPLE = 60
console = Console()
Jobs = dict[str, list[str]]


def main() -> int:
    """Enqueue (or find again) the run's jobs, work through them, report."""
    home = Path(app.config.url.removeprefix("sqlite:///")).parent
    run_file = home / "run"
    continued = run_file.exists()
    run = uuid.UUID(run_file.read_text()) if continued else uuid.uuid4()
    run_file.write_text(str(run))
    sources = standard_library()
    log = home / "worker.log"
    with server() as url, worker(log, url) as work:
        jobs = enqueue(run, sources, continued)
        started = time.monotonic()
        if not watch(jobs, work):
            console.print(f"\nThe worker ended before its jobs did; see {log}", style="bold red")
            return 1
        elapsed = time.monotonic() - started
        row = in_a_row(sources, f"{url}/item/0")
    report(jobs, elapsed, row, continued)
    run_file.unlink()
    return 0


def standard_library() -> list[str]:
    """Every source file of the standard library that runs this."""
    home = Path(subprocess.__file__).parent
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    return sorted(str(path) for path in home.rglob("*.py") if not foreign & set(path.relative_to(home).parts))


def in_a_row(sources: list[str], url: str) -> float:
    """Seconds that the same work takes without Windlass, one thing after another: measured on a sample of it."""
    sample = sources[:: max(1, len(sources) // SAMPLE)]
    began = time.perf_counter()
    for path in sample:
        with contextlib.suppress(SyntaxError, ValueError):
            parse(path)
        pack(path)
    files = (time.perf_counter() - began) / len(sample) * len(sources)
    began = time.perf_counter()
    for _ in range(10):
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url) as answer:
            answer.read()
    return files + (time.perf_counter() - began) / 10 * REQUESTS


@contextmanager
def server() -> Iterator[str]:
    """The HTTP server; its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def worker(log: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of two runners, as anybody would start it. Ctrl-C reaches us alone; we stop it in its own way."""
    command = [sys.executable, "-m", "windlass", "worker", "demo.tasks:app", "-p", "2", "-c", "16"]
    with log.open("ab") as lines:
        environment = os.environ | {"DEMO_SERVER": url}
        process = subprocess.Popen(command, start_new_session=True, stdout=lines, stderr=lines, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def enqueue(run: uuid.UUID, sources: list[str], continued: bool) -> Jobs:
    """Enqueue everything under ids made from the run, so that doing it again after Ctrl-C doubles nothing."""

    def name(kind: str, what: str) -> str:
        return str(uuid.uuid5(run, f"{kind} {what}"))

    began = time.perf_counter()
    bounds: list[Bound[object]] = [parse.using(id=name("parse", path), tags=["demo"]).bind(path) for path in sources]
    bounds += [pack.using(id=name("pack", path), tags=["demo"]).bind(path) for path in sources]
    bounds += [fetch.using(id=name("fetch", str(n)), tags=["demo"]).bind(f"/item/{n}") for n in range(REQUESTS)]
    jobs: list[Job[object]] = app.enqueue_many(bounds)
    took = time.perf_counter() - began
    extra: list[Job[object]] = [
        urgent.using(id=name("urgent", "")).enqueue("the urgent job"),
        later.using(id=name("later", ""), delay=LATER).enqueue("the delayed job"),
    ]
    never = unwanted.using(id=name("unwanted", ""), delay=3600).enqueue()
    if never.state == State.SCHEDULED:
        never.cancel()
    new = sum(job.new for job in jobs)
    if continued:
        console.print(f"Going on with the last run: {len(jobs) - new:,} jobs are there already, {new:,} are new.")
    else:
        console.print(f"Enqueued [bold]{new:,}[/] jobs in {took:.2f} s ({new / took:,.0f}/s, each safely on disk).")
    n = len(sources)
    ids = [job.id for job in jobs]
    return {
        "parse": ids[:n],
        "pack": ids[n : 2 * n],
        "fetch": ids[2 * n :],
        "urgent, delayed, cancelled": [*(job.id for job in extra), never.id],
    }


LANES = {"parse": "processes", "pack": "threads", "fetch": "event loop", "urgent, delayed, cancelled": ""}


def watch(jobs: Jobs, work: subprocess.Popen[bytes]) -> bool:
    """Show live bars until every job is over; false if the worker ends first."""
    open_jobs = {kind: set(ids) for kind, ids in jobs.items()}
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<28}"),
        BarColumn(40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=5) as progress:
        bars = {kind: progress.add_task(f"{kind}  [dim]{LANES[kind]}[/]", total=len(ids)) for kind, ids in jobs.items()}
        while any(open_jobs.values()):
            if work.poll() is not None:
                return False
            for kind, left in open_jobs.items():
                if left:
                    left -= {job.id for job in app.jobs.get_many(sorted(left)[:500]) if State(job.state).final}
                    progress.update(bars[kind], completed=len(jobs[kind]) - len(left))
            time.sleep(0.2)
    return True


def report(jobs: Jobs, elapsed: float, row: float, continued: bool) -> None:
    """What was found, and how the jobs went."""
    done = {kind: app.jobs.get_many(ids) for kind, ids in jobs.items()}
    modules = [job.result() for job in done["parse"] if job.state == State.SUCCEEDED]
    packed = [job.result() for job in done["pack"] if job.state == State.SUCCEEDED]
    console.print(findings([m for m in modules if isinstance(m, Module)], [p for p in packed if isinstance(p, Packed)]))
    console.print(table(done))
    every = [job for many in done.values() for job in many]
    ran = [job for job in every if job.started_at and job.finished_at]
    if not continued:
        console.print(
            f"{len(ran):,} jobs in [bold]{elapsed:.1f} s[/] ({len(ran) / elapsed:,.0f}/s). One after another, without "
            f"a queue, the same work takes about {row:.0f} s (from a sample): [bold]{row - elapsed:.0f} s saved[/]."
        )
    retried = next((job.id for job in done["fetch"] if job.attempt > 1), jobs["fetch"][0])
    console.print(f"\nTry next:\n  [bold cyan]export WINDLASS_URL={app.config.url}[/]", soft_wrap=True)
    for command, what in (
        ("windlass jobs list --limit 10", "the newest jobs"),
        (f"windlass jobs show {retried}", "one job's whole life, with its retries"),
        ("windlass queues", "what waits, and for how long"),
    ):
        console.print(f"  [bold cyan].demo/env/bin/{command}[/]  [dim]{what}[/]", highlight=False, soft_wrap=True)


def findings(modules: list[Module], packed: list[Packed]) -> Table:
    """The standard library in numbers."""
    found = Table(title="\nPython's standard library", show_header=False, title_justify="left")
    longest = max(modules, key=lambda module: module.longest)
    knotty = max(modules, key=lambda module: module.complexity)
    rows = [
        ("files", f"{len(modules):,}"),
        ("lines", f"{sum(m.lines for m in modules):,}"),
        ("functions", f"{sum(m.functions for m in modules):,}"),
        ("classes", f"{sum(m.classes for m in modules):,}"),
        ("longest function", f"{longest.longest_name} ({longest.longest:,} lines) in {Path(longest.path).name}"),
        ("most branches", f"{knotty.complexity:,} in {Path(knotty.path).name}"),
        ("compressed", f"{sum(p.size for p in packed) / 1e6:.1f} MB → {sum(p.packed for p in packed) / 1e6:.1f} MB"),
    ]
    for name, value in rows:
        found.add_row(name, value)
    return found


def table(done: dict[str, list[Job[object]]]) -> Table:
    """How many jobs ended how."""
    jobs = Table(title="\nJobs", title_justify="left")
    for heading in ("task", "lane", "done", "retried", "failed", "cancelled"):
        jobs.add_column(heading, justify="left" if heading in ("task", "lane") else "right")
    for kind, many in done.items():
        states = Counter(job.state for job in many)
        retried = sum(job.attempt > 1 for job in many)
        counts = (states["succeeded"], retried, states["failed"], states["cancelled"])
        jobs.add_row(kind, LANES[kind], *(f"{count:,}" for count in counts))
    return jobs


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("\nStopped. Run it again: it goes on from here.")
        sys.exit(130)
