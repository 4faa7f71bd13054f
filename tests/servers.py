"""Real servers for tests, in temporary folders and on free ports: PostgreSQL, PgBouncer, Redis, a cluster, a sentinel.

They start when they are first asked for, end with the process that asked, however that ends, and may be killed, frozen
and started again. `WINDLASS_TEST_POSTGRES_URL` and `WINDLASS_TEST_REDIS_URL` name servers to use instead.
"""

import atexit
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
import psycopg
import redis

PATIENCE = 30.0
"""Seconds that a server may take to start, stop or join."""

GUARD = '"$@" </dev/null >/dev/null & echo $!; read word; said=$?; kill -s "$END" $!; kill -s CONT $!; wait $!; '
GUARD += 'if [ $said -ne 0 ]; then rm -rf "$FOLDER"; fi'
"""A shell that ends the server when we say so, or are dead: then its input closes without a word, and the data goes."""

SLOTS = 16_384
CLUSTERED = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
"""The settings of a node of a cluster."""


def program(name: str) -> str:
    """The path of a server's program. Raises `RuntimeError` where there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if name in ("postgres", "initdb", "pg_basebackup"):  # Debian keeps them out of the PATH
        debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda file: int(file.parts[-3]))
        found = str(debian[-1]) if debian else found
    if not found:
        raise RuntimeError(f"expected {name} on this machine, for the tests; scripts/servers installs it")
    return found


def free_port() -> int:
    """A port that nobody uses; below 55536, as a Redis cluster's bus takes the port 10000 above."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


