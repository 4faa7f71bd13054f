"""`windlass jobs move` and `priority`: have jobs that do not run stand elsewhere, as the app declares its queues."""

from collections.abc import Callable
from contextlib import closing

import click

from windlass.app import App
from windlass.audit import of_filter
from windlass.cli.actions import confirm
from windlass.cli.bars import bar
from windlass.cli.find import given, places
from windlass.cli.output import clean, counted, print_json
from windlass.cli.reach import json_option
from windlass.cli.trail import audited
from windlass.loader import load
from windlass.model import IDLE, Filter


@click.command()
@click.argument("spec", required=False, metavar="[MODULE:APP]")
@click.option("--to", required=True, metavar="QUEUE", help="Where they shall stand.")
@places
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def move(
    spec: str | None,
    to: str,
    wanted: Filter,
    yes: bool,
    as_json: bool,
) -> None:
    """Put jobs that do not run into another queue, with the limits and the aging that the app declares for it.

    They keep their ids, unique keys and times.
    """
    check(wanted)
    with closing(load(spec)) as app:
        which = given(wanted)
        question = f"Move {{}} to {clean(to)}?"
        done = ask_and_do(app, wanted, question, yes, ("move", to), lambda: app.jobs.move(to, **which))
    report("move", done, f"now in {clean(to)}", as_json)


@click.command()
@click.argument("spec", required=False, metavar="[MODULE:APP]")
@click.option("--to", "level", required=True, type=click.IntRange(-100, 100), help="The priority; higher runs first.")
@places
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def priority(
    spec: str | None,
    level: int,
    wanted: Filter,
    yes: bool,
    as_json: bool,
) -> None:
    """Give jobs that do not run another priority, but for those in strict order."""
    check(wanted)
    with closing(load(spec)) as app:
        which = given(wanted)
        question = f"Give {{}} the priority {level}?"
        done = ask_and_do(
            app, wanted, question, yes, ("priority", str(level)), lambda: app.jobs.reprioritise(level, **which)
        )
    report("priority", done, f"now of priority {level}", as_json)


def check(wanted: Filter) -> None:
    """Raise `UsageError` for a filter that leaves every job, or those that stand nowhere."""
    if wanted == Filter():
        raise click.UsageError("expected --state, --task, --queue or --tag: which jobs? None came")
    if wanted.state not in (None, *IDLE):
        raise click.UsageError(f"only jobs that are {', '.join(IDLE)} stand anywhere; --state {wanted.state} came")


def ask_and_do(app: App, wanted: Filter, question: str, yes: bool, act: tuple[str, str], do: Callable[[], int]) -> int:
    """Count the jobs, ask, and do it; how many were changed. `act`: what is done, and where to."""
    states = IDLE if wanted.state is None else (wanted.state,)
    total = sum(app.jobs.count(**{**given(wanted), "state": str(state)}) for state in states)
    if not total:
        return 0
    if not yes:
        confirm(question.format(counted(total)))
    verb, to = act
    with audited(app, verb, f"{of_filter(given(wanted))} to {to}") as note, bar(counted(total)):
        note.done = do()
    return note.done


def report(verb: str, done: int, what: str, as_json: bool) -> None:
    """Say what was done."""
    if as_json:
        print_json({"verb": verb, "done": done})
    else:
        click.echo(f"{counted(done)} {what}")
