"""`windlass jobs watch`: follow one job to its end."""

import click

from windlass.cli import FAILED
from windlass.cli.bars import bar, on_terminal
from windlass.cli.find import one_job
from windlass.cli.output import clean, print_json, vault
from windlass.cli.reach import json_option, on_store, url_option
from windlass.cli.show import print_job
from windlass.errors import JobNotFound
from windlass.model import JobRecord, State
from windlass.store.contract import Store
from windlass.vault import Vault
from windlass.view import job_data

LOOK_EVERY = 0.5
"""Seconds between two looks at the job."""


@click.command()
@click.argument("id")
@url_option
@json_option
def watch(id: str, url: str | None, as_json: bool) -> None:
    """Follow one job with a progress bar until it is over. The exit code is 0 if it succeeded, else 1."""
    keys = vault()
    job = on_store(url, lambda store: follow(store, id, keys, quiet=as_json))
    if as_json:
        print_json(job_data(keys.reveal(job)))
    else:
        print_job(job)
    if job.state is not State.SUCCEEDED:
        raise SystemExit(FAILED)


async def follow(store: Store, id: str, keys: Vault, *, quiet: bool = False) -> JobRecord:
    """Show how a job goes until it is over; the job as it ended. Raises `JobNotFound` if it is deleted meanwhile."""
    job = await one_job(store, id)
    said = ""
    with bar(clean(job.task)) as move:
        while True:
            news = status(keys.reveal(job))
            move(*how_far(job), news)
            if news != said and not quiet and not on_terminal():
                click.echo(f"{clean(job.task)}: {news}", err=True)
            said = news
            if job.state.final:
                return job
            await store.wait("done", LOOK_EVERY)
            found = await store.get([job.id])
            if not found:
                raise JobNotFound(f"job {job.id} was deleted while it was watched")
            job = found[0]


def how_far(job: JobRecord) -> tuple[float, float | None]:
    """What is done of what total; all of it once the job succeeded."""
    if job.state is State.SUCCEEDED:
        return 1, 1
    return (job.progress.done, job.progress.total) if job.progress else (0, None)


def status(job: JobRecord) -> str:
    """The state of a job and how far it is, in a few words."""
    progress = job.progress
    if job.state is not State.RUNNING or progress is None:
        return str(job.state)
    of = f" of {progress.total:g}" if progress.total else ""
    return f"{progress.done:g}{of} {clean(progress.note)}".rstrip()
