"""`windlass jobs retry`, `cancel` and `delete`: an operator's verbs, on ids or on all jobs that match."""

import sys
from collections.abc import Sequence
from functools import partial

import click

from windlass.audit import Note, audited, of_filter, of_jobs
from windlass.bulk import in_batches
from windlass.cli import USAGE, Problem
from windlass.cli.bars import bar
from windlass.cli.find import filters, given, one_job
from windlass.cli.output import counted, print_json
from windlass.cli.reach import json_option, on_store, url_option
from windlass.cli.trail import who
from windlass.errors import JobNotFound
from windlass.model import Filter, JobRecord, Verb
from windlass.store.contract import BATCH, Store
from windlass.view import narrowed, why_not

DONE = {Verb.RETRY: "ready to run again", Verb.CANCEL: "cancelled", Verb.DELETE: "deleted"}

HELP = {
    Verb.RETRY: "Run finished jobs again, with all their tries; a scheduled job runs now.\n\n"
    "With filters and without --state: the failed ones.",
    Verb.CANCEL: "Cancel jobs that are not finished. A running one is told to stop, and ends soon.",
    Verb.DELETE: "Delete jobs that do not run, with their history.",
}

Refused = dict[str, str]
"""Why a verb was not done, by id."""


def action(verb: Verb) -> click.Command:
    """The command for one verb."""

    @click.command(str(verb), help=HELP[verb])
    @click.argument("ids", nargs=-1, metavar="[ID]...")
    @filters
    @click.option("--all", "every", is_flag=True, help="Act on every job that the filters leave.")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @url_option
    @json_option
    def command(
        ids: Sequence[str],
        wanted: Filter,
        every: bool,
        yes: bool,
        url: str | None,
        as_json: bool,
    ) -> None:
        filtered = wanted != Filter()
        if ids and (filtered or every):
            raise click.UsageError("give either ids or filters, not both")
        if not ids and not every:
            raise click.UsageError("expected ids, or --all with filters such as --state failed; none came")
        if ids:
            report(verb, *on_store(url, partial(act_on_ids, ids=ids, verb=verb)), as_json)
        else:
            report(verb, act_on_all(url, wanted, verb, yes), {}, as_json)

    return command


async def act_on_ids(store: Store, ids: Sequence[str], verb: Verb) -> tuple[int, Refused]:
    """Do the verb to the jobs with these ids; how many, and what was refused."""
    refused: Refused = {}
    jobs: dict[str, JobRecord] = {}
    for id in ids:
        try:
            job = await one_job(store, id, sure=True)
            jobs[job.id] = job
        except JobNotFound as error:
            refused[id] = str(error)
    done: set[str] = set()
    if found := list(jobs):
        async with audited(store, who(), str(verb), of_jobs(found)) as note:
            for start in range(0, len(found), BATCH):
                done.update(await store.act(found[start : start + BATCH], verb))
                note.done = len(done)
    refused |= {id: why_not(jobs[id], verb) for id in found if id not in done}
    return len(done), refused


def act_on_all(url: str | None, wanted: Filter, verb: Verb, yes: bool) -> int:
    """Count the jobs that the verb fits, ask, and do it, with a bar if it takes long; how many it was done to."""
    which = narrowed(wanted, verb)

    async def count(store: Store) -> int:
        return sum([await store.count(filter) for filter in which])

    total = on_store(url, count)
    if total and not yes:
        confirm(f"{str(verb).capitalize()} {counted(total)}?")
    if not total:
        return 0

    async def act(store: Store) -> int:
        async with audited(store, who(), str(verb), of_filter(given(wanted))) as note:
            await act_in_batches(store, which, verb, total, note)
        return note.done

    return on_store(url, act)


def confirm(question: str) -> None:
    """Ask before acting on jobs that nobody named one by one."""
    if not sys.stdin.isatty():
        raise Problem(f"{question} Nobody is here to ask: add --yes to do it", USAGE)
    click.confirm(question, abort=True, err=True)


async def act_in_batches(store: Store, which: Sequence[Filter], verb: Verb, total: int, note: Note) -> None:
    """Do the verb to as many as were counted."""
    with bar(str(verb)) as move:
        async for ids in in_batches(store, which, verb, total):
            note.done += len(ids)
            move(note.done, total, "")


def report(verb: Verb, done: int, refused: Refused, as_json: bool) -> None:
    """Say what was done and what was not; exit code 1 if anything was not."""
    if as_json:
        print_json({"verb": str(verb), "done": done, "refused": refused})
    else:
        if done or not refused:
            click.echo(f"{counted(done)} {DONE[verb]}")
        for reason in refused.values():
            click.echo(f"Error: {reason}", err=True)
    if refused:
        raise SystemExit(1)


retry = action(Verb.RETRY)
cancel = action(Verb.CANCEL)
delete = action(Verb.DELETE)
