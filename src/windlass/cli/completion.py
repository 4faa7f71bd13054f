"""`windlass completion`: the script that makes a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

from windlass.cli import cli


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    bash: add `eval "$(windlass completion bash)"` to ~/.bashrc. zsh: the same with zsh, in ~/.zshrc.
    fish: `windlass completion fish > ~/.config/fish/completions/windlass.fish`.
    """
    found = get_completion_class(shell)
    assert found
    click.echo(found(cli, {}, "windlass", "_WINDLASS_COMPLETE").source())
