"""`windlass workers`: who works, and what that takes; drain one."""

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import closing

import click

from windlass.audit import of_held
from windlass.cli import Group, Problem
from windlass.cli.bars import bar
from windlass.cli.find import PIECE
from windlass.cli.output import cell, clean, counted, print_json, table
from windlass.cli.reach import app_at, json_option, on_store, url_option
from windlass.cli.trail import audited
from windlass.errors import WorkerNotFound
from windlass.model import WorkerInfo
from windlass.store.contract import Store
from windlass.usage import Report, Usage
from windlass.view import duration, memory_of, share_of, worker_data
from windlass.workers import missing, told_in, workers_in

HEAD = ("WORKER", "PID", "RUNNING", "SLOTS", "MEMORY", "CPU", "QUEUES", "LAST BEAT", "TASKS", "HOST")

LOOK_EVERY = 0.5
"""Seconds between two looks at workers that are drained."""

LONG = 60.0
"""Seconds after which a drain says what it waits for."""


@click.group(cls=Group, invoke_without_command=True)
@url_option
@json_option
@click.pass_context
def workers(ctx: click.Context, url: str | None, as_json: bool) -> None:
    """Show the workers and their runners: what they run, their slots, memory, processor (100%: one of them), last beat.
    `drain` is below."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = url
        return
    found = on_store(url, workers_in)
    if as_json:
        print_json([worker_data(worker) for worker in found])
        return
    if not found:
        click.echo("No worker is running. Start one: windlass worker MODULE:APP")
        return
    table(HEAD, [row for worker in found for row in worker_rows(worker)], right=(1, 2, 3, 4, 5))


def worker_rows(worker: WorkerInfo) -> list[tuple[str, ...]]:
    """A worker's row of the table, and one for each of its runners."""
    tasks = {task for runner in worker.runners for task in runner.tasks}
    running = sum(runner.running for runner in worker.runners)
    own: tuple[str, ...] = (worker.id[:8], str(worker.pid), str(running), str(worker.concurrency), *took(worker.usage))
    rows = [(*own, clean(worker.queues) or "all", how_it_is(worker), str(len(tasks)), clean(worker.host))]
    for runner in worker.runners:
        of_it = (f"  {runner.id[:8]}", str(runner.pid), str(runner.running), "", *took(runner.usage))
        rows.append((*of_it, "", "", "", ""))
    return rows


def took(usage: Usage) -> tuple[str, str]:
    """Memory and processor as cells."""
    return memory_of(usage), share_of(usage)


def how_it_is(worker: WorkerInfo) -> str:
    """When it was heard of last, and whether it is lost or drained."""
    beat = f"{duration(worker.beat_age)} ago"
    if not worker.alive:
        return click.style(f"{beat}: lost", fg="red")
    return click.style(f"{beat}: draining", fg="yellow") if worker.draining else beat


@workers.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--no-wait", "at_once", is_flag=True, help="Do not wait until they have ended.")
@url_option
@click.pass_context
def drain(ctx: click.Context, ids: Sequence[str], at_once: bool, url: str | None) -> None:
    """Ask workers to end, as SIGTERM does, and wait until they have.

    They take no more jobs, and what they run may end within their grace. The first characters of an id will do. Nothing
    here starts others. Ctrl-C ends the wait, not the drain.
    """
    where = url or ctx.obj
    with closing(app_at(where)) as app:
        there = app.workers.list()
        meant = {one.id: one for one in (one_worker(there, id) for id in ids)}
        for id in meant:
            with audited(app, "drain", of_held("worker", id)) as note:
                app.workers.drain(id)
                note.done = 1
            click.echo(
                f"{cell(id[:8])} takes no more jobs within a second or two, and ends when those that it runs have."
            )
    if not at_once:
        on_store(where, lambda store: ended(store, meant))
        click.echo(f"{counted(len(meant), 'worker')} ended.")


def one_worker(there: Sequence[WorkerInfo], piece: str) -> WorkerInfo:
    """The worker with this id, or whose id begins so. Raises `WorkerNotFound`."""
    begin = [one for one in there if len(piece) >= PIECE and one.id.startswith(piece)]
    found = [one for one in there if one.id == piece] or begin
    if len(found) > 1:
        raise WorkerNotFound(f"{counted(len(found), 'worker')} have ids that begin with {piece}: give more of it")
    if not found:
        raise missing(piece)
    return found[0]


async def ended(store: Store, ids: Collection[str]) -> None:
    """Wait until these workers are gone, and say once what is to be done if that takes long. Raises `Problem` for one
    that is lost."""
    began, said = time.monotonic(), False
    with bar("drain") as move:
        while left := [one for one in await store.workers() if one.id in ids]:
            if lost := [one for one in left if not one.alive]:
                raise Problem(f"worker {lost[0].id[:8]} is lost: another one hands its jobs back within seconds")
            running = sum(runner.running for one in left for runner in one.runners)
            move(len(ids) - len(left), len(ids), f"{counted(running)} left")
            if not said and time.monotonic() - began > LONG:
                said, told = True, await told_in(store)
                for one in left:
                    click.echo(why_it_lasts(one, told.reports.get(one.id, Report())), err=True)
            await asyncio.sleep(LOOK_EVERY)


def why_it_lasts(worker: WorkerInfo, report: Report) -> str:
    """What a worker that was asked to end does, and what to do now."""
    id, process = cell(worker.id[:8]), f"its process, {worker.pid} on {clean(worker.host)}"
    if not report.stopping:
        return f"{id} has not said that it ends: it may be of an older version. Send SIGTERM to {process}"
    running = counted(sum(runner.running for runner in worker.runners))
    return (
        f"{id} still runs {running}, and waits for its grace to be over. "
        f"To end that wait, send SIGTERM twice, a second apart, to {process}"
    )
