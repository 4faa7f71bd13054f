"""`windlass schedules`: look at schedules, and act on them."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from windlass.cli import Group, Problem
from windlass.cli.output import ago, cell, clean, counted, print_json, table
from windlass.cli.reach import app_at, json_option, url_option
from windlass.cli.show import print_arguments, section
from windlass.cli.trail import audited
from windlass.errors import ScheduleNotFound
from windlass.schedules import Schedule, Schedules
from windlass.view import SHOWN, duration, is_late, schedule_data, words


@click.group(cls=Group)
def schedules() -> None:
    """List, show, pause, resume, trigger, backfill and delete schedules."""


@schedules.command("list")
@url_option
@json_option
def list_schedules(url: str | None, as_json: bool) -> None:
    """List all schedules, with the next run of each in its own zone."""
    every = app_at(url).schedules
    found, broken = every.list(), every.unreadable()
    if as_json:
        print_json([schedule_data(one) for one in found])
        return
    if not (found or broken):
        click.echo(
            "There are no schedules: declare one with @app.schedule(…), or make one with app.schedules.create(…)."
        )
        return
    head = ("NAME", "RULE", "TASK", "NEXT RUN", "", "FIRED", "STATE")
    rows = [row(one) for one in found]
    rows += [(cell(name), "", "", "", "", "", click.style("cannot be read: delete it", fg="red")) for name in broken]
    table(head, rows, right=(5,))


def row(one: Schedule) -> tuple[str, ...]:
    """A schedule as a row of the table."""
    following = one.next_runs(1)
    moment = following[0] if following and not one.paused else None
    return (
        cell(one.name),
        clean(words(one.rule)),
        cell(one.task),
        zoned(moment) if moment else "",
        ago(moment.timestamp()) if moment else "",
        f"{one.fired:,}",
        state(one),
    )


def state(one: Schedule) -> str:
    """What a person should know of it at a glance."""
    if one.paused:
        return click.style("paused", fg="yellow")
    if one.over:
        return "over"
    if one.waiting:
        return "waits for its last job"
    return click.style("late: does any worker run?", fg="red") if is_late(one) else ""


def zoned(moment: datetime) -> str:
    """A moment in its own zone."""
    return f"{moment:%a %Y-%m-%d %H:%M:%S %Z}"


@schedules.command()
@click.argument("name")
@click.option("--next", "count", type=click.IntRange(1, 1_000), default=SHOWN, show_default=True, help="Runs to show.")
@url_option
@json_option
def show(name: str, count: int, url: str | None, as_json: bool) -> None:
    """Show one schedule: its rule, its options, its next runs in its own zone, its last jobs."""
    one = app_at(url).schedules.get(name)
    if as_json:
        print_json(schedule_data(one, count))
        return
    click.echo(f"{click.style(cell(one.name), bold=True)}  {state(one)}".rstrip())
    for what, value in facts(one):
        click.echo(f"  {what:<9} {clean(value)}")
    section("Arguments")
    print_arguments(one.args)
    section("Next runs" + (", if it was not paused" if one.paused else ""))
    for moment in one.next_runs(count):
        click.echo(f"  {zoned(moment)}  {ago(moment.timestamp())}")
    if one.over:
        click.echo("  (none)")
    if one.jobs:
        click.echo(f"\nIts last job: windlass jobs show {one.jobs[-1]}")


def facts(one: Schedule) -> list[tuple[str, str]]:
    """Its rule and its options, by name."""
    more = f", of the last {one.most}" if one.catch_up == "all" else ""
    found = [
        ("rule", words(one.rule)),
        ("task", one.task),
        ("queue", one.queue + (f", priority {one.priority}" if one.priority else "")),
        ("from", f"code of {one.origin}" if one.origin else "made at run time"),
        ("catch up", f"{one.catch_up}{more}"),
        ("overlap", one.overlap),
        ("fired", f"{one.fired:,}" + (f" of {one.runs:,}" if one.runs else "")),
    ]
    return found + ([("jitter", duration(one.jitter))] if one.jitter else [])


Act = Callable[[Schedules, str], object]


def action(name: str, line: str, act: Act, done: Callable[[str, Any], str]) -> click.Command:
    """A command that does one thing to each schedule that is named."""

    @schedules.command(name, help=line)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @url_option
    def command(names: Sequence[str], url: str | None) -> None:
        app, wrong = app_at(url), 0
        for one in names:
            try:
                with audited(app, name, f"schedule {one}") as note:
                    came = act(app.schedules, one)
                    note.done = 1
                click.echo(done(clean(one), came))
            except ScheduleNotFound as error:
                click.echo(f"Error: {clean(str(error))}", err=True)
                wrong += 1
        if wrong:
            raise Problem(f"{counted(wrong, 'schedule')} of {len(names)} could not be found")

    return command


action(
    "pause",
    "Fire no more ticks of these until they are resumed.",
    Schedules.pause,
    lambda name, _: f"{name} is paused.",
)
action(
    "resume",
    "Fire again from now on; what was due meanwhile is not made up for.",
    Schedules.resume,
    lambda name, one: f"{name} goes on: {zoned(one.next_runs(1)[0])}." if one.next_runs(1) else f"{name} is over.",
)
action(
    "trigger",
    "Run these once now, beside their ticks.",
    Schedules.trigger,
    lambda name, job: f"{name} runs as job {job.id}.",
)
action(
    "delete",
    "Forget these; their jobs stay. One that code declares comes back when a worker starts.",
    Schedules.delete,
    lambda name, _: f"{name} is deleted.",
)


class Moment(click.ParamType[datetime]):
    """A moment: ISO 8601, without a zone in local time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The datetime, aware."""
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except ValueError:
            self.fail(
                f"expected a moment such as 2026-03-01T08:00 or 2026-03-01T08:00+01:00; {value!r} came", param, ctx
            )


@schedules.command()
@click.argument("name")
@click.option("--from", "start", type=Moment(), required=True, help="The first moment, as in 2026-03-01T08:00.")
@click.option("--to", "end", type=Moment(), help="The last moment. By default now.")
@url_option
@json_option
def backfill(name: str, start: datetime, end: datetime | None, url: str | None, as_json: bool) -> None:
    """Make the jobs of ticks of the past that have none yet."""
    app, last = app_at(url), end or datetime.now().astimezone() - timedelta(seconds=1)
    with audited(app, "backfill", f"schedule {name} from {start.isoformat()} to {last.isoformat()}") as note:
        jobs = app.schedules.backfill(name, start, last)
        new = [job.id for job in jobs if job.new]
        note.done = len(new)
    if as_json:
        print_json({"ticks": len(jobs), "new": new})
        return
    click.echo(
        f"{counted(len(jobs), 'tick')}: {counted(len(new), 'new job')}, {len(jobs) - len(new)} had theirs already."
    )
