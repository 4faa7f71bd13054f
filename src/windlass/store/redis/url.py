"""What a Redis URL says: where the servers are, how to log in, and how this app's jobs are kept."""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from windlass.config import complaint, masked, split_url
from windlass.errors import ConfigError

Address = tuple[str, int]

PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}")
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
PLAIN, CLUSTER, SENTINEL = "plain", "cluster", "sentinel"
HISTORY = 100_000
"""Finished jobs that are kept in all unless the URL says otherwise."""

EXPECTED = (
    "expected redis://[user:password@]host:6379[/db], rediss://… for TLS, redis+cluster://host:port[,host:port] or "
    "redis+sentinel://host:26379[,host:26379]/service[/db], optionally with ?prefix=windlass, &history=100000, "
    "&durability=none"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parsed URL. `login` is what a connection is made with, besides host and port."""

    shown: str
    kind: str
    nodes: tuple[Address, ...]
    service: str = ""
    tls: bool = False
    prefix: str = "windlass"
    history: int = HISTORY
    durable: bool = True
    login: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def tag(self) -> str:
        """What every key of this app begins with: one hash tag, so that all are on one node of a cluster."""
        return f"{{{self.prefix}}}:"


def parse(url: str) -> Target:
    """The target of a URL. Raises `ConfigError`."""
    try:
        parts = split_url(url)
        return read(url, parts, dict(parse_qsl(parts.query, keep_blank_values=True)))
    except ValueError as error:
        raise ConfigError(f"{EXPECTED}; {masked(url)} came: {complaint(url, error)}") from None


def read(url: str, parts: SplitResult, options: dict[str, str]) -> Target:
    """The same of a URL that was split. Raises `ValueError` that says what is wrong with it."""
    base, _, kind = parts.scheme.partition("+")
    kind = kind or PLAIN
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    service = path.pop(0) if kind == SENTINEL and path else ""
    if kind == SENTINEL and not service:
        raise ValueError("the name of the service is missing")
    if kind == CLUSTER and path not in ([], ["0"]):
        raise ValueError("a cluster has no databases")
    login: dict[str, Any] = {"db": database(path)}
    if user:
        login |= {"username": unquote(name) or None, "password": unquote(password) or None}
    login |= {key: options.pop(key) for key in TLS if key in options}
    target = Target(
        shown=masked(url),
        kind=kind,
        nodes=tuple(address(host, 26379 if kind == SENTINEL else 6379) for host in hosts.split(",")),
        service=service,
        tls=base in ("rediss", "valkeys"),
        prefix=prefix(options.pop("prefix", "windlass")),
        history=history(options.pop("history", str(HISTORY))),
        durable=durable(options.pop("durability", "server")),
        login=login,
    )
    if options:
        raise ValueError(f"{', '.join(map(repr, sorted(options)))} is no option of this store")
    return target


def database(path: list[str]) -> int:
    """The number of the database at the end of a path."""
    if len(path) > 1 or not all(part.isdecimal() for part in path):
        raise ValueError(f"{'/'.join(path)!r} is no number of a database")
    return int(path[0]) if path else 0


def address(text: str, port: int) -> Address:
    """host[:port], an IPv6 address in brackets."""
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or port


def prefix(text: str) -> str:
    """The name that keeps the keys of several apps apart."""
    if not PREFIX.fullmatch(text):
        raise ValueError(f"a prefix is made of A-Z, a-z, 0-9, _ . and -, at most 64; {text!r} is not")
    return text


def history(text: str) -> int:
    """How many finished jobs are kept."""
    if not text.isdecimal():
        raise ValueError(f"history is a whole number; {text!r} is not")
    return int(text)


def durable(text: str) -> bool:
    """Whether the server must persist what it is given."""
    if text not in ("server", "none"):
        raise ValueError(f"durability is server or none; {text!r} is neither")
    return text == "server"
