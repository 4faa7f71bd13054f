"""How one job is shown to a person."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import click

from windlass.cli.output import cell, clean, clock_time, coloured, vault
from windlass.follow import parent_of
from windlass.model import Attempt, JobRecord, State
from windlass.view import (
    ENDINGS,
    arguments_of,
    duration,
    followers_of,
    log_of,
    options_of,
    pretty,
    priority_of,
    result_of,
)

BAR = 30


def print_job(job: JobRecord, made: Sequence[JobRecord] = ()) -> None:
    """Everything about a job, the most wanted first; `made`: the jobs that it enqueued, or its ends made."""
    job = vault().reveal(job)
    click.echo(f"{click.style(cell(job.task), bold=True)}  {coloured(job.state)}")
    for name, value in facts(job):
        click.echo(f"  {name:<9} {value}")
    section("Arguments")
    print_arguments(arguments_of(job))
    if job.state is State.SUCCEEDED:
        section("Result")
        block(clean(pretty(result_of(job))), "  ")
    if job.attempts:
        section("History")
        print_history(job)
    if log := log_of(job):
        section("Log")
        for number, text in log:
            if len(log) > 1:
                click.echo(f"  Attempt {number}")
            block(clean(text), "  ")
    if made:
        section("Children")
        for one in made:
            click.echo(f"  {cell(one.id)}  {cell(one.task)}  {coloured(one.state)}")
    if hint := next_step(job):
        click.echo(f"\n{hint}")


def facts(job: JobRecord) -> Iterator[tuple[str, str]]:
    """The short facts of a job, by name."""
    yield "id", cell(job.id)
    if parent := parent_of(job.id):
        yield "parent", cell(parent)
    yield "queue", cell(job.queue) + (f", priority {priority}" if (priority := priority_of(job)) else "")
    if job.tags:
        yield "tags", cell(", ".join(job.tags))
    for name, value in options_of(job).items():
        if name != "priority":
            yield name, clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if then := followers_of(job):
        yield "then", cell(", ".join(f"{task} ({on})" for task, on in then))
    yield from times(job)
    yield "tries", f"{job.attempt}" + (f", and {job.lost} lost" if job.lost else "")
    if job.progress:
        yield "progress", progress_bar(job)
    if job.cancelling:
        yield "note", "a cancel was asked for; its runner is told within seconds"
    if job.reason:
        yield "reason", clean(job.reason)


def times(job: JobRecord) -> Iterator[tuple[str, str]]:
    """When things happened, or will."""
    yield "enqueued", clock_time(job.enqueued_at)
    if job.state in (State.SCHEDULED, State.READY):
        yield "due", clock_time(job.run_at)
    if job.expires_at and job.state in (State.SCHEDULED, State.READY, State.WAITING):
        yield "expires", clock_time(job.expires_at)
    if job.started_at and job.state not in (State.SCHEDULED, State.READY):
        yield "started", clock_time(job.started_at) + (f", runner {job.runner[:8]}" if job.runner else "")
    if job.finished_at:
        took = f", took {duration(job.finished_at - job.started_at)}" if job.started_at else ""
        yield "finished", clock_time(job.finished_at) + took


def progress_bar(job: JobRecord) -> str:
    """Progress as a bar where its end is known, as a number where it is not."""
    progress = job.progress
    assert progress
    note = clean(progress.note)
    if not progress.total or progress.total < 0:
        return f"{progress.done:g}  {note}".rstrip()
    part = min(1.0, max(0.0, progress.done / progress.total))
    full = round(part * BAR)
    return f"{'█' * full}{'░' * (BAR - full)} {part:.0%}, {progress.done:g} of {progress.total:g}  {note}".rstrip()


def section(name: str) -> None:
    """A heading."""
    click.echo(f"\n{click.style(name, bold=True)}")


def block(text: str, indent: str) -> None:
    """Lines of text, indented."""
    click.echo(textwrap.indent(text, indent))


def print_arguments(args: Any) -> None:
    """The arguments, one a line."""
    if not isinstance(args, dict):
        block(clean(pretty(args)), "  ")
        return
    for name, value in args.items():
        first, _, rest = clean(pretty(value)).partition("\n")
        click.echo(f"  {clean(str(name))} = {first}")
        if rest:
            block(rest, "  ")
    if not args:
        click.echo("  (none)")


def print_history(job: JobRecord) -> None:
    """The attempts that did not succeed, in order; a traceback that comes again is not printed again."""
    printed: dict[str, int] = {}
    for number, attempt in enumerate(job.attempts, 1):
        print_attempt(number, attempt)
        failure = attempt.failure
        if failure is None:
            continue
        block(click.style(clean(f"{failure.type}: {failure.message}"), fg="red"), "     ")
        trace = failure.traceback.strip()
        if trace in printed:
            click.echo(f"     (the traceback of {printed[trace]} again)")
        elif trace:
            printed[trace] = number
            block(clean(trace), "     │ ")
    if job.state is State.SUCCEEDED:
        click.echo(f"  {len(job.attempts) + 1}. succeeded")


def print_attempt(number: int, attempt: Attempt) -> None:
    """One line on when and how an attempt ended."""
    took = f", after {duration(attempt.ended_at - attempt.started_at)}" if attempt.started_at else ""
    runner = f", runner {attempt.runner[:8]}" if attempt.runner else ""
    click.echo(f"  {number}. {ENDINGS[attempt.ending]}, {clock_time(attempt.ended_at)}{took}{runner}")


def next_step(job: JobRecord) -> str:
    """What a person may want to do now."""
    if job.state is State.FAILED:
        return f"Run it again: windlass jobs retry {job.id}"
    if job.state is State.RUNNING:
        return f"Follow it: windlass jobs watch {job.id}"
    if job.state is State.SCHEDULED:
        return f"Run it now: windlass jobs retry {job.id}"
    return ""
