"""The command; see the package."""

import argparse
import os
import signal
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import benchmarks.rivals as package
from benchmarks.rivals.bench import PACED, Bench, Figures
from benchmarks.rivals.install import Missing, install, version
from benchmarks.rivals.stores import STORES
from benchmarks.rivals.systems import RIVALS, WINDLASS

console = Console(log_path=False, width=None if Console().is_terminal else 130)


def spread(figures: list[float], ours: list[float]) -> str:
    """The median, what it is of ours, and the range."""
    if not figures:
        return "-"
    middle = statistics.median(figures)
    times = f"  {middle / statistics.median(ours):.2f}x" if ours else ""
    return f"{middle:,.0f}{times}\n[dim]{min(figures):,.0f} … {max(figures):,.0f}[/]"


def row(figures: Figures, ours: Figures) -> list[str]:
    """The cells of one system."""
    late = sorted(figures.waits)
    costs = [[one.worker for one in figures.drained], [one.server for one in figures.drained]]
    return [
        spread(figures.single, ours.single),
        spread(figures.bulk, ours.bulk),
        spread([one.rate for one in figures.drained], [one.rate for one in ours.drained]),
        " + ".join(f"{statistics.median(some):,.0f}" for some in costs),
        f"{late[len(late) // 2]:.1f}\n[dim]{late[int(len(late) * 0.99)]:.1f}[/]",
    ]


def named(bench: Bench, runs: int) -> str:
    """The name of a system, and how many runs its row is of if that is not all of them."""
    done = len(bench.figures.drained)
    return bench.system.name if done == runs else f"{bench.system.name}\n[red]only {done} of {runs} runs[/]"


def show(title: str, runs: int, benches: list[Bench], missing: dict[str, str]) -> None:
    """Print the table, how each system was run, and who is not in it."""
    table = Table("system", title=title, show_lines=True)
    for head in (
        "enqueue one by one\njobs/s",
        "enqueue in bulk\njobs/s",
        "drain\njobs/s",
        "CPU µs per job\nworker + server",
    ):
        table.add_column(head, justify="right")
    table.add_column("start at 20/s, ms\np50, p99", justify="right")
    done = [bench for bench in benches if bench.figures.drained]
    ours = next((bench.figures for bench in done if bench.system is WINDLASS), Figures())
    for bench in done:
        table.add_row(named(bench, runs), *row(bench.figures, ours))
    console.print(table)
    console.print("x is the multiple of Windlass's median. How each was run:")
    for bench in done:
        system = bench.system
        command = system.worker.replace("{bin}/", "").replace("benchmarks.rivals.peers.", "")
        command = command.format(store="URL", number="N")
        pins = ", ".join(system.pins) or version(system) or "this repository"
        times = f"{system.processes} x " if system.processes > 1 else ""
        console.print(
            f"[bold]{system.name}[/] ({escape(pins)}): {times}{escape(command)}; {escape(system.note)}", highlight=False
        )
    begun = {bench.system.name for bench in benches}
    for name, reason in missing.items():
        what = "failed, and was run no more" if name in begun else "was not run"
        console.print(f"[bold]{name}[/] {what}: {escape(reason)}", highlight=False)


def main() -> None:
    """Install, measure in turns, print."""
    parser = argparse.ArgumentParser(description=package.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=20_000, help="of one drain; slow systems get a share of them")
    parser.add_argument("--only", default="", help="names or parts of them, with commas; Windlass is always there")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "windlass-rivals")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # workers and servers end with us
    wanted = options.only.lower().split(",")
    systems = [one for one in RIVALS[options.store] if any(part in one.name.lower() for part in wanted)]
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, closing(STORES[options.store]()) as store:
        benches = []
        for system in (WINDLASS, *systems):
            try:
                benches.append(Bench(system, install(system, options.venv), store, folder))
            except Missing as reason:
                missing[system.name] = str(reason)
        for run in range(options.runs):
            for bench in [*benches] if run % 2 == 0 else reversed(benches):
                if bench.system.name in missing:
                    continue
                console.log(f"run {run + 1}: {bench.system.name}", highlight=False)
                try:
                    bench.run(options.jobs)
                except RuntimeError as reason:
                    missing[bench.system.name] = str(reason)
        title = f"{store.about}; {os.cpu_count()} cores; {options.runs} runs, {PACED} paced jobs in each"
        show(title, options.runs, benches, missing)


if __name__ == "__main__":
    main()
