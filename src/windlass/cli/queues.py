"""`windlass queues`: what is there to do, how it goes, what is held up and why; pause, drain and resume."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import click
from msgspec import Struct

from windlass.app import App
from windlass.audit import of_held
from windlass.cli import Group, Problem
from windlass.cli.bars import bar
from windlass.cli.gates import print_gates
from windlass.cli.output import ago, cell, clean, coloured, counted, print_json, table
from windlass.cli.reach import app_at, json_option, on_store, url_option
from windlass.cli.trail import audited
from windlass.gates import GateInfo, gates_in
from windlass.model import Line, State, WorkerInfo
from windlass.pause import DRAIN
from windlass.queues import Paused, QueueInfo, drains_of, held_in, pauses_of, queues_in
from windlass.store.contract import Store
from windlass.view import about, duration, gate_data, line_data, nobody, paused_data

SEEN_WITHIN = 2.0
"""Seconds after which all who enqueue know that a queue is drained."""

LOOK_EVERY = 0.5
"""Seconds between two looks at a queue that is drained."""


class Look(Struct, frozen=True):
    """What the command shows."""

    lines: list[Line]
    workers: list[WorkerInfo]
    queues: list[QueueInfo]
    paused: list[Paused]
    draining: list[Paused]
    gates: list[GateInfo]


async def look(store: Store) -> Look:
    """Look at the store."""
    lines, workers = await store.stats(), await store.workers()
    held = await held_in(store)
    return Look(lines, workers, await queues_in(store), pauses_of(held), drains_of(held), await gates_in(store))


@click.group(cls=Group, invoke_without_command=True)
@url_option
@json_option
@click.pass_context
def queues(ctx: click.Context, url: str | None, as_json: bool) -> None:
    """Show each queue: its jobs, since when the first is due, jobs a second in and out, when it will be empty; what is
    paused or drained; limits and who holds them. `pause`, `drain` and `resume` are below."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = url
        return
    found = on_store(url, look)
    if as_json:
        print_json(look_data(found))
        return
    if not (found.queues or found.paused or found.draining or found.gates):
        click.echo("All queues are empty.")
        return
    print_queues(found.queues)
    print_tasks(found.lines, found.workers)
    print_paused(found.paused)
    print_draining(found.draining)
    if found.gates:
        click.echo()
        print_gates(found.gates)
    total = sum(line.count for line in found.lines)
    click.echo(f"\n{counted(total, 'live job')}; finished ones: windlass jobs list")


def print_queues(found: Sequence[QueueInfo]) -> None:
    """The queues, one a line."""
    if found:
        head = ("QUEUE", "READY", "WAITING", "LATER", "RUNNING", "FIRST DUE", "IN/S", "OUT/S", "EMPTY IN", "")
        table(head, [queue_row(one) for one in found], right=(1, 2, 3, 4, 6, 7))


def queue_row(one: QueueInfo) -> tuple[str, ...]:
    """A queue as a row of the table."""
    numbers = (one.ready, one.waiting, one.scheduled, one.running)
    return (
        cell(one.name),
        *[about(number, one.exact) for number in numbers],
        f"{duration(one.oldest)} ago" if one.oldest else "",
        f"{one.coming:.1f}",
        f"{one.going:.1f}",
        empty_in(one),
        click.style(held_how(one), fg="yellow"),
    )


def held_how(one: QueueInfo) -> str:
    """What somebody has done to a queue, in a word or two."""
    return ", ".join(["paused"] * (one.paused is not None) + ["draining"] * (one.draining is not None))


def empty_in(one: QueueInfo) -> str:
    """When a queue will be empty if all goes on so."""
    if not one.depth:
        return ""
    return "not at this rate" if one.empty_in is None else duration(one.empty_in)


def print_tasks(lines: Sequence[Line], workers: Sequence[WorkerInfo]) -> None:
    """What the queues hold, by task and state."""
    if lines:
        click.echo()
        head = ("QUEUE", "TASK", "STATE", "JOBS", "FIRST DUE", "")
        table(head, [line_row(line, workers) for line in lines], right=(3,))


def line_row(line: Line, workers: Sequence[WorkerInfo]) -> tuple[str, ...]:
    """A line as a row of the table."""
    due = f"{duration(line.oldest)} ago" if line.oldest else "later" if line.state is State.SCHEDULED else "now"
    problem = click.style(nobody(line, workers), fg="red")
    return cell(line.queue), cell(line.task), coloured(line.state), about(line.count, line.exact), due, problem


def print_paused(found: Sequence[Paused]) -> None:
    """What is paused, and why."""
    if found:
        click.echo()
        head = ("PAUSED", "", "SINCE", "A JOB IS TRIED", "REASON")
        table(head, [paused_row(one) for one in found])


def paused_row(one: Paused) -> tuple[str, ...]:
    """A pause as a row of the table."""
    tried = ago(one.until.timestamp()) if one.until else ""
    if one.until and not tried.startswith("in "):
        tried = "now"
    return one.kind, cell(one.name), ago(one.since.timestamp()), tried, cell(one.reason)


