"""`windlass gates`: limits and rates, who holds them; change them, or slow them down."""

from collections.abc import Sequence

import click

from windlass.audit import of_gate, of_held
from windlass.cli import Group
from windlass.cli.output import cell, clean, print_json, table
from windlass.cli.reach import app_at, json_option, on_store, url_option
from windlass.cli.trail import audited
from windlass.errors import ConfigError
from windlass.gates import GateInfo, gates_in
from windlass.limits import limit as limit_of
from windlass.limits import rate as rate_of
from windlass.view import admits, duration, gate_data

HOLDERS = 3
"""Jobs that are named of those which hold a gate."""


@click.group(cls=Group)
def gates() -> None:
    """List, set, pause and slow down limits and rates."""


@gates.command("list")
@url_option
@json_option
def list_gates(url: str | None, as_json: bool) -> None:
    """List limits and rates: what they admit, who holds how much, how many wait."""
    found = on_store(url, gates_in)
    if as_json:
        print_json([gate_data(one) for one in found])
    elif found:
        print_gates(found)
    else:
        click.echo("There are no limits or rates: say them with @app.task(gates=limit(…)).")


key_option = click.option("--key", help="For this value of its key alone.")


@gates.command("set")
@click.argument("name")
@key_option
@click.option("--limit", "most", type=int, help="So many at once.")
@click.option("--rate", "pace", metavar="RATE", help="So many starts, as in 100/minute or 5/10s.")
@click.option("--burst", type=int, default=1, show_default=True, help="So many of them may come together.")
@click.option("--open", "is_open", is_flag=True, help="No limit and no rate.")
@url_option
def set_gate(
    name: str, key: str | None, most: int | None, pace: str | None, burst: int, is_open: bool, url: str | None
) -> None:
    """Change what a gate admits, for all its keys or for one; what runs goes on. For all it counts until a worker
    starts whose code declares the gate in another way than before, for one until `windlass gates reset`."""
    if (most is not None) + (pace is not None) + is_open != 1:
        raise ConfigError("expected one of --limit, --rate and --open")
    gate = rate_of(pace, burst=burst) if pace is not None else limit_of(most)
    app = app_at(url)
    name = app.gates.full_name(name, key)
    with audited(app, "limit", of_gate(name, most if pace is None else pace, burst)) as note:
        app.gates.set(name, gate)
        note.done = 1
    click.echo(f"{clean(name)} is set.")


@gates.command()
@click.argument("name")
@key_option
@url_option
def reset(name: str, key: str | None, url: str | None) -> None:
    """Drop what was set for one key of a gate, its pause too: it goes by what counts for all keys."""
    app = app_at(url)
    name = app.gates.full_name(name, key)
    with audited(app, "reset", of_held("key", name)) as note:
        note.done = int(app.gates.reset(name))
    click.echo(f"{clean(name)} goes by the limit of all keys{'' if note.done else ', as it did'}.")


@gates.command()
@click.argument("name")
@key_option
@click.option("--reason", default="", help="Why, for whoever looks.")
@url_option
def pause(name: str, key: str | None, reason: str, url: str | None) -> None:
    """Start no more jobs of one key of a gate until it is resumed. What runs goes on."""
    app = app_at(url)
    name = app.gates.full_name(name, key)
    with audited(app, "pause", of_held("key", name, reason)) as note:
        app.gates.pause(name, reason=reason)
        note.done = 1
    click.echo(f"{clean(name)} is paused, from now on.")
    if not any(one.holders or one.waiting for one in app.gates.list() if one.name == name):
        click.echo("No job of it runs or waits just now: if you expected some, see windlass gates list for its name.")


@gates.command()
@click.argument("name")
@key_option
@url_option
def resume(name: str, key: str | None, url: str | None) -> None:
    """Go on with a key that is paused, by the limit that it had before."""
    app = app_at(url)
    name = app.gates.full_name(name, key)
    with audited(app, "resume", of_held("key", name)) as note:
        note.done = int(app.gates.resume(name))
    click.echo(f"{clean(name)} goes on." if note.done else f"{clean(name)} was not paused.")


@gates.command()
@click.argument("name")
@click.argument("seconds", type=float)
@key_option
@url_option
def slow(name: str, seconds: float, key: str | None, url: str | None) -> None:
    """Start nothing through a gate with a rate for so many SECONDS."""
    app = app_at(url)
    name = app.gates.full_name(name, key)
    with audited(app, "slow", f"{name} for {duration(seconds)}") as note:
        app.gates.slow(name, seconds)
        note.done = 1
    click.echo(f"Nothing starts through {clean(name)} for {duration(seconds)}.")


def print_gates(found: Sequence[GateInfo]) -> None:
    """Limits and rates, who holds them, and how many wait."""
    table(("GATE", "ADMITS", "HELD", "WAITING", "BY"), [gate_row(one) for one in found], right=(2, 3))


def gate_row(one: GateInfo) -> tuple[str, ...]:
    """A gate as a row of the table."""
    by = ", ".join(list(one.holders)[:HOLDERS]) + (", …" if len(one.holders) > HOLDERS else "")
    return cell(one.name), cell(admits(one)), f"{sum(one.holders.values()):,}", f"{one.waiting:,}", cell(by)
