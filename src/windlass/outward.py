"""Which URLs may be called back, and the signatures of what is posted there."""

from collections.abc import Iterable, Sequence
from urllib.parse import SplitResult, urlsplit

from windlass.errors import ConfigError
from windlass.options import short
from windlass.signature import standard_key, standard_signature

LONGEST = 2_048
"""Characters of a URL."""

PORTS = {"https": 443, "http": 80}

Origin = tuple[str, str, int]
"""Scheme, host and port."""


class Outward:
    """The secrets that sign, and the hosts inside that may be called: `hooks.internal` for HTTPS at 443, else with
    scheme or port, as in `http://hooks.internal:8080`. Raises `ConfigError` for what is neither."""

    def __init__(self, secrets: Sequence[str] = (), hosts: Iterable[str] = ()) -> None:
        if len(secrets) > 2:
            raise ConfigError(
                f"expected one secret, or two while one replaces the other, for callback_secrets; {len(secrets)} came"
            )
        self._keys = [standard_key(one, "callback_secrets") for one in secrets]
        self._inside = {origin_of(host) for host in hosts}
        self.signs = bool(self._keys)

    def __repr__(self) -> str:
        return f"<Outward with {len(self._keys)} secrets>"

    def sign(self, id: str, sent: int, body: bytes) -> dict[str, str]:
        """The headers of Standard Webhooks, signed by every secret. `sent`: seconds since the epoch."""
        signatures = " ".join(standard_signature(key, id, str(sent), body) for key in self._keys)
        return {"webhook-id": id, "webhook-timestamp": str(sent), "webhook-signature": signatures}

    def is_inside(self, url: str) -> bool:
        """Whether a URL is of one of the hosts inside."""
        return origin(urlsplit(url)) in self._inside

    def check(self, url: object) -> str:
        """A URL that may be called. Raises `ConfigError`, which does not show it: it may hold a token."""
        if not self.signs:
            raise ConfigError(
                "callback_url needs a secret that signs what is posted: App(callback_secrets=…), or "
                "WINDLASS_CALLBACK_SECRETS"
            )
        parts = split(url)
        if parts is None or not isinstance(url, str):
            kind = "one that cannot be called" if isinstance(url, str) else short(url)
            raise ConfigError(
                "expected callback_url as https://HOST/PATH, without user, password or fragment, of at most "
                f"{LONGEST:,} characters; {kind} came"
            )
        if parts.scheme == "http" and origin(parts) not in self._inside:
            raise ConfigError(
                f"expected callback_url to begin with https://; http:// came. If http://{parts.hostname} is a host of "
                "your own network, name it, with scheme and port, in callback_hosts"
            )
        return url


def split(url: object) -> SplitResult | None:
    """The parts of a URL that can be called; None for any other."""
    if not isinstance(url, str) or len(url) > LONGEST or not url.isascii() or any(one <= " " for one in url):
        return None
    try:
        parts = urlsplit(url)
        fine = parts.port != 0 and parts.scheme in PORTS and "\\" not in url
    except ValueError:
        return None
    return parts if fine and parts.hostname and "@" not in parts.netloc and not parts.fragment else None


def origin(parts: SplitResult) -> Origin:
    """The origin of a URL that can be called."""
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or PORTS[parts.scheme]


def origin_of(host: str) -> Origin:
    """The origin that an entry of `callback_hosts` names. Raises `ConfigError`."""
    parts = split(host if "://" in host else f"https://{host}")
    if parts is None or parts.path.strip("/") or parts.query:
        raise ConfigError(
            f"expected callback_hosts as in 'hooks.internal' or 'http://hooks.internal:8080'; {short(host)} came"
        )
    return origin(parts)
