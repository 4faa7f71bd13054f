"""`windlass gates`: limits and rates, who holds them; change them, or slow them down."""

from collections.abc import Sequence

import click

from windlass.audit import of_gate
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
    """List, set and slow down limits and rates."""


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


@gates.command("set")
@click.argument("name")
@click.option("--limit", "most", type=int, help="So many at once.")
@click.option("--rate", "pace", metavar="RATE", help="So many starts, as in 100/minute or 5/10s.")
@click.option("--burst", type=int, default=1, show_default=True, help="So many of them may come together.")
@click.option("--open", "is_open", is_flag=True, help="No limit and no rate.")
@url_option
def set_gate(name: str, most: int | None, pace: str | None, burst: int, is_open: bool, url: str | None) -> None:
    """Change what a gate admits, for all its keys; what runs goes on. It counts until a worker starts whose code
    declares the gate in another way than before."""
    if (most is not None) + (pace is not None) + is_open != 1:
        raise ConfigError("expected one of --limit, --rate and --open")
    gate = rate_of(pace, burst=burst) if pace is not None else limit_of(most)
    app = app_at(url)
    with audited(app, "limit", of_gate(name, most if pace is None else pace, burst)) as note:
        app.gates.set(name, gate)
        note.done = 1
    click.echo(f"{clean(name)} is set.")


@gates.command()
@click.argument("name")
@click.argument("seconds", type=float)
@click.option("--key", help="For this value of its key.")
@url_option
def slow(name: str, seconds: float, key: str | None, url: str | None) -> None:
    """Start nothing through a gate with a rate for so many SECONDS."""
    app = app_at(url)
    with audited(app, "slow", f"{name}{'' if key is None else f' {key}'} for {duration(seconds)}") as note:
        app.gates.slow(name, seconds, key=key)
        note.done = 1
    click.echo(f"Nothing starts through {clean(name)} for {duration(seconds)}.")


def print_gates(found: Sequence[GateInfo]) -> None:
    """Limits and rates, who holds them, and how many wait."""
    table(("GATE", "ADMITS", "HELD", "WAITING", "BY"), [gate_row(one) for one in found], right=(2, 3))


def gate_row(one: GateInfo) -> tuple[str, ...]:
    """A gate as a row of the table."""
    by = ", ".join(list(one.holders)[:HOLDERS]) + (", …" if len(one.holders) > HOLDERS else "")
    return cell(one.name), admits(one), f"{sum(one.holders.values()):,}", f"{one.waiting:,}", cell(by)
