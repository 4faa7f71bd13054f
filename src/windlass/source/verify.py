"""Who sent a webhook: the signatures of Standard Webhooks, GitHub and Stripe, over the bytes as they came."""

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from windlass.errors import ConfigError
from windlass.signature import standard_key, standard_signature

Verify = Callable[[Mapping[str, str], bytes, float], str | None]
"""Is given the headers (by names in lower case), the body and the time (seconds since the epoch). Returns the sender's
id of this delivery, or None where it has none; raises `Refused`."""

TOLERANCE = 300.0
"""Seconds that the time in a signature may be off."""

ID = re.compile(r"[!-~]{1,256}")
MOMENT = re.compile(r"[0-9]{1,12}")


class Refused(Exception):
    """A request is not from whom it says. The text is told to the sender: put no secret into it."""


def standard_webhooks(*secrets: str) -> Verify:
    """The scheme of standardwebhooks.com: https://github.com/standard-webhooks/standard-webhooks.

    One secret (`whsec_` and base64), or two while one replaces the other; either may have signed. Headers named
    `svix-…` are taken too. Raises `ConfigError` for what is no secret.
    """
    keys = [standard_key(one, "standard_webhooks(…)") for one in some("standard_webhooks", secrets)]

    def verify(headers: Mapping[str, str], body: bytes, now: float) -> str:
        name = "svix" if "svix-id" in headers and "webhook-id" not in headers else "webhook"
        id, sent, given = (headers.get(f"{name}-{part}", "") for part in ("id", "timestamp", "signature"))
        if not ID.fullmatch(id) or "." in id:  # with a point in it, it could end elsewhere than it was signed
            raise Refused("expected an id without points in the header webhook-id")
        check_time(sent, now)
        check_signature([standard_signature(key, id, sent, body) for key in keys], given.split(" "))
        return id

    return verify


def github(*secrets: str) -> Verify:
    """GitHub's X-Hub-Signature-256, with one secret, or two while one replaces the other.

    GitHub signs the body alone: neither the time nor X-GitHub-Delivery, the id of the delivery. Raises `ConfigError`
    for what is no secret.
    """
    keys = [one.encode() for one in some("github", secrets)]

    def verify(headers: Mapping[str, str], body: bytes, now: float) -> str:
        given = headers.get("x-hub-signature-256", "")
        check_signature([f"sha256={hmac.digest(key, body, 'sha256').hex()}" for key in keys], [given])
        id = headers.get("x-github-delivery", "")
        if not ID.fullmatch(id):
            raise Refused("expected an id in the header X-GitHub-Delivery")
        return id

    return verify


def stripe(*secrets: str) -> Verify:
    """Stripe's Stripe-Signature, with one secret of an endpoint (`whsec_…`), or two while one replaces the other.

    The id is the event's own, in the body. Raises `ConfigError` for what is no secret.
    """
    keys = [one.encode() for one in some("stripe", secrets)]

    def verify(headers: Mapping[str, str], body: bytes, now: float) -> str:
        parts = [part.strip().partition("=")[::2] for part in headers.get("stripe-signature", "").split(",")]
        sent = "".join(value for name, value in parts if name == "t")
        check_time(sent, now)
        message = f"{sent}.".encode() + body
        wanted = [hmac.digest(key, message, "sha256").hex() for key in keys]
        check_signature(wanted, [value for name, value in parts if name == "v1"])
        return event_id(body)

    return verify


def unsigned(headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Takes whatever comes: for addresses that only trusted senders reach. Nothing tells a repeated request from a new
    one."""


# Parts


def check_time(sent: str, now: float) -> None:
    """Raise `Refused` for a message that is too old, or from the future."""
    if not MOMENT.fullmatch(sent):
        raise Refused("expected the time of the message, in seconds since the epoch, beside its signature")
    if abs(now - int(sent)) > TOLERANCE:
        raise Refused(f"the time of the message is {now - int(sent):.0f} s ago, where {TOLERANCE:.0f} s are allowed")


def check_signature(wanted: Iterable[str], given: Sequence[str]) -> None:
    """Raise `Refused` unless one of those given is one of those wanted. Takes as long whatever was given."""
    came = [one.encode("utf-8", "surrogateescape") for one in given]
    fits = [hmac.compare_digest(right.encode(), one) for right in wanted for one in came]
    if not any(fits):
        raise Refused("no signature that fits came with the message")


def event_id(body: bytes) -> str:
    """The id in a body that is known to be Stripe's."""
    try:
        event: Any = msgspec.json.decode(body)
    except Exception:
        event = None
    id = event.get("id") if isinstance(event, dict) else None
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise Refused("expected a JSON object with the id of the event")
    return id


# Secrets


def some(scheme: str, secrets: Sequence[str]) -> Sequence[str]:
    """One or two secrets. Raises `ConfigError`, which shows none of them."""
    if len(secrets) not in (1, 2) or not all(isinstance(one, str) and one.strip() == one != "" for one in secrets):
        came = ", ".join(type(one).__name__ if one else repr(one) for one in secrets) or "nothing"
        raise ConfigError(f"expected one secret, or two while one replaces the other, for {scheme}(…); {came} came")
    return secrets
