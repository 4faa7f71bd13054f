"""How data is shown: as JSON, or as text that reads well on a terminal and in a pipe alike."""

import json
import os
import re
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from windlass.config import make_config
from windlass.model import Attempt, JobRecord, State
from windlass.secret import HIDDEN, RESULT, hide
from windlass.values import STEERING, visible
from windlass.vault import ENCRYPTED, Vault, is_sealed

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
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


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


def duration(seconds: float) -> str:
    """A number of seconds as people say it."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}".replace(".0 ", " ")
    return "1 min"


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


def iso(moment: float | None) -> str | None:
    """A moment as JSON has it: ISO 8601, UTC."""
    try:
        return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{moment:g} s after 1970"


def decoded(data: bytes | None) -> Any:
    """Stored JSON as values; text that is none is shown as it is."""
    if data is None:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")


def vault() -> Vault:
    """What the keys of this shell open; made once per command."""
    known = click.get_current_context().find_root().meta
    if VAULT not in known:
        known[VAULT] = Vault(make_config().keys)
    found: Vault = known[VAULT]
    return found


def arguments_of(job: JobRecord) -> Any:
    """The arguments, as far as they may be shown."""
    found = readable(job.args)
    return hide(found, secrets_of(job)) if isinstance(found, dict) else found


def result_of(job: JobRecord) -> Any:
    """The result, as far as it may be shown."""
    return HIDDEN if job.result is not None and RESULT in secrets_of(job) else readable(job.result)


def secrets_of(job: JobRecord) -> Collection[str]:
    """The names of arguments that nobody shall see."""
    found = readable(job.options)
    names = found.get("secret") if isinstance(found, dict) else None
    return names if isinstance(names, list) else ()


def readable(data: bytes | None) -> Any:
    """Stored JSON as values, unless it is encrypted and its key is not here."""
    return ENCRYPTED if is_sealed(data) else decoded(data)


def job_data(job: JobRecord) -> dict[str, Any]:
    """A job as `--json` prints it."""
    job = vault().reveal(job)
    return {
        "id": job.id,
        "task": job.task,
        "state": str(job.state),
        "queue": job.queue,
        "priority": job.priority,
        "attempt": job.attempt,
        "lost": job.lost,
        "args": arguments_of(job),
        "options": readable(job.options),
        "tags": list(job.tags),
        "unique": job.unique,
        "runner": job.runner,
        "cancelling": job.cancelling,
        "reason": job.reason,
        "progress": job.progress
        and {"done": job.progress.done, "total": job.progress.total, "note": job.progress.note},
        "result": result_of(job),
        "enqueued_at": iso(job.enqueued_at),
        "run_at": iso(job.run_at),
        "started_at": iso(job.started_at),
        "finished_at": iso(job.finished_at),
        "expires_at": iso(job.expires_at),
        "attempts": [attempt_data(attempt) for attempt in job.attempts],
    }


def attempt_data(attempt: Attempt) -> dict[str, Any]:
    """One kept attempt as `--json` prints it."""
    failure = attempt.failure
    return {
        "attempt": attempt.attempt,
        "ending": str(attempt.ending),
        "runner": attempt.runner,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "error": failure and {"type": failure.type, "message": failure.message, "traceback": failure.traceback},
    }
