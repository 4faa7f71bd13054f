"""`windlass jobs watch`: follow one job to its end."""

import click

from windlass.cli import FAILED
from windlass.cli.bars import bar, on_terminal
from windlass.cli.find import one_job
from windlass.cli.output import clean, print_json, vault
from windlass.cli.reach import json_option, on_store, url_option
from windlass.cli.show import print_job
from windlass.errors import JobNotFound
from windlass.jobs import Jobs, Step
from windlass.model import JobRecord, State
from windlass.store.contract import Store
from windlass.vault import Vault
from windlass.view import job_data


@click.command()
@click.argument("id")
@url_option
@json_option
def watch(id: str, url: str | None, as_json: bool) -> None:
    """Follow one job with a progress bar until it is over. The exit code is 0 if it succeeded, else 1."""
    keys = vault()
    job = on_store(url, lambda store: follow(store, id, keys, quiet=as_json))
    if as_json:
        print_json(job_data(job))
    else:
        print_job(job)
    if job.state is not State.SUCCEEDED:
        raise SystemExit(FAILED)


async def follow(store: Store, id: str, keys: Vault, *, quiet: bool = False) -> JobRecord:
    """Show how a job goes until it is over; the job as it ended. Raises `JobNotFound` if it is deleted meanwhile."""
    record = await one_job(store, id)
    name = clean(record.task)
    job = await jobs_of(store, keys).aget(record.id)
    with bar(name) as move:
        try:
            async for step in job.watch():
                news = status(step)
                move(*how_far(step), news)
                if not quiet and not on_terminal():
                    click.echo(f"{name}: {news}", err=True)
        except JobNotFound:
            raise JobNotFound(f"job {job.id} was deleted while it was watched") from None
    return job.record


def jobs_of(store: Store, keys: Vault) -> Jobs:
    """The jobs of an open store, of no app."""

    async def connect() -> Store:
        return store

    return Jobs(connect, lambda _: None, keys)


def how_far(step: Step) -> tuple[float, float | None]:
    """What is done of what total; all of it once the job succeeded."""
    return (1, 1) if step.state is State.SUCCEEDED else (step.done, step.total)


def status(step: Step) -> str:
    """The state of a job and how far it is, in a few words."""
    if step.state is not State.RUNNING or not (step.done or step.total or step.note):
        return str(step.state)
    of = f" of {step.total:g}" if step.total else ""
    return f"{step.done:g}{of} {clean(step.note)}".rstrip()