def print_draining(found: Sequence[Paused]) -> None:
    """The queues that take no more jobs, and why."""
    if found:
        click.echo()
        table(
            ("DRAINING", "SINCE", "REASON"),
            [(cell(one.name), ago(one.since.timestamp()), cell(one.reason)) for one in found],
        )


# JSON


def look_data(found: Look) -> Mapping[str, object]:
    """All of it as `--json` prints it. Times are in seconds, rates in jobs a second."""
    return {
        "queues": [queue_data(one) for one in found.queues],
        "tasks": [line_data(line, found.workers) for line in found.lines],
        "paused": [paused_data(one) for one in found.paused],
        "draining": [paused_data(one) for one in found.draining],
        "gates": [gate_data(one) for one in found.gates],
    }


def queue_data(one: QueueInfo) -> Mapping[str, object]:
    """A queue as `--json` prints it."""
    return {
        "name": one.name,
        "depth": one.depth,
        "ready": one.ready,
        "waiting": one.waiting,
        "scheduled": one.scheduled,
        "running": one.running,
        "exact": one.exact,
        "oldest": one.oldest,
        "in": one.coming,
        "out": one.going,
        "empty_in": one.empty_in,
        "paused": one.paused is not None,
        "draining": one.draining is not None,
    }


# Pause, drain and resume


def at_hand(ctx: click.Context, url: str | None) -> App:
    """The store that is meant: `--url` may stand before the subcommand or behind it."""
    return app_at(url or ctx.obj)


@queues.command()
@click.argument("name")
@click.option("--task", "is_task", is_flag=True, help="NAME is a task, not a queue.")
@click.option("--reason", default="", help="Why, for whoever looks.")
@url_option
@click.pass_context
def pause(ctx: click.Context, name: str, is_task: bool, reason: str, url: str | None) -> None:
    """Have no worker begin jobs of this queue, or this task, until it is resumed. What runs goes on."""
    app, kind = at_hand(ctx, url), "task" if is_task else "queue"
    with audited(app, "pause", of_held(kind, name, reason)) as note:
        app.queues.pause(**{kind: name}, reason=reason)
        note.done = 1
    click.echo(f"{clean(name)} is paused; workers know within a second or two.")


@queues.command()
@click.argument("name")
@click.option("--task", "is_task", is_flag=True, help="NAME is a task, not a queue.")
@url_option
@click.pass_context
def resume(ctx: click.Context, name: str, is_task: bool, url: str | None) -> None:
    """Go on with a queue, or a task: one that was paused by hand or by its circuit breaker, or a drained queue."""
    app, kind = at_hand(ctx, url), "task" if is_task else "queue"
    with audited(app, "resume", of_held(kind, name)) as note:
        note.done = int(app.queues.resume(**{kind: name}))
    was = "paused" if is_task else "paused or drained"
    click.echo(f"{clean(name)} goes on." if note.done else f"{clean(name)} was not {was}.")


@queues.command()
@click.argument("name")
@click.option("--reason", default="", help="Why, for whoever looks.")
@click.option("--no-wait", "at_once", is_flag=True, help="Do not wait until it is empty.")
@url_option
@click.pass_context
def drain(ctx: click.Context, name: str, reason: str, at_once: bool, url: str | None) -> None:
    """Let no more jobs into this queue until it is resumed, and wait until it is empty. What is there runs to its end.

    Whoever enqueues gets an error. Ctrl-C ends the wait, not the drain.
    """
    app = at_hand(ctx, url)
    with audited(app, "drain", of_held("queue", name, reason)) as note:
        app.queues.drain(name, reason=reason)
        note.done = 1
    click.echo(f"{clean(name)} takes no more jobs; whoever enqueues knows within a second.")
    if at_once:
        return
    if not on_store(url or ctx.obj, lambda store: emptied(store, name)):
        raise Problem(f"{clean(name)} was resumed before it was empty")
    click.echo(f"{clean(name)} is empty. To let jobs in again: windlass queues resume {clean(name)}")


async def emptied(store: Store, name: str) -> bool:
    """Wait until a drained queue is empty; False: somebody has resumed it before."""
    began, most = time.monotonic(), 0
    with bar(f"drain {name}") as move:
        while DRAIN + name in await held_in(store):
            early = time.monotonic() - began < SEEN_WITHIN
            lines = [line for line in await store.stats() if line.queue == name]
            left = sum(line.count for line in lines)
            most = max(most, left)
            move(most - left, most, what_is_left(lines))
            if not left and not early:
                return True
            await asyncio.sleep(LOOK_EVERY)
    return False


def what_is_left(lines: Sequence[Line]) -> str:
    """The jobs of a queue in a few words."""
    left = sum(line.count for line in lines)
    later = sum(line.count for line in lines if line.state is State.SCHEDULED)
    return f"{counted(left)} left" + (f", {later:,} of them later" if later else "")
