"""`windlass enqueue`: one job from the shell, with the checks that a call from code gets."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click

from windlass.app import App
from windlass.cli.reach import json_option
from windlass.errors import UnknownTask
from windlass.loader import load
from windlass.task import Task

APP = re.compile(r"[\w.]+:[\w.]+")
KEYWORD = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?")
UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}

Call = tuple[list[Any], dict[str, Any]]


def span(_: click.Context, param: click.Parameter, text: str | None) -> float | None:
    """A time such as 30, 30s, 5m, 2h or 1d, as seconds."""
    if text is None:
        return None
    found = SPAN.fullmatch(text.strip())
    if not found:
        raise click.BadParameter(f"expected a time such as 30, 30s, 5m, 2h or 1d; {text!r} came", param=param)
    return float(found[1]) * UNITS[found[2]]


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[MODULE:APP] TASK [ARGS]...")
@click.option("--delay", callback=span, metavar="TIME", help="Run it after this time: 30, 30s, 5m, 2h or 1d.")
@click.option("--queue", help="Put it into this queue instead of its task's.")
@click.option("--priority", type=click.IntRange(-100, 100), help="Higher runs first.")
@click.option("--unique", metavar="KEY", help="Enqueue nothing if a live job of the task has this key.")
@click.option("--wait", is_flag=True, help="Wait for the job and print its result; exit code 1 if it fails.")
@click.option("--timeout", callback=span, metavar="TIME", help="Wait no longer than this.")
@json_option
def enqueue(
    words: Sequence[str],
    delay: float | None,
    queue: str | None,
    priority: int | None,
    unique: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Enqueue one job of TASK and print its id.

    ARGS are JSON values; bare words are strings, and name=value passes by keyword. Put `--` before a negative number.
    """
    spec, name, given = split(words)
    app = load(spec)
    task = find_task(app, name)
    args, kwargs = typed(task, [value for value in given if not KEYWORD.fullmatch(value)], given)
    job = task.using(delay=delay, queue=queue, priority=priority, unique=unique).enqueue(*args, **kwargs)
    try:
        if wait:
            warn_if_nobody(app, task)
            job.result(timeout)
        show(job.refresh(), wait, as_json)
    finally:
        app.close()


def split(words: Sequence[str]) -> tuple[str | None, str, Sequence[str]]:
    """The words of the command as MODULE:APP (None: as configured), task and arguments."""
    if not APP.fullmatch(words[0]):
        return None, words[0], words[1:]
    if len(words) == 1:
        raise click.UsageError(f"expected a task after {words[0]}: windlass enqueue {words[0]} TASK [ARGS]...")
    return words[0], words[1], words[2:]


def find_task(app: App, name: str) -> Task[..., Any]:
    """The task of that name, or whose name ends in it if only one does. Raises `UnknownTask`."""
    if name in app.tasks:
        return app.tasks[name]
    ending = {task.name: task for key, task in app.tasks.items() if key.endswith(f".{name}")}
    if len(ending) == 1:
        return next(iter(ending.values()))
    if ending:
        raise UnknownTask(f"{len(ending)} tasks are called {name}: {', '.join(sorted(ending))}; give the full name")
    short = {key.rpartition(".")[2]: key for key in app.tasks}
    close = get_close_matches(name, app.tasks, 3) or [short[one] for one in get_close_matches(name, short, 3)]
    known = f"Did you mean {' or '.join(close)}?" if close else f"The app knows: {', '.join(sorted(app.tasks)) or 'none'}"
    raise UnknownTask(f"there is no task {name!r}. {known}")
