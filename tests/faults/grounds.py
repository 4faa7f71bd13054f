"""The stores under the faults: a server of its own for each, and the power over it."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests import servers
from tests.proxy import Proxy
from tests.servers import PgBouncer, Postgres, Redis, Sentinel, Server, program, until

KINDS = ("sqlite", "postgres", "pgbouncer", "redis", "cluster")
SERVERS = tuple(kind for kind in KINDS if kind != "sqlite")
POOLED = 20
"""Connections that PgBouncer lets clients have, where they shall run out."""

PROMPT = {"repl-diskless-sync-delay": "0"}
HISTORY = "history=10000000"


class CannotInject(Exception):
    """This machine has no way to bring the fault about; the text says what is missing."""


def run(*command: str, user: str | None = None) -> str:
    """The output of a program. Raises `CannotInject` with what it complained of."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, user=user, timeout=60, check=False, cwd="/")
    except OSError as error:
        raise CannotInject(f"{command[0]}: {error}") from error
    if done.returncode:
        raise CannotInject(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


# Small disks


class Disk:
    """A small file system of memory, which can be filled."""

    def __init__(self, name: str, folder: Path, size: str) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", name, str(folder))

    def fill(self) -> None:
        """Leave no byte; what others free meanwhile is taken too."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it."""
        run("umount", "-l", str(self.folder))


# Clocks


class FakedTime:
    """The wall clock as processes see it that run with `environment`; libfaketime reads it from a file each time."""

    def __init__(self, folder: Path) -> None:
        places = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")
        found = [one for place in places for one in Path("/").glob(f"{place[1:]}/libfaketimeMT.so.1")]
        if not found:
            raise CannotInject("libfaketime is not here; scripts/servers installs it")
        self._file = folder / "clock"
        self.set(0)
        self._file.chmod(0o644)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """The wall clock is so far ahead of the real one."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.chmod(0o644)
        fresh.rename(self._file)


# Grounds


class Ground:
    """One store. `needs` says what a fault wants of it: a replica, a proxy, a disk, few
    connections; a clock of its own, or a watch of the workers' own."""

    kind = ""
    server: Server | None = None
    """What is killed, restarted and frozen."""

    forgetful = False
    """Whether a failover may lose what was acknowledged."""

    def __init__(self, folder: Path, needs: str = "") -> None:
        self.folder = folder
        self.needs = needs
        self.disk: Disk | None = None
        self.time: FakedTime | None = None
        self.proxies: list[Proxy] = []
        self.stack = contextlib.ExitStack()
        if needs in ("clock", "watch"):
            self.time = FakedTime(folder)
        try:
            self.make()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """What producers and workers use."""
        raise NotImplementedError

    def make(self) -> None:
        """Start what there is to start."""

    def fail_over(self) -> None:
        """Kill the server; its replica takes over."""
        raise NotImplementedError

    def stand_by(self) -> None:
        """Have a replica again."""
        raise NotImplementedError

    def read_only(self) -> contextlib.AbstractContextManager[None]:
        """The store cannot be written to for the length of a block."""
        raise NotImplementedError

    def crowd(self) -> contextlib.AbstractContextManager[int]:
        """Every connection that the server has left is taken for the length of a block; how many those are."""
        raise NotImplementedError

    def hold(self, seconds: float) -> None:
        """Somebody else keeps the store busy: a transaction that stays open, a slow command."""
        raise NotImplementedError

    def close(self) -> None:
        """End it all."""
        self.stack.close()

    def small(self, server: Server, size: str) -> None:
        """Put the folder of a server that is about to start on a small disk."""
        if self.needs == "disk":
            self.disk = Disk(self.folder.name, server.folder, size)
            self.stack.callback(self.disk.remove)
            if server.user:
                shutil.chown(server.folder, server.user)

    def through(self, port: int) -> int:
        """The port under which clients reach the one of a server."""
        if self.needs != "proxy":
            return port
        proxy = Proxy(port)
        self.stack.callback(proxy.close)
        self.proxies.append(proxy)
        return proxy.port


def prepared(ground: Ground, size: str, base: type[Server]) -> Any:
    """A kind of server that lives where and when this ground wants it."""

    class Prepared(base):  # type: ignore[valid-type,misc]
        environment = ground.time.environment if ground.time and ground.needs == "clock" else {}

        def prepare(self) -> None:
            ground.small(self, size)
            super().prepare()

    return Prepared


class OnSQLite(Ground):
    """A file."""

    kind = "sqlite"

    def make(self) -> None:
        self._place = self.folder / "store"
        self._place.mkdir()
        if self.needs == "disk":
            self.disk = Disk(self.folder.name, self._place, "24m")
            self.stack.callback(self.disk.remove)

    @property
    def path(self) -> Path:
        """The database."""
        return self._place / "windlass.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Nobody may write to the file or its log, not even root. The -shm file is mapped, and a page of an immutable
        one cannot be written to without a bus error, which no read-only disk would cause."""
        files = [
            str(file) for file in self._place.glob("windlass.db*") if file.name in ("windlass.db", "windlass.db-wal")
        ]
        if os.geteuid():
            run("chmod", "a-w", *files)
        else:
            run("chattr", "+i", *files)
        try:
            yield
        finally:
            run("chattr", "-i", *files) if not os.geteuid() else run("chmod", "u+w", *files)

    def hold(self, seconds: float) -> None:
        import sqlite3

        db = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        with contextlib.closing(db):
            db.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            db.execute("ROLLBACK")


class Standby(Postgres):
    """A replica that streams from a server, and may be promoted."""

    def __init__(self, primary: Postgres, port: int) -> None:
        self._primary, self._at = primary, port
        super().__init__()

    def prepare(self) -> None:
        self.port = self._at or self.port
        data = str(self.folder / "data")
        run(program("pg_basebackup"), "-D", data, "-R", "-c", "fast", "-d", self._primary.url, user=self.user)
        (self.folder / "data").chmod(0o700)


class OnPostgres(Ground):
    """A PostgreSQL server; with a replica, commits wait for it."""

    kind = "postgres"
    server: Postgres

    def make(self) -> None:
        settings = {"max_connections": "40"} if self.needs == "few" else {}
        self.server = prepared(self, "400m", Postgres)(**settings)
        self.stack.callback(lambda: self.server.remove())
        self.ports = [self.through(self.server.port)]
        if self.needs == "replica":
            self.stand_by()
            self.ports.append(self._standby.port)

    @property
    def url(self) -> str:
        return self.direct

    @property
    def direct(self) -> str:
        """The URL of the servers themselves."""
        return f"postgresql://postgres@{','.join(f'127.0.0.1:{port}' for port in self.ports)}/postgres"

    def say(self, *statements: str) -> list[Any]:
        """Statements by an operator, each committed; the rows of the last."""
        with psycopg.connect(self.server.url, autocommit=True) as db:
            for one in statements:
                cursor = db.execute(one.encode())
            return cursor.fetchall() if cursor.description else []

    def stand_by(self) -> None:
        gone = next((port for port in self.ports[:2] if port != self.server.port), 0)
        self.say("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
        self._standby = Standby(self.server, gone)
        self.stack.callback(self._standby.remove)
        until(lambda: self.say("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), "the replica to stream")
        self.say("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        until(
            lambda: self.say("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), "the replica to be in step"
        )

    def fail_over(self) -> None:
        old, self.server = self.server, self._standby
        old.kill()
        self.say("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()", "SELECT pg_promote()")
        self.moved()
        old.remove()

    def moved(self) -> None:
        """The server has a new port."""

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self.say("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        try:
            yield
        finally:
            with psycopg.connect(self.server.url, autocommit=True) as db:
                db.execute("SET default_transaction_read_only = off")
                db.execute("ALTER SYSTEM SET default_transaction_read_only = off")
                db.execute("SELECT pg_reload_conf()")

    @contextlib.contextmanager
    def crowd(self) -> Iterator[int]:
        with contextlib.ExitStack() as stack:
            taken = 0
            with contextlib.suppress(psycopg.OperationalError):
                while taken < 1000:
                    stack.enter_context(contextlib.closing(psycopg.connect(self.crowded, connect_timeout=2)))
                    taken += 1
            yield taken

    @property
    def crowded(self) -> str:
        """The URL whose connections run out."""
        return self.server.url

    def hold(self, seconds: float) -> None:
        """A snapshot, and locks on rows: those of the jobs that are ready now, as a careless operator takes them."""
        with psycopg.connect(self.server.url) as db:
            db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            db.execute("SELECT count(*) FROM windlass.live")
            db.execute("SELECT id FROM windlass.live WHERE state = 'ready' FOR UPDATE SKIP LOCKED")
            time.sleep(seconds)
            db.rollback()


class Pooler(PgBouncer):
    """PgBouncer that can be told of another server, and takes few clients if it shall."""

    def __init__(self, server: str, clients: int) -> None:
        self._clients = clients
        super().__init__(server)

    def prepare(self) -> None:
        super().prepare()
        file = self.folder / "pgbouncer.ini"
        text = file.read_text().replace("default_pool_size = 2", "default_pool_size = 8\nserver_login_retry = 1")
        file.write_text(text.replace("max_client_conn = 500", f"max_client_conn = {self._clients}"))

    def point(self, server: str) -> None:
        """To another server."""
        self._server = urlsplit(server)
        self.prepare()
        os.kill(self.pid, 1)


class OnPgBouncer(OnPostgres):
    """The same behind PgBouncer in transaction mode; hints come from the server itself."""

    kind = "pgbouncer"

    def make(self) -> None:
        super().make()
        self.pooler = Pooler(self.server.url, POOLED if self.needs == "few" else 500)
        self.stack.callback(self.pooler.remove)
        self._pooled = self.through(self.pooler.port)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._pooled}/postgres?listen={self.direct}"

    def moved(self) -> None:
        self.pooler.point(self.server.url)

    @property
    def crowded(self) -> str:
        return self.pooler.url


class OnRedis(Ground):
    """Redis with its append-only file; with a replica, a sentinel watches both."""

    kind = "redis"
    server: Redis
    forgetful = True

    def make(self) -> None:
        self.server = prepared(self, "64m", Redis)(**PROMPT)
        self.stack.callback(lambda: self.server.remove())
        self._port = self.through(self.server.port)
        if self.needs == "replica":
            self._other = Redis(replicaof=f"127.0.0.1 {self.server.port}", **PROMPT)
            self.stack.callback(lambda: self._other.remove())
            until(lambda: in_step(self.server), "the replica to be in step")
            self._sentinel = Sentinel(self.server)
            self.stack.callback(self._sentinel.remove)
            until(lambda: self._sentinel.raw.sentinel_slaves("main"), "the sentinel to know the replica")

    @property
    def url(self) -> str:
        if self.needs == "replica":
            return f"redis+sentinel://127.0.0.1:{self._sentinel.port}/main?{HISTORY}"
        return f"redis://127.0.0.1:{self._port}/0?{HISTORY}"

    def fail_over(self) -> None:
        self.server.kill()
        self.server, self._other = self._other, self.server
        until(lambda: self.server.raw.info("replication")["role"] == "master", "the replica to be promoted")

    def stand_by(self) -> None:
        """The old master comes back, as the replica of the new one."""
        self._other.start()
        until(lambda: in_step(self.server), "the old master to follow the new one")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        with self.server.raw as client:
            client.config_set("min-replicas-to-write", 9)
            yield
            client.config_set("min-replicas-to-write", 0)

    @contextlib.contextmanager
    def crowd(self) -> Iterator[int]:
        with self.server.raw as client:
            usual = int(client.config_get("maxclients")["maxclients"])
            client.config_set("maxclients", max(1, client.info("clients")["connected_clients"]))
            yield client.info("clients")["connected_clients"]
            client.config_set("maxclients", usual)

    def hold(self, seconds: float) -> None:
        """A slow command: nothing else happens in Redis meanwhile."""
        script = (
            "local t = redis.call('TIME') local e = t[1] * 1e6 + t[2] + ARGV[1] * 1e6 repeat t = redis.call('TIME') "
        )
        with self.server.raw as client:
            client.eval(f"{script} until t[1] * 1e6 + t[2] > e", 0, seconds)


def in_step(master: Redis) -> bool:
    """Whether a replica has all that the master has."""
    found = master.raw.info("replication")
    replica = found.get("slave0", {})
    return bool(replica.get("state") == "online" and replica["offset"] == found["master_repl_offset"])


class OnCluster(OnRedis):
    """Three masters; with a replica, the one that has our keys has one."""

    kind = "cluster"

    def make(self) -> None:
        reach: Callable[[Redis], int] | None = None
        if self.needs == "proxy":
            reach = lambda node: self.through(node.port)  # noqa: E731
        self._nodes = servers.make_cluster(prepared(self, "64m", Redis), reach)
        for server in self._nodes:
            self.stack.callback(server.remove)
        self._ports = [proxy.port for proxy in self.proxies] or [server.port for server in self._nodes]
        with self._nodes[0].raw as client:
            slot = client.execute_command("CLUSTER", "KEYSLOT", "{windlass}:x")
        share = -(-servers.SLOTS // len(self._nodes))
        self.server = self._nodes[slot // share]
        if self.needs == "replica":
            self._other = Redis(**servers.CLUSTERED, **PROMPT)
            self.stack.callback(lambda: self._other.remove())
            self._follow(self._other)

    def _follow(self, replica: Redis) -> None:
        with replica.raw as client, self.server.raw as master:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.server.port)
            name = master.execute_command("CLUSTER", "MYID").decode()
            until(lambda: client.execute_command("CLUSTER", "REPLICATE", name), "the replica to know its master")
        until(lambda: in_step(self.server), "the replica to be in step")

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in self._ports)}?{HISTORY}"


GROUNDS: dict[str, Callable[..., Ground]] = {
    one.kind: one for one in (OnSQLite, OnPostgres, OnPgBouncer, OnRedis, OnCluster)
}
