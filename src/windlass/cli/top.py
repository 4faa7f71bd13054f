"""`windlass top`: the live picture in a terminal, with the dashboard's actions."""

import sys

import click

from windlass.app import App
from windlass.cli import USAGE, Problem
from windlass.cli.reach import find_url, refuse_missing, url_option
from windlass.errors import ConfigError


@click.command()
@url_option
def top(url: str | None) -> None:
    """Watch queues, jobs, workers and schedules live, and act on them.

    Upper-case keys ask before they do anything. Needs `pip install 'windlass[tui]'`.
    """
    found = find_url(url)
    refuse_missing(found)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Problem("windlass top needs a terminal; windlass queues, jobs list and workers print the same", USAGE)
    try:
        from windlass.cli.screen import run
    except ModuleNotFoundError as error:
        raise ConfigError(f"windlass top needs {error.name}: pip install 'windlass[tui]'") from error
    run(App(found))
