"""Empty stores for those who measure: a file, or a server that ends with the block."""

import contextlib
import tempfile
from collections.abc import Iterator

from tests.servers import Postgres, Redis

STORES = ("postgres", "redis", "sqlite")


@contextlib.contextmanager
def served(store: str, **settings: str) -> Iterator[str]:
    """The URL of a new store, which keeps what is over; `settings` are those of a PostgreSQL server."""
    if store == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/windlass.db"
    elif store == "postgres":
        with Postgres(**settings) as server:
            yield server.url
    else:
        with Redis() as server:
            yield f"{server.url}?history=100000000"


def beside(url: str, name: str) -> str:
    """The URL of another empty store on the same server, or beside the same file."""
    if url.startswith("sqlite:"):
        return f"{url.removesuffix('.db')}-{name}.db"
    return f"{url}{'&' if '?' in url else '?'}{'schema' if url.startswith('postgresql:') else 'prefix'}={name}"
