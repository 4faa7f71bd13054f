"""Progress bars, on a terminal only. They go to stderr, so that what is printed can be piped."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Move = Callable[[float, float | None, str], None]
"""Show `done` of `total` (None: unknown), and a word."""


def on_terminal() -> bool:
    """Whether somebody can see a bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def bar(label: str) -> Iterator[Move]:
    """A progress bar while the block runs; where nobody would see it, nothing."""
    if not on_terminal():
        yield lambda _done, _total, _note: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(40),
        TaskProgressColumn(show_speed=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as progress:
        task = progress.add_task(escape(label), total=None)

        def move(done: float, total: float | None, note: str) -> None:
            progress.update(task, completed=done, total=total, description=escape(f"{label}  {note}".rstrip()))

        yield move
