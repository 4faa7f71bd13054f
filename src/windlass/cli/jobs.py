"""`windlass jobs`: look at jobs; what acts on them is in `actions`."""

from collections.abc import Sequence

import click

from windlass.cli import Group
from windlass.cli.actions import cancel, delete, retry
from windlass.cli.find import filters, one_job
from windlass.cli.logs import logs
from windlass.cli.output import (
    ago,
    cell,
    coloured,
    one_line,
    print_json,
    table,
    vault,
)
from windlass.cli.reach import json_option, on_store, url_option
from windlass.cli.show import print_job
from windlass.cli.standing import move, priority
from windlass.cli.watch import watch
from windlass.family import made_by
from windlass.model import Filter, JobRecord, Page, State
from windlass.store.contract import Store
from windlass.view import duration, job_data


@click.group(cls=Group)
def jobs() -> None:
    """List, show, watch, retry, cancel, delete and move jobs."""


jobs.add_command(watch)
jobs.add_command(logs)
jobs.add_command(retry)
jobs.add_command(cancel)
jobs.add_command(delete)
jobs.add_command(move)
jobs.add_command(priority)


@jobs.command("list")
@filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The most to show.")
@url_option
@json_option
def list_jobs(
    wanted: Filter,
    limit: int,
    url: str | None,
    as_json: bool,
) -> None:
    """List jobs: what is to come next first, what is over newest first, else newest first."""

    async def work(store: Store) -> Page:
        return await store.find(wanted, limit)

    page = on_store(url, work)
    if as_json:
        print_json([job_data(vault().reveal(job)) for job in page.jobs])
        return
    if not page.jobs:
        click.echo("No jobs match.")
        return
    head = ("ID", "TASK", "STATE", "TRIES", "QUEUE", "WHEN", "")
    table(head, [row(job) for job in page.jobs], right=(3,))
    if page.after:
        click.echo(
            f"\nThe first {limit}; there are more: --limit, or narrow with --state, --task, --queue, --tag, --error."
        )


def row(job: JobRecord) -> tuple[str, ...]:
    """A job as a row of the table."""
    job = vault().reveal(job)
    return cell(job.id), cell(job.task), coloured(job.state), str(job.attempt), cell(job.queue), when(job), remark(job)


def when(job: JobRecord) -> str:
    """The moment that matters in this state."""
    if job.state.final:
        return ago(job.finished_at)
    if job.state is State.RUNNING:
        return f"since {ago(job.started_at).removesuffix(' ago')}"
    return ago(job.run_at)


def remark(job: JobRecord) -> str:
    """What else is worth a column: the progress, the reason, the last error, the time it took."""
    if job.state is State.RUNNING:
        return "is being cancelled" if job.cancelling else progress_text(job)
    if job.state is State.SUCCEEDED and job.started_at and job.finished_at:
        return f"took {duration(job.finished_at - job.started_at)}"
    if job.state is State.CANCELLED and job.reason:
        return one_line(job.reason, 60)
    failure = job.attempts[-1].failure if job.attempts else None
    return one_line(f"{failure.type}: {failure.message}", 60) if failure else ""


def progress_text(job: JobRecord) -> str:
    """How far a job is, in a few characters."""
    progress = job.progress
    if progress is None:
        return ""
    part = f"{progress.done / progress.total:.0%}" if progress.total else f"{progress.done:g}"
    return f"{part} {one_line(progress.note, 40)}".strip()


@jobs.command()
@click.argument("id")
@url_option
@json_option
def show(id: str, url: str | None, as_json: bool) -> None:
    """Show one job: its arguments, progress, result, the history of its attempts, and the jobs that it made.

    ID may be the beginning or the end of an id if no other of the newest 1,000 jobs has it.
    """

    async def work(store: Store) -> tuple[JobRecord, Sequence[JobRecord]]:
        job = await one_job(store, id)
        return job, await store.get(list(made_by(job)))

    job, made = on_store(url, work)
    if as_json:
        print_json({**job_data(vault().reveal(job)), "children": [one.id for one in made]})
    else:
        print_job(job, made)
