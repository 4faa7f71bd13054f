"""`windlass enqueue`: one job from the shell, with the checks that a call from code gets."""

import inspect
import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_type_hints

import click

from windlass import values
from windlass.app import App
from windlass.blocking import run
from windlass.cli import FAILED
from windlass.cli.output import clean, print_json
from windlass.cli.reach import json_option
from windlass.errors import CallError, DecodeError, JobCancelled, JobFailed, UnknownTask
from windlass.jobs import Job
from windlass.loader import load
from windlass.model import WorkerInfo
from windlass.task import Task
from windlass.view import job_data, living, pretty, result_of

APP = re.compile(r"[\w.]+:[\w.]+")
KEYWORD = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?")
UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}

Call = tuple[tuple[Any, ...], dict[str, Any]]


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
    args, kwargs = make_call(task, given, app.config.max_payload)
    job = task.using(delay=delay, queue=queue, priority=priority, unique=unique).enqueue(*args, **kwargs)
    try:
        if wait:
            warn_if_nobody(app, task)
            wait_for(job, timeout, as_json)
        report(job.refresh() if as_json else job, wait, as_json)
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
    known = ", ".join(sorted(app.tasks)) or "none"
    known = f"Did you mean {' or '.join(close)}?" if close else f"The app knows: {known}"
    raise UnknownTask(f"there is no task {name!r}. {known}")


def make_call(task: Task[..., Any], words: Sequence[str], limit: int) -> Call:
    """The words as arguments of the types that the task's annotations ask for. Raises `CallError`, `EncodeError`."""
    args = [word for word in words if not KEYWORD.fullmatch(word)]
    kwargs = {found[1]: found[2] for word in words if (found := KEYWORD.fullmatch(word))}
    if len(args) + len(kwargs) < len(words):
        raise CallError("an argument comes twice by name; give each once")
    try:
        given = inspect.signature(task.fn).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise CallError(f"{error}. The task is {task.shape.title}") from None
    texts = {name for name, kind in get_type_hints(task.fn).items() if kind is str}
    parsed = {name: parse(words, name in texts) for name, words in given.items()}
    try:
        return task.shape.decode_call(values.encode(parsed, "args", limit))
    except DecodeError as error:
        text = str(error).replace("the stored arguments", "the arguments", 1)
        hint = ". A number as text takes two kinds of quotes: '\"42\"'" if "Expected str" in text else ""
        raise CallError(f"{text}{hint}") from None


def parse(words: Any, text: bool) -> Any:
    """A word, or the words of `*args` and `**kwargs`, as values: JSON if it is some, else the word itself.

    With `text` (the parameter is a str) only what is in JSON's quotes is read as JSON.
    """
    if isinstance(words, tuple):
        return [parse(word, text) for word in words]
    if isinstance(words, dict):
        return {name: parse(word, text) for name, word in words.items()}
    if text and not words.startswith('"'):
        return words
    try:
        return json.loads(words, parse_constant=str)
    except ValueError:
        return words


def warn_if_nobody(app: App, task: Task[..., Any]) -> None:
    """Say on stderr that the wait may be long: no running worker knows the task."""

    async def workers() -> Sequence[WorkerInfo]:
        return living(await (await app.connect()).workers())

    if not any(task.name in runner.tasks for worker in run(workers()) for runner in worker.runners):
        click.echo(f"No running worker knows {task.name}: waiting until one comes (Ctrl-C ends the wait)", err=True)


def wait_for(job: Job[Any], timeout: float | None, as_json: bool) -> None:
    """Wait until the job is over. Raises `JobFailed` and the like; with `as_json` the job is printed instead."""
    try:
        job.result(timeout)
    except (JobFailed, JobCancelled):
        if not as_json:
            raise
        report(job, True, as_json)
        raise SystemExit(FAILED) from None


def report(job: Job[Any], waited: bool, as_json: bool) -> None:
    """Print the job: its result if it was waited for, else its id."""
    if as_json:
        print_json(job_data(job.record))
    elif waited:
        click.echo(clean(pretty(result_of(job.record))))
    else:
        click.echo(job.id)
        if not job.new:
            click.echo(f"Nothing was enqueued: this job, {job.state}, has the key already", err=True)
