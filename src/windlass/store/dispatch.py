"""The way to a store: by URL, with what every store needs in front of it."""

from importlib import import_module
from urllib.parse import urlsplit

from windlass.clock import Clock, SystemClock
from windlass.errors import ConfigError
from windlass.store.contract import Store

ENGINES = {
    "sqlite": ("sqlite.store", "SQLiteStore", ""),
    **dict.fromkeys(("postgresql", "postgres"), ("postgres.store", "PostgresStore", "postgres")),
    **dict.fromkeys(
        ("redis", "rediss", "valkey", "valkeys", "redis+cluster", "rediss+cluster", "redis+sentinel"),
        ("redis.store", "RedisStore", "redis"),
    ),
}
"""By the scheme of a URL: the module and the class of its store, and the extra that installs its driver."""


def make_store(url: str, clock: Clock | None = None) -> Store:
    """The store that `url` names, not opened yet. Raises `ConfigError` for a URL that names none, and for a driver that
    is not installed."""
    scheme = urlsplit(url).scheme
    if scheme not in ENGINES:
        raise ConfigError(
            f"expected a store URL such as sqlite:///windlass.db, postgresql://… or redis://…; {scheme or url!r} names "
            "no store"
        )
    module, name, extra = ENGINES[scheme]
    try:
        engine = import_module(f"windlass.store.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a {scheme}:// store needs its driver ({error.name} is missing): pip install 'windlass[{extra}]'"
        ) from error
    store: Store = getattr(engine, name)(url, clock or SystemClock())
    return store
