"""The signatures of Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks."""

import base64
import binascii
import hmac

from windlass.errors import ConfigError

PREFIX = "whsec_"
KEY_SIZE = range(24, 65)
"""Bytes of a key."""


def standard_signature(key: bytes, id: str, sent: str, body: bytes) -> str:
    """The signature of one message; `sent` is its time as written in its header."""
    digest = hmac.digest(key, f"{id}.{sent}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def standard_key(secret: object, where: str) -> bytes:
    """The key in a secret. Raises `ConfigError`, which does not show it."""
    text = secret.removeprefix(PREFIX) if isinstance(secret, str) else ""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_SIZE:
        raise ConfigError(
            f"expected secrets for {where} as {PREFIX} and {KEY_SIZE[0]} to {KEY_SIZE[-1]} bytes in base64; one came "
            "that is none"
        )
    return key
