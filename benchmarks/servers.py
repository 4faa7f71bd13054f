"""Servers for the soak: PostgreSQL and Redis in temporary folders, and what can befall them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
import psycopg
import redis


class Server(Protocol):
    """A server of our own."""

    url: str

    def pids(self) -> list[int]:
        """Its processes."""

    def stop(self) -> None:
        """End it."""


class Postgres:
    """A cluster in a folder; as root it runs as the user postgres, because it must not run as root."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._bin = find_postgres()
        if self._as:
            shutil.chown(folder, "postgres")
        port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=200"
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", str(folder / "log"), "-w", "start")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as, str(self._bin / program), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        done.check_returncode()

    def restart(self) -> None:
        """As after a crash: nothing is written first, and the log is replayed."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "restart")

    def terminate(self, where: str) -> None:
        """End the connections of clients for which `where` holds."""
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {where}"
            )

    def pids(self) -> list[int]:
        main = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        return [main.pid, *(one.pid for one in main.children(recursive=True))]

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")


class Redis:
    """A server with an append-only file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._start()

    def _start(self) -> None:
        command = ["redis-server", "--port", str(self._port), "--dir", str(self._folder), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with redis.Redis.from_url(self.url) as client:
            while True:
                with suppress(redis.ConnectionError, redis.BusyLoadingError):
                    client.ping()
                    return
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9, and start again on the same file."""
        self._process.kill()
        self._process.wait()
        self._start()

    def pids(self) -> list[int]:
        return [self._process.pid]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs, the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    program = str(found[-1]) if found else shutil.which("initdb")
    if program is None:
        raise SystemExit("expected PostgreSQL's initdb; it is neither in the PATH nor in /usr/lib/postgresql")
    return Path(program).parent


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextmanager
def serving(kind: Callable[[Path], Any]) -> Iterator[Any]:
    """A server for the length of a block."""
    with tempfile.TemporaryDirectory() as name:
        server = kind(Path(name))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """All its processes stand still."""
    pids = server.pids()
    signal_all(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_all(pids, signal.SIGCONT)


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to those that still are."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
