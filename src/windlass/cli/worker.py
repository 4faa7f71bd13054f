"""`windlass worker` and `windlass dev`. The supervisor lives in this process: only what it needs is imported."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from windlass.cli.output import counted
from windlass.cli.reach import shown
from windlass.config import Concurrency, check_concurrency, check_size, make_config, slots_of
from windlass.errors import ConfigError
from windlass.loader import spec_or_default
from windlass.worker.logs import set_up
from windlass.worker.queues import Queues
from windlass.worker.seat import Spec
from windlass.worker.supervisor import Supervisor

Command = TypeVar("Command", bound=Callable[..., Any])
logger = logging.getLogger("windlass.worker")


def size(text: str) -> int:
    """Bytes: a number, or one with K, M, G or T behind it."""
    try:
        return check_size(text, "--max-memory")
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def slots(text: str) -> Concurrency:
    """A number, or auto."""
    try:
        return check_concurrency(text, "--concurrency")
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def worker_options(command: Command) -> Command:
    """What `worker` and `dev` have in common."""
    for add in (
        click.option("--quiet", is_flag=True, help="Print warnings and errors only."),
        click.option("--max-memory", type=size, metavar="SIZE", help="Replace a process that has more, as 512M."),
        click.option("--max-jobs", type=click.IntRange(0), metavar="N", help="Replace a process after N jobs."),
        click.option("-p", "--processes", type=click.IntRange(1), metavar="N", help="Runner processes."),
        click.option(
            "-c",
            "--concurrency",
            type=slots,
            metavar="N|auto",
            help="Jobs at a time per process; auto: as many as turn out to be good, as long as there is memory.",
        ),
        click.option(
            "-q",
            "--queues",
            metavar="QUEUES",
            help="'a,b': all of a before any of b. 'a:3,b:1': by weight. By default every queue, later ones too.",
        ),
        click.argument("app", metavar="[MODULE:APP]", required=False),
    ):
        command = add(command)
    return command


@click.command()
@worker_options
@click.option("--health", metavar="[HOST:]PORT", help="Answer /livez and /readyz there; without HOST on every address.")
def worker(
    app: str | None,
    health: str | None,
    queues: str | None,
    concurrency: Concurrency | None,
    processes: int | None,
    max_jobs: int | None,
    max_memory: int | None,
    quiet: bool,
) -> None:
    """Run jobs of MODULE:APP until told to stop.

    Ctrl-C or SIGTERM lets running jobs end; the second time, they go back at once, uncharged.
    """
    spec = make_spec(app, queues, concurrency, processes, health)
    supervise(replace(spec, max_jobs=max_jobs, max_memory=max_memory, quiet=quiet), alone)


@click.command()
@worker_options
def dev(
    app: str | None,
    queues: str | None,
    concurrency: Concurrency | None,
    processes: int | None,
    max_jobs: int | None,
    max_memory: int | None,
    quiet: bool,
) -> None:
    """Run jobs of MODULE:APP, and restart on every saved edit of a Python file below this folder."""
    spec = make_spec(app, queues, concurrency, processes or 1)
    supervise(replace(spec, max_jobs=max_jobs, max_memory=max_memory, quiet=quiet, reload=True), with_edits)


def make_spec(
    app: str | None,
    queues: str | None,
    concurrency: Concurrency | None,
    processes: int | None,
    health: str | None = None,
) -> Spec:
    """What was asked for, with what the configuration says of the rest. Raises `ConfigError`."""
    config = make_config(concurrency=concurrency, processes=processes, queues=queues, health=health)
    Queues(config.queues)
    return Spec(
        app=spec_or_default(app),
        concurrency=slots_of(config.concurrency, config.processes),
        adaptive=config.concurrency == "auto",
        processes=config.processes,
        queues=config.queues,
        health=config.health,
    )


def supervise(spec: Spec, run: Callable[[Supervisor], Coroutine[Any, Any, int]]) -> None:
    """Be the supervisor of a worker; exit with its code."""
    set_up(logging.WARNING if spec.quiet else logging.INFO)

    async def main() -> int:
        return await run(Supervisor(spec, spec.processes, on_event=partial(announce, spec)))

    if code := asyncio.run(main()):
        raise SystemExit(code)


def announce(spec: Spec, text: str) -> None:
    """Print what the supervisor tells. Its store's URL means that it is ready: say where jobs are, and which ones."""
    if spec.quiet:
        return
    if "://" in text.partition(" ")[0]:
        each = f"{'up to ' if spec.adaptive else ''}{counted(spec.concurrency, 'slot')} each"
        text = (
            f"worker is ready: {counted(spec.processes, 'runner')}, {each}\n"
            f"  store   {shown(text)}\n  queues  {spec.queues or 'all'}"
            + (f"\n  health  {spec.health}" if spec.health else "")
        )
    click.echo(text, err=True)


async def alone(supervisor: Supervisor) -> int:
    """`windlass worker`."""
    return await supervisor.run()


async def with_edits(supervisor: Supervisor) -> int:
    """`windlass dev`: the worker beside a watch over the files."""
    watching = asyncio.create_task(restart_on_edits(supervisor, Path.cwd()))
    try:
        return await supervisor.run()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def restart_on_edits(supervisor: Supervisor, folder: Path) -> None:
    """Restart the runners whenever a Python file below `folder` changes; many edits at once count as one."""
    from watchfiles import PythonFilter, awatch

    async for changes in awatch(folder, watch_filter=PythonFilter(), step=100, debounce=500):
        names = sorted({Path(path).name for _, path in changes})
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        logger.info("edited: %s%s; restarting", ", ".join(names[:3]), more)
        await supervisor.restart_runners()
