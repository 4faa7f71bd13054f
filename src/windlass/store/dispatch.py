"""The way to a store: by URL, with what every store needs in front of it."""

from urllib.parse import urlsplit

from windlass.clock import Clock, SystemClock
from windlass.errors import ConfigError
from windlass.store.contract import Store


def make_store(url: str, clock: Clock | None = None) -> Store:
    """The store that `url` names, not opened yet. Raises `ConfigError` for a URL that names none."""
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        from windlass.store.sqlite.store import SQLiteStore

        return SQLiteStore(url, clock or SystemClock())
    raise ConfigError(f"expected a store URL such as sqlite:///windlass.db; {scheme or url!r} names no store")
