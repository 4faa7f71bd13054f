"""The tasks that tell people of alarms: by webhook, by Slack, by mail."""

import asyncio
import smtplib
import ssl
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import unquote, urlsplit

from msgspec import json

from windlass.alert import TASK, Alert, Email, Message, Slack, Target, Webhook
from windlass.callback import attempt
from windlass.config import Config
from windlass.context import current
from windlass.errors import ConfigError, Fail
from windlass.options import short
from windlass.outward import Outward
from windlass.policy import Retry

RETRY = Retry(attempts=12)
"""For about half a day: after that, nobody wants to hear of it."""

STALE = 43_200.0
"""Seconds, that half a day: for who tries without counting."""

TIMEOUT = 45.0
"""Seconds of one try."""

PATIENCE = 15.0
"""Seconds that a mail server may take for one answer."""


class Host(Protocol):
    """What alerts need of their app."""

    config: Config


Tell = Callable[..., Awaitable[str]]


def by_name(alerts: Iterable[Alert]) -> dict[str, Alert]:
    """The alerts of an app. Raises `ConfigError` for what is none, and where two have one name."""
    found: dict[str, Alert] = {}
    for one in alerts:
        if not isinstance(one, Alert):
            raise ConfigError(f"expected alerts as in Alert('late', queue_age(300), slack(URL)); {short(one)} came")
        if found.setdefault(one.name, one) is not one:
            raise ConfigError(f"two alerts are called {one.name}: give one another name")
    return found


def make_tasks(host: Host, alerts: Iterable[Alert]) -> dict[str, Tell]:
    """The functions that tell of an app's alerts, by the names of their tasks."""
    return {TASK + one.name: make_task(host, one) for one in alerts}


def make_task(host: Host, alert: Alert) -> Tell:
    """The function that tells of one alert."""

    async def tell(kind: str, text: str, since: float, at: int) -> str:
        """Tell one of those who are told; whom."""
        if not 0 <= at < len(alert.targets):
            raise Fail(f"alert {alert.name} tells {len(alert.targets)} by now, and this was for number {at + 1}")
        job = current().job
        message = Message(kind=kind, name=alert.name, text=text, since=since)
        await send(alert.targets[at], message, host, job.id if job else "")
        return repr(alert.targets[at])

    return tell


async def send(target: Target, message: Message, host: Host, id: str) -> None:
    """Tell it once. Raises what says whether to try again; `id` is the same for the same message."""
    if isinstance(target, Email):
        await asyncio.to_thread(mail, target, message)
        return
    body = for_slack(message) if isinstance(target, Slack) else for_webhook(message)
    parts = urlsplit(target.url)
    secrets = host.config.callback_secrets if isinstance(target, Webhook) else ()
    outward = Outward(secrets, [f"{parts.scheme}://{parts.netloc}"])  # the app's own code names it
    signed = outward.sign(f"msg_{id}", int(datetime.now(UTC).timestamp()), body) if outward.signs else {}
    await attempt(target.url, body, signed, outward, late=False)


def for_webhook(message: Message) -> bytes:
    """The message as JSON."""
    data = {"name": message.name, "text": message.text, "since": moment(message.since)}
    now = moment(datetime.now(UTC).timestamp())
    return json.encode({"type": f"alert.{message.kind}", "timestamp": now, "data": data})


def for_slack(message: Message) -> bytes:
    """The message as Slack takes it; nothing in it is a link or a mention."""
    text = message.line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.encode({"text": text})


def moment(seconds: float) -> str | None:
    """A moment as ISO 8601 in UTC; None for none."""
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None


def mail(target: Email, message: Message) -> None:
    """Send it. Raises `Fail` where a password would go out unencrypted; `OSError` or `smtplib.SMTPException`."""
    parts = urlsplit(target.url)
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = target.sender, ", ".join(target.to), message.line[:200]
    letter["Date"] = datetime.now(UTC)
    since = f"\n\nSince {moment(message.since)}." if message.since else ""
    letter.set_content(f"{message.line}{since}\n")
    tls = ssl.create_default_context()
    host = parts.hostname or ""
    with (
        smtplib.SMTP_SSL(host, parts.port or 465, timeout=PATIENCE, context=tls)
        if parts.scheme == "smtps"
        else smtplib.SMTP(host, parts.port or 25, timeout=PATIENCE) as server
    ):
        server.ehlo()
        secure = parts.scheme == "smtps"
        if not secure and server.has_extn("starttls"):
            server.starttls(context=tls)
            secure = True
        if parts.username:
            if not secure:
                raise Fail(f"{host} offers no TLS, so no password is sent to it: use smtps://, or leave the user out")
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(letter)
