"""`windlass worker` and `windlass dev`. The supervisor lives in this process: only what it needs is imported."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from windlass.cli.beside import keep
from windlass.cli.output import counted
from windlass.cli.reach import log_option, shown
from windlass.config import Concurrency, check_concurrency, check_size, make_config, slots_of
from windlass.errors import ConfigError
from windlass.loader import spec_or_default
from windlass.worker.logs import is_json, set_up
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
        log_option,
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
    log_format: str | None,
) -> None:
    """Run jobs of MODULE:APP until told to stop.

    Ctrl-C or SIGTERM lets running jobs end; the second time, they go back at once, uncharged.
    """
    set_up(logging.WARNING if quiet else logging.INFO, log_format)
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
    log_format: str | None,
) -> None:
    """Run jobs of MODULE:APP, restarted on every saved edit of a Python file below this folder, beside a dashboard.

    The dashboard answers this machine only; where it is, is printed. It needs `pip install 'windlass[dashboard]'`.
    """
    set_up(logging.WARNING if quiet else logging.INFO, log_format)
    spec = make_spec(app, queues, concurrency, processes or 1)
    spec = replace(spec, max_jobs=max_jobs, max_memory=max_memory, quiet=quiet, reload=True)
    supervise(spec, partial(with_edits, spec))


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


def supervise(spec: Spec, run: Callable[[Supervisor, asyncio.Event], Coroutine[Any, Any, int]]) -> None:
    """Be the supervisor of a worker; exit with its code. `run` is given an event of its readiness too."""

    async def main() -> int:
        ready = asyncio.Event()

        def hear(text: str) -> None:
            announce(spec, text)
            if is_url(text):
                ready.set()

        return await run(Supervisor(spec, spec.processes, on_event=hear), ready)

    if code := asyncio.run(main()):
        raise SystemExit(code)


def is_url(text: str) -> bool:
    """Whether the supervisor tells its store's URL: it is ready."""
    return "://" in text.partition(" ")[0]


def announce(spec: Spec, text: str) -> None:
    """Print what the supervisor tells; when it is ready, where jobs are, and which ones."""
    if spec.quiet:
        return
    if is_url(text):
        each = f"{'up to ' if spec.adaptive else ''}{counted(spec.concurrency, 'slot')} each"
        text = (
            f"worker is ready: {counted(spec.processes, 'runner')}, {each}\n"
            f"  store   {shown(text)}\n  queues  {spec.queues or 'all'}"
            + (f"\n  health  {spec.health}" if spec.health else "")
        )
    if is_json():
        logger.info("%s", text)
    else:
        click.echo(text, err=True)


async def alone(supervisor: Supervisor, _: asyncio.Event) -> int:
    """`windlass worker`."""
    return await supervisor.run()


async def with_edits(spec: Spec, supervisor: Supervisor, ready: asyncio.Event) -> int:
    """`windlass dev`: the worker beside a dashboard and a watch over the files."""
    edited = asyncio.Event()

    async def show() -> None:
        await ready.wait()
        await keep(spec.app, edited, partial(announce, spec))

    others = [asyncio.create_task(restart_on_edits(supervisor, Path.cwd(), edited)), asyncio.create_task(show())]
    try:
        return await supervisor.run()
    finally:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def restart_on_edits(supervisor: Supervisor, folder: Path, edited: asyncio.Event) -> None:
    """Restart the runners whenever a Python file below `folder` changes, and tell; many edits at once count as one."""
    from watchfiles import PythonFilter, awatch

    async for changes in awatch(folder, watch_filter=PythonFilter(), step=100, debounce=500):
        names = sorted({Path(path).name for _, path in changes})
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        logger.info("edited: %s%s; restarting", ", ".join(names[:3]), more)
        await supervisor.restart_runners()
        edited.set()
