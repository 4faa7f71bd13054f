"""What a PostgreSQL URL says: the server, the schema, and how to connect."""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from windlass.config import complaint, masked, split_url
from windlass.errors import ConfigError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}")
CONNECT_TIMEOUT = 5
"""Seconds that one try to connect may take."""

STATEMENT_TIMEOUT = "60s"
"""The server itself ends what takes longer, should its client be gone."""

OURS = ("schema", "migrate", "listen")


@dataclass(frozen=True, slots=True)
class Target:
    """One schema of one database. `listen` is where to LISTEN: a conninfo, or None for nowhere."""

    conninfo: str = field(repr=False)
    schema: str
    migrate: bool
    listen: str | None = field(repr=False)

    @property
    def quoted(self) -> str:
        """The schema as it stands in statements."""
        return f'"{self.schema}"'

    @property
    def place(self) -> str:
        """Where that is, for people; no password."""
        known = conninfo_to_dict(self.conninfo)
        return f"{known.get('host', 'local socket')}:{known.get('port', 5432)}/{known.get('dbname', '')}"


def parse(url: str) -> Target:
    """The target that a URL names.

    Beside what libpq knows, its query may hold `schema` (default windlass), `migrate=no` (only `windlass migrate`
    changes the schema) and `listen` (a URL of the server itself, when the main one leads to a pooler that cannot
    LISTEN; `off` for none). Raises `ConfigError`.
    """
    try:
        return read(url)
    except (ValueError, psycopg.ProgrammingError) as error:
        raise ConfigError(
            f"expected postgresql://user:password@host:port/database?schema=windlass; {masked(url)} came: "
            f"{complaint(url, error)}"
        ) from None


def read(url: str) -> Target:
    """The same. Raises `ValueError` or `psycopg.ProgrammingError` for a URL that cannot be read."""
    parts = split_url(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(query)
    schema, migrate = options.get("schema", "windlass"), options.get("migrate", "yes")
    if not NAME.fullmatch(schema):
        raise ValueError(f"schema= is a name of letters, digits and _; {schema!r} is not")
    if migrate not in ("yes", "no"):
        raise ValueError(f"migrate= is yes or no; {migrate!r} is neither")
    rest = urlencode([(name, value) for name, value in query if name not in OURS])
    conninfo = complete(urlunsplit(parts._replace(query=rest)))
    listen = options.get("listen", "")
    return Target(
        conninfo=conninfo,
        schema=schema,
        migrate=migrate == "yes",
        listen=None if listen == "off" else complete(listen) if listen else conninfo,
    )


def complete(url: str) -> str:
    """A libpq URL with our defaults for what it leaves open."""
    split_url(url)
    defaults: dict[str, Any] = {
        "application_name": "windlass",
        "connect_timeout": CONNECT_TIMEOUT,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "target_session_attrs": "read-write",
    }
    return make_conninfo(**(defaults | conninfo_to_dict(url)))
