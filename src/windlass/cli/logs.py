"""`windlass jobs logs`: what a job logged, attempt by attempt."""

import asyncio

import click

from windlass.cli.find import one_job
from windlass.cli.output import clean, vault
from windlass.cli.reach import on_store, url_option
from windlass.lines import fresh
from windlass.model import JobRecord
from windlass.store.contract import Store
from windlass.view import log_of

LOOK_EVERY = 0.5
"""Seconds between two looks at a job that is followed: as often as its worker writes."""


@click.command()
@click.argument("id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job is over.")
@url_option
def logs(id: str, follow: bool, url: str | None) -> None:
    """Print what a job logged: the newest 8,192 characters of each attempt."""

    keys = vault()

    async def work(store: Store) -> None:
        job, seen = await one_job(store, id), dict[int, int]()
        while True:
            print_fresh(keys.reveal(job), seen)
            if job.state.final or not follow:
                break
            await asyncio.sleep(LOOK_EVERY)
            job = await one_job(store, job.id)
        if not seen:
            click.echo("It has logged nothing that was kept.", err=True)

    on_store(url, work)


def print_fresh(job: JobRecord, seen: dict[int, int]) -> None:
    """Print what was not printed yet; `seen`: how many lines of each attempt were."""
    for number, text in log_of(job):
        if number not in seen and (number > 1 or job.attempts):
            click.secho(f"Attempt {number}", bold=True)
        more, seen[number] = fresh(text, seen.get(number, 0))
        if more:
            click.echo(clean(more))