def until(look: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until something is true, errors of servers counting as not yet."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError, redis.RedisError, OSError):
            if look():
                return
        time.sleep(0.02)
    raise RuntimeError(f"waited {patience:g} s for {what}")


class Server:
    """One server process and its folder."""

    end = "KILL"
    """The signal that ends it."""

    patience = PATIENCE
    """Seconds that it may take to start."""

    user: str | None = None
    """Who it runs as when we are root."""

    environment: Mapping[str, str] = {}
    """Variables that it gets, besides those that it needs."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="windlass-"))
        self.port = free_port()
        self.pid = 0
        self._guard: subprocess.Popen[bytes] | None = None
        self.user = self.user if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        atexit.register(self.remove)
        self.prepare()
        self.start()

    @property
    def url(self) -> str:
        """What a client needs."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what the first start needs."""

    def command(self) -> list[str]:
        """The program and its arguments, in the foreground."""
        raise NotImplementedError

    def answers(self) -> object:
        """Whether it takes clients; raises while it does not."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, on the data that it left if it ran before; returns when it answers."""
        with (self.folder / "stderr").open("ab") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", GUARD, "sh", *self.command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={
                    "PATH": os.environ["PATH"],
                    "LC_ALL": "C.UTF-8",
                    "END": self.end,
                    "FOLDER": str(self.folder),
                    **self.environment,
                },
                user=self.user,
                start_new_session=True,
            )
        assert self._guard.stdout
        self.pid = int(self._guard.stdout.readline())
        until(self.answers, f"{type(self).__name__} on port {self.port}; see {self.folder}", self.patience)

    def stop(self) -> None:
        """End it as its operator would in a hurry; nothing happens if it is ended."""
        if self._guard and self._guard.stdin and self._guard.stdout:
            with contextlib.suppress(BrokenPipeError), self._guard.stdin as word:
                word.write(b"stop\n")
            self._guard.wait(PATIENCE)
            self._guard.stdout.close()
            self._guard = None

    def kill(self) -> None:
        """kill -9 of its main process. Until the others, which end by that, are gone, no new one would start."""
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.pid)
            others = main.children(recursive=True)
            main.kill()
            for slow in psutil.wait_procs(others, PATIENCE / 3)[1]:
                slow.kill()
        self.stop()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still."""
        main = psutil.Process(self.pid)
        processes = [main, *main.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def remove(self) -> None:
        """End it, with its data."""
        atexit.unregister(self.remove)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Postgres(Server):
    """A PostgreSQL server; it refuses to run as root. `settings` as in postgresql.conf."""

    end = "QUIT"  # the immediate shutdown: nothing is written first, the next start replays the log
    user = "postgres"

    def __init__(self, **settings: str) -> None:
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "max_connections": "300",
            "log_min_messages": "fatal",
            **settings,
        }
        super().__init__()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        command = [program("initdb"), "-D", str(self.folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        done = subprocess.run([*command, "--locale=C"], user=self.user, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr}")

    def command(self) -> list[str]:
        given = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        socket_folder = str(self.folder)
        return [program("postgres"), "-D", f"{self.folder}/data", "-p", str(self.port), "-k", socket_folder, *given]

    def answers(self) -> object:
        with psycopg.connect(self.url):
            return True


class PgBouncer(Server):
    """PgBouncer in transaction mode, with two connections to its server."""

    user = "postgres"

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        super().__init__()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        there = self._server
        database = there.path.removeprefix("/")
        user = f" user={there.username}" + (f" password={there.password}" if there.password else "")
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\npostgres = host={there.hostname} port={there.port or 5432} dbname={database}{user}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir = \nauth_type = any\n"
            "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 500\nlogfile = /dev/null\n"
        )
        (self.folder / "pgbouncer.ini").chmod(0o644)

    def command(self) -> list[str]:
        return [program("pgbouncer"), "-q", str(self.folder / "pgbouncer.ini")]

    def answers(self) -> object:
        with psycopg.connect(self.url):
            return True

    def prepared(self) -> list[str]:
        """The names of the statements that clients have left prepared in its two connections."""
        with psycopg.connect(self.url) as one, psycopg.connect(self.url) as two:
            ask = "SELECT name FROM pg_prepared_statements"
            return [row[0] for each in (one.execute(ask), two.execute(ask)) for row in each]


class Redis(Server):
    """A Redis or Valkey server with an append-only file; `settings` as in redis.conf."""

    def __init__(self, **settings: str) -> None:
        self._settings = {"appendonly": "yes", "appendfsync": "everysec", "save": "", **settings}
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def raw(self) -> Any:
        """A blocking client."""
        return redis.Redis(port=self.port)

    def command(self) -> list[str]:
        words = {"port": str(self.port), "dir": str(self.folder), "logfile": "log", **self._settings}
        given = [word for name, value in words.items() for word in (f"--{name}", value)]
        return [program("redis-server"), *given]

    def answers(self) -> object:
        with self.raw as client:
            return client.ping()


class Sentinel(Redis):
    """A sentinel that watches one master, named main."""

    def __init__(self, master: Redis) -> None:
        self._master = master
        super().__init__()

    def prepare(self) -> None:
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\ndir {self.folder}\nlogfile log\nsentinel monitor main 127.0.0.1 {self._master.port} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        )

    def command(self) -> list[str]:
        return [program("redis-server"), str(self.folder / "sentinel.conf"), "--sentinel"]


def has_joined(node: Redis, size: int) -> bool:
    """Whether a node knows the whole cluster."""
    with node.raw as client:
        return client.cluster("INFO")["cluster_state"] == "ok" and len(client.cluster("SLOTS")) == size


def make_cluster(kind: type[Redis] = Redis, reach: Callable[[Redis], int] | None = None) -> list[Redis]:
    """Three masters that share the slots. `reach`: the port under which clients shall be sent to a node."""
    nodes = [kind(**CLUSTERED) for _ in range(3)]
    share = -(-SLOTS // len(nodes))
    for number, node in enumerate(nodes):
        first = number * share
        with node.raw as client:
            if reach:
                client.config_set("cluster-announce-bus-port", node.port + 10_000)
                client.config_set("cluster-announce-port", reach(node))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, min(first + share, SLOTS) - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
    for node in nodes:
        until(functools.partial(has_joined, node, len(nodes)), "the cluster")
    return nodes


# The servers of a whole run


@functools.cache
def postgres_url() -> str:
    """A PostgreSQL server for all tests; what they write there need not be safe."""
    return os.environ.get("WINDLASS_TEST_POSTGRES_URL") or Postgres(fsync="off").url


@functools.cache
def pgbouncer_url() -> str:
    """PgBouncer in front of it."""
    return PgBouncer(postgres_url()).url


@functools.cache
def redis_url() -> str:
    """A Redis server for all tests."""
    return os.environ.get("WINDLASS_TEST_REDIS_URL") or Redis().url


@functools.cache
def cluster_nodes() -> list[Redis]:
    """A cluster for all tests."""
    return make_cluster()


def cluster_url() -> str:
    """The URL of that cluster."""
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in cluster_nodes())}"
