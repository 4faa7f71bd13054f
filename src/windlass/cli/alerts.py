"""`windlass alerts`: what is watched, whether it arrives, and a look from outside of the workers."""

import asyncio
import contextlib
from uuid import uuid4

import click
from msgspec import MsgspecError, json

from windlass import blocking
from windlass.alert import QUEUE, TASK, Message, Target, Waiting, Watched, read
from windlass.app import App
from windlass.cli import FAILED, Group
from windlass.cli.output import cell, clean, clock_time, print_json, table
from windlass.cli.reach import json_option, on_store, url_option
from windlass.errors import ConfigError, Conflict
from windlass.loader import load, spec_or_default
from windlass.model import Filter, JobRecord, Line, State, Verb
from windlass.notice import send
from windlass.store.contract import ALERT, Store
from windlass.store.documents import all_docs, named, now_of
from windlass.view import iso, nobody
from windlass.worker.alarms import Alarms, declared

ENOUGH = 60.0
"""Seconds that one of those who are told may take."""


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
            error = blocking.run(tried(host, target, message, str(uuid4())))
            click.echo(f"{cell(name)}: {cell(repr(target))}: {cell(error) or 'sent'}")
            failed = failed or bool(error)
    if failed:
        raise SystemExit(FAILED)


@alerts.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
def check(app: str | None) -> None:
    """Look at all alerts of MODULE:APP now, without a worker; for cron, once a minute.

    What is to be told while no worker can tell it, is told from here. The exit code is 1 if that did not succeed.
    """
    spec = spec_or_default(app)
    host = load(spec)
    if not on_store(host.config.url, lambda store: look(store, host, spec), make=True):
        raise SystemExit(FAILED)


async def look(store: Store, host: App, spec: str) -> bool:
    """Look at all alerts, and tell what nobody else can; whether all of that was told."""
    there = await named(store, ALERT, host.alerts)
    now = await now_of(store)
    new = {name: alert for name, alert in host.alerts.items() if name not in there}
    with contextlib.suppress(Conflict):  # a worker starts just now
        await store.save(declared(new, {}, spec, now))
    for message in await Alarms(store).look_now():
        click.echo(clean(message.line))
    told = [await hand_over(store, host, job) for job in await stranded(store)]
    return all(told)


async def stranded(store: Store) -> list[JobRecord]:
    """The messages that wait and that no running worker would send."""
    workers = await store.workers()
    waiting = [
        job
        for state in (State.READY, State.SCHEDULED)
        for job in (await store.find(Filter(queue=QUEUE, state=state))).jobs
    ]
    return [job for job in waiting if nobody(Line(queue=QUEUE, task=job.task, state=State.READY, count=1), workers)]


async def hand_over(store: Store, host: App, job: JobRecord) -> bool:
    """Send a waiting message from here, and drop its job; whether it was sent, or is none of this app's."""
    alert = host.alerts.get(job.task.removeprefix(TASK))
    try:
        args = json.decode(job.args, type=Waiting)
    except MsgspecError:
        return True
    if alert is None or not 0 <= args.at < len(alert.targets):
        return True
    target = alert.targets[args.at]
    message = Message(kind=args.kind, name=alert.name, text=args.text, since=args.since)
    error = await tried(host, target, message, job.id)
    if error:
        click.echo(f"{cell(alert.name)}: {cell(repr(target))}: {cell(error)}", err=True)
    else:
        await store.act([job.id], Verb.DELETE)
    return not error


async def tried(host: App, target: Target, message: Message, id: str) -> str:
    """Tell it once; why it did not arrive, or an empty text."""
    try:
        await asyncio.wait_for(send(target, message, host, id), ENOUGH)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""
