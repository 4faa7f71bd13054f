"""Message brokers for tests, as `tests/servers.py` has the servers of stores: RabbitMQ, Mosquitto, NATS JetStream."""

import functools
import pwd
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.servers import Server, free_port, program

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's; what it has in the PATH changes users first."""


def user_of(name: str) -> str | None:
    """A user of the machine, if there is one of that name."""
    return name if any(one.pw_name == name for one in pwd.getpwall()) else None


def greeting(port: int, hello: bytes = b"") -> bytes:
    """What a server says to a client that says `hello`."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(hello)
        return client.recv(64)


class Epmd(Server):
    """Where Erlang's nodes find each other. RabbitMQ would leave one behind if there were none."""

    def command(self) -> list[str]:
        return [program("epmd"), "-port", str(self.port), "-address", "127.0.0.1"]

    def answers(self) -> object:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


class RabbitMQ(Server):
    """A RabbitMQ server, without plugins. A restart kills it: what it confirmed is on the disk."""

    patience = 100.0
    user = user_of("rabbitmq")

    def __init__(self) -> None:
        self._epmd = Epmd()
        self._nodes = free_port()
        super().__init__()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def environment(self) -> Mapping[str, str]:  # type: ignore[override]
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"windlass{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._nodes),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "environment"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
            "RUNNING_UNDER_SYSTEMD": "true",  # it becomes the server instead of watching over it
        }

    def prepare(self) -> None:
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(
            "disk_free_limit.absolute = 1MB\nvm_memory_high_watermark.absolute = 512MB\n"
        )
        (self.folder / "environment").write_text("")
        for file in self.folder.iterdir():
            file.chmod(0o644)

    def command(self) -> list[str]:
        return [str(RABBITMQ) if RABBITMQ.exists() else program("rabbitmq-server")]

    def answers(self) -> object:
        return greeting(self.port, b"AMQP\0\0\x09\x01")[:1] == b"\x01"

    def remove(self) -> None:
        super().remove()
        self._epmd.remove()


class Mosquitto(Server):
    """A Mosquitto that keeps everything. A restart is orderly: it writes to the disk when it ends."""

    end = "TERM"
    user = user_of("mosquitto")

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        (self.folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {self.folder}/\nmax_queued_messages 0\nset_tcp_nodelay true\n"
        )
        (self.folder / "mosquitto.conf").chmod(0o644)

    def command(self) -> list[str]:
        return [program("mosquitto"), "-c", str(self.folder / "mosquitto.conf")]

    def answers(self) -> object:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


class Nats(Server):
    """A NATS server with JetStream."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}/"

    def command(self) -> list[str]:
        return [program("nats-server"), "-js", "-sd", str(self.folder), "-a", "127.0.0.1", "-p", str(self.port)]

    def answers(self) -> object:
        return greeting(self.port).startswith(b"INFO")


@functools.cache
def rabbitmq() -> RabbitMQ:
    """The RabbitMQ of all tests in this process."""
    return RabbitMQ()


@functools.cache
def mosquitto() -> Mosquitto:
    """The Mosquitto of all tests in this process."""
    return Mosquitto()


@functools.cache
def nats() -> Nats:
    """The NATS of all tests in this process."""
    return Nats()
