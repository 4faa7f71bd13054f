"""How data is shown: as JSON, or as text that reads well on a terminal and in a pipe alike."""

import json
import os
import re
import time
from collections.abc import Sequence
from datetime import datetime

import click

from windlass.config import make_config
from windlass.model import State
from windlass.values import STEERING, visible
from windlass.vault import Vault
from windlass.view import duration

COLOURS = {
    State.WAITING: "cyan",
    State.SCHEDULED: "cyan",
    State.READY: "blue",
    State.RUNNING: "yellow",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.CANCELLED: "magenta",
}

VAULT = "windlass.vault"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def colours() -> bool | None:
    """Whether to colour: never under NO_COLOR or on a dumb terminal, else (None) on a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def print_json(data: object) -> None:
    """One JSON document on stdout."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    click.echo(STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Rows in columns as wide as their widest cell; the columns in `right` are numbers. The same in a pipe."""
    every = [[click.style(name, bold=True) for name in head], *rows]
    widths = [max(width(row[at]) for row in every) for at in range(len(head))]
    for row in every:
        cells = [pad(cell, widths[at], at in right) for at, cell in enumerate(row)]
        click.echo("  ".join(cells).rstrip())


def pad(cell: str, to: int, right: bool) -> str:
    """A cell filled with spaces to its column's width."""
    space = " " * (to - width(cell))
    return space + cell if right else cell + space


def width(cell: str) -> int:
    """The characters of a cell that are seen."""
    return len(_ESCAPES.sub("", cell))


def clean(text: str) -> str:
    """Stored text as it may be shown."""
    return visible(text.replace("\r\n", "\n"))


def cell(text: str) -> str:
    """The same on one line."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def one_line(text: str, most: int = 100) -> str:
    """The first line of a text, cut to `most` characters."""
    line = clean(text).strip().partition("\n")[0]
    return line if len(line) <= most else f"{line[: most - 1]}…"


def coloured(state: State) -> str:
    """A state in its colour."""
    return click.style(str(state), fg=COLOURS[state])


def counted(number: int, what: str = "job") -> str:
    """A number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def ago(moment: float | None) -> str:
    """A moment, as seconds since the epoch, seen from now."""
    if moment is None:
        return ""
    age = time.time() - moment
    return f"{duration(age)} ago" if age >= 0 else f"in {duration(-age)}"


def clock_time(moment: float) -> str:
    """A moment in local time and relative to now."""
    try:
        local = datetime.fromtimestamp(moment).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{moment:g} s after 1970"  # no calendar has it
    return f"{local:%Y-%m-%d %H:%M:%S} ({ago(moment)})"


def vault() -> Vault:
    """What the keys of this shell open; made once per command."""
    known = click.get_current_context().find_root().meta
    if VAULT not in known:
        known[VAULT] = Vault(make_config().keys)
    found: Vault = known[VAULT]
    return found
