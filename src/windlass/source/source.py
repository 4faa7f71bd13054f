"""A source: where messages are, which task they are for, and how to get there."""

import importlib.util
from importlib import import_module
from typing import Any, NamedTuple

from windlass import options
from windlass.config import masked
from windlass.errors import ConfigError
from windlass.options import short
from windlass.source.feed import Feed, Identify, parse
from windlass.source.intake import Intake
from windlass.task import Enqueuer, Task

MAX_READY = 10_000
"""Ready jobs in its queue that a source waits for, unless it is told otherwise."""


class Transport(NamedTuple):
    """A module here, its class, the library that it needs, and the extra that installs that."""

    module: str
    kind: str
    needs: str
    extra: str


AMQP = Transport("amqp", "AmqpFeed", "aio_pika", "amqp")
FOLDER = Transport("folder", "FolderFeed", "watchfiles", "all")
KAFKA = Transport("kafka", "KafkaFeed", "aiokafka", "kafka")
MQTT = Transport("mqtt", "MqttFeed", "aiomqtt", "mqtt")
NATS = Transport("nats", "NatsFeed", "nats", "nats")
POSTGRES = Transport("postgres", "PostgresFeed", "psycopg", "postgres")
REDIS = Transport("redis", "RedisFeed", "redis", "redis")

TRANSPORTS = {
    **dict.fromkeys(("amqp", "amqps"), AMQP),
    "file": FOLDER,
    **dict.fromkeys(("kafka", "kafka+ssl"), KAFKA),
    **dict.fromkeys(("mqtt", "mqtts"), MQTT),
    **dict.fromkeys(("nats", "nats+tls"), NATS),
    **dict.fromkeys(("postgres", "postgresql"), POSTGRES),
    **dict.fromkeys(("redis", "rediss"), REDIS),
}
"""By the scheme of a URL."""


class Source:
    """A message stream that workers of an app read. Made by `app.source()`."""

    def __init__(
        self,
        app: Enqueuer,
        url: str,
        task: Task[..., Any],
        *,
        name: str | None = None,
        identity: Identify | None = None,
        max_ready: int = MAX_READY,
    ) -> None:
        if not isinstance(task, Task) or task.app is not app:
            raise ConfigError(f"expected task= as a task of this app, for a source; {short(task)} came")
        if type(max_ready) is not int or max_ready < 1:
            raise ConfigError(f"expected max_ready= as a whole number from 1 on; {short(max_ready)} came")
        if identity is not None and not callable(identity):
            raise ConfigError(f"expected identity= as a function of a message; {short(identity)} came")
        self.name = options.name("the name of a source", task.name if name is None else name)
        self.url = url
        self.queue = task.queue
        self.max_ready = max_ready
        self.intake = Intake(self.name, task, identity)
        self._transport = transport_of(url)
        self._address = parse(url)
        self.feed()

    def __repr__(self) -> str:
        return f"<Source {self.name} of {masked(self.url)}>"

    def feed(self) -> Feed:
        """A new connection to it, not opened yet. Raises `ConfigError` for a URL that names no place."""
        made = getattr(import_module(f"windlass.source.{self._transport.module}"), self._transport.kind)
        feed: Feed = made(self._address, self.name)
        return feed


def transport_of(url: object) -> Transport:
    """How to read what `url` names. Raises `ConfigError` for a URL of another kind, and for a library that is not
    installed."""
    scheme = url.partition("://")[0].lower() if isinstance(url, str) and "://" in url else ""
    if scheme not in TRANSPORTS:
        came = masked(url) if isinstance(url, str) else short(url)
        raise ConfigError(f"expected the URL of a source, that begins with one of {', '.join(TRANSPORTS)}; {came} came")
    found = TRANSPORTS[scheme]
    if importlib.util.find_spec(found.needs) is None:
        raise ConfigError(f"a {scheme}:// source needs {found.needs}: pip install 'windlass[{found.extra}]'")
    return found
