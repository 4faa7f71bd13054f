"""`windlass alerts`: what is watched, whether it arrives, and a look from outside of the workers."""

from uuid import uuid4

import click
from msgspec import json

from windlass import blocking, standby
from windlass.alert import Message, Watched, read
from windlass.app import App
from windlass.cli import FAILED, Group
from windlass.cli.output import cell, clean, clock_time, print_json, table
from windlass.cli.reach import json_option, on_store, url_option
from windlass.errors import ConfigError
from windlass.loader import load, spec_or_default
from windlass.store.contract import ALERT, Store
from windlass.store.documents import all_docs
from windlass.view import iso
from windlass.worker.alarms import Alarms


@click.group(cls=Group)
def alerts() -> None:
    """Show alerts, try whether they arrive, and look at them without a worker."""


@alerts.command("list")
@url_option
@json_option
def list_alerts(url: str | None, as_json: bool) -> None:
    """List the alerts that workers have brought into the store, and how it stands with each."""

    async def read_all(store: Store) -> list[tuple[str, Watched | None]]:
        return [(doc.name, read(doc.body)) async for doc in all_docs(store, ALERT)]

    found = on_store(url, read_all)
    if as_json:
        print_json([data_of(name, one) for name, one in found])
    elif found:
        table(("ALERT", "RULE", "LOOKED AT", "NOW"), [row(name, one) for name, one in found])
    else:
        click.echo("There are no alerts: say them with App(alerts=[…]); a worker brings them into the store.")


def row(name: str, one: Watched | None) -> tuple[str, ...]:
    """An alert as a row of the table."""
    if one is None:
        return cell(name), "", "", click.style("cannot be read: made by another version", fg="red")
    state = "well"
    if one.since:
        told = "" if one.told else ", not told yet"
        state = click.style(f"since {clock_time(one.since)}{told}: {clean(one.text)}", fg="red")
    return cell(name), clean(str(one.rule)), clock_time(one.looked_at) if one.looked_at else "never", state


def data_of(name: str, one: Watched | None) -> dict[str, object]:
    """An alert as JSON."""
    if one is None:
        return {"name": name, "readable": False}
    return {
        "name": name,
        "readable": True,
        "rule": json.decode(json.encode(one.rule)),
        "quiet": one.quiet,
        "app": one.origin,
        "since": iso(one.since or None),
        "text": one.text,
        "told": one.told,
        "looked_at": iso(one.looked_at or None),
    }


@alerts.command("test")
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option("--name", "names", multiple=True, metavar="ALERT", help="Only this alert; may be repeated.")
def try_alerts(app: str | None, names: tuple[str, ...]) -> None:
    """Send a test message, now and from here, to all who are told by the alerts of MODULE:APP."""
    host = load(app)
    for name in names:
        if name not in host.alerts:
            raise ConfigError(f"there is no alert {name}; expected one of {', '.join(host.alerts) or 'none'}")
    failed = False
    for name in names or host.alerts:
        rule = host.alerts[name].rule
        message = Message(kind="test", name=name, text=f"a test; the rule is: {rule}")
        for target in host.alerts[name].targets:
            error, _ = blocking.run(standby.tried(host, target, message, str(uuid4())))
            click.echo(f"{cell(name)}: {cell(repr(target))}: {cell(error) or 'sent'}")
            failed = failed or bool(error)
    if failed:
        raise SystemExit(FAILED)


@alerts.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
def check(app: str | None) -> None:
    """Look at all alerts of MODULE:APP now, without a worker; for cron, once a minute.

    What is to be told while no worker can tell it, is told from here. The exit code is 1 if that did not succeed.
    While another process is telling, it says so, and leaves it to that one.
    """
    spec = spec_or_default(app)
    host = load(spec)
    if not on_store(host.config.url, lambda store: look(store, host, spec), make=True):
        raise SystemExit(FAILED)


async def look(store: Store, host: App, spec: str) -> bool:
    """Look at all alerts, and tell what nobody else can; whether all of that was told."""
    await standby.bring(store, host, spec)
    for message in await Alarms(store).look_now():
        click.echo(clean(message.line))
    tried = await standby.hand_over(store, host)
    if tried is None:
        click.echo("Messages wait, and another process is telling just now: they are left to it.", err=True)
    failed = [one for one in tried or () if one.error]
    for one in failed:
        click.echo(f"{cell(one.who)}: {cell(one.error)}", err=True)
    return not failed
