"""`windlass move`: all that lives in one store, carried to another."""

import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from windlass.cli import FAILED, USAGE, Problem
from windlass.cli.bars import bar
from windlass.cli.output import counted, print_json
from windlass.cli.reach import find_url, json_option, on_store, opened, shown
from windlass.move import Move, Moved
from windlass.store.contract import Store

T = TypeVar("T")

SHOWN = 20
"""How many of those that stayed are told one by one."""


@click.command()
@click.argument("from_url")
@click.argument("to_url")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def move(from_url: str, to_url: str, yes: bool, as_json: bool) -> None:
    """Carry all live jobs, schedules and settings from one store to another.

    Stop the workers of FROM_URL first; workers of TO_URL may run. Finished jobs stay where they are, and so does what
    FROM_URL remembers of outboxes: let them run empty first. If this is interrupted, run the same command again: it
    goes on, and nothing is lost or doubled. Exit code 1: something had to stay in FROM_URL, and is named.
    """
    if not yes:
        confirm(from_url, to_url, on_both(from_url, to_url, count))
    moved = on_both(from_url, to_url, carry)
    if as_json:
        print_json({"jobs": moved.jobs, "documents": moved.docs, "reaped": moved.reaped, "left": moved.left})
    else:
        report(moved, from_url, to_url)
    if moved.left:
        raise SystemExit(FAILED)


def on_both(from_url: str, to_url: str, work: Callable[[Store, Store], Awaitable[T]]) -> T:
    """Open both stores, do `work` with them, close them; a target that is not there yet is made."""
    find_url(to_url)

    async def run(source: Store) -> T:
        async with opened(to_url) as target:
            return await work(source, target)

    return on_store(from_url, run)


async def count(source: Store, target: Store) -> int:
    """How many jobs there are to move. Raises if they cannot be moved now."""
    move = Move(source, target)
    await move.check()
    return await move.total()


def confirm(from_url: str, to_url: str, total: int) -> None:
    """Ask before anything is moved."""
    question = f"Move {counted(total)} from {shown(from_url)} to {shown(to_url)}?"
    if not sys.stdin.isatty():
        raise Problem(f"{question} Nobody is here to ask: add --yes to do it", USAGE)
    click.confirm(question, abort=True, err=True)


async def carry(source: Store, target: Store) -> Moved:
    """Move, with a bar where somebody sees it."""
    total = await Move(source, target).total()
    with bar("move") as show:
        return await Move(source, target, tell=lambda moved: show(moved, max(moved, total), "")).run()


def report(moved: Moved, from_url: str, to_url: str) -> None:
    """Say what was moved and what was not."""
    docs = f" and {counted(moved.docs, 'document')}" if moved.docs else ""
    click.echo(f"{counted(moved.jobs)}{docs} moved from {shown(from_url)} to {shown(to_url)}")
    for worker in moved.reaped:
        click.echo(f"worker {worker[:8]} was dead: its jobs were taken back first", err=True)
    for id, reason in list(moved.left.items())[:SHOWN]:
        click.echo(f"Error: {id} stays in {shown(from_url)}: {reason}", err=True)
    if len(moved.left) > SHOWN:
        click.echo(f"Error: {len(moved.left) - SHOWN:,} more stay; --json names them all", err=True)
