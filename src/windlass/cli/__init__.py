"""The command `windlass`. A command's module is imported when that command runs, so that each starts fast."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click

from windlass.errors import CallError, ConfigError, EncodeError, UnknownTask, WindlassError

FAILED, USAGE, UNHEALTHY = 1, 2, 3
MISTAKES = (CallError, ConfigError, EncodeError, UnknownTask)
"""Errors of whoever wrote the command or the configuration, not of the work."""

COMMANDS = {
    "worker": ("windlass.cli.worker", "Run jobs, in processes that are kept alive."),
    "dev": ("windlass.cli.worker", "Run jobs beside a dashboard, restarted on every saved edit."),
    "enqueue": ("windlass.cli.enqueue", "Enqueue one job from the shell."),
    "jobs": ("windlass.cli.jobs", "List, show, watch, retry, cancel and delete jobs."),
    "queues": ("windlass.cli.queues", "Show what is queued and what nobody runs; pause and resume."),
    "gates": ("windlass.cli.gates", "List, set, pause and slow down limits and rates."),
    "alerts": ("windlass.cli.alerts", "Show alerts, try whether they arrive, look at them now."),
    "schedules": ("windlass.cli.schedules", "List, show, pause, trigger and delete schedules."),
    "workers": ("windlass.cli.workers", "Show the workers and what they take; drain one."),
    "dashboard": ("windlass.cli.dashboard", "Serve the dashboard: see and act in a browser."),
    "top": ("windlass.cli.top", "Watch and act in the terminal, live."),
    "migrate": ("windlass.cli.doctor", "Bring the store's schema up to date."),
    "move": ("windlass.cli.move", "Carry all live jobs to another store."),
    "doctor": ("windlass.cli.doctor", "Check the store, the machine and the workers."),
    "keygen": ("windlass.cli.keygen", "Make keys for the encryption of payloads."),
    "completion": ("windlass.cli.completion", "Print the script for completion in a shell."),
}
"""Every command: the module that has it under its name, and its line in the help."""


class Problem(click.ClickException):
    """An error of ours as click shows it: `Error: …` on stderr, no traceback."""

    def __init__(self, error: Exception | str, code: int = FAILED) -> None:
        from windlass.cli.output import clean

        super().__init__(clean(str(error)))
        self.__dict__["exit_code"] = code  # click has it as a class variable


class Group(click.Group):
    """A group that turns errors of ours into messages and guesses what a mistyped command meant."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that Windlass raised at its caller ends it without a traceback."""
        try:
            return super().invoke(ctx)
        except WindlassError as error:
            raise Problem(error, USAGE if isinstance(error, MISTAKES) else FAILED) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; for an unknown one the error names those close to it."""
        name = args[0]
        if name in self.list_commands(ctx) or name.startswith("-"):
            return super().resolve_command(ctx, args)
        close = get_close_matches(name, self.list_commands(ctx), 2)
        guess = f" Did you mean {' or '.join(close)}?" if close else ""
        raise click.UsageError(f"there is no command {name!r}.{guess}", ctx)


class Lazy(Group):
    """The root: knows its commands by name, and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("windlass"), prog_name="windlass", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Background jobs that can be trusted.

    MODULE:APP names your app, as in `shop.tasks:app`. Without it, WINDLASS_APP and then `[tool.windlass] app` in
    pyproject.toml are asked.
    """
    from windlass.cli.output import colours

    ctx.color = colours()


def main(args: Sequence[str] | None = None) -> None:
    """The entry point: run the command line and exit with its code."""
    cli.main(args=args, prog_name="windlass")
