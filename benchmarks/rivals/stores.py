"""The servers that the systems share, emptied before each is measured."""

import tempfile
from pathlib import Path

import psycopg

from tests.servers import Postgres, Redis


class Store:
    """What the jobs are in; `url` is what Windlass and the peers are given."""

    about: str

    def __init__(self) -> None:
        self.url = ""

    def windlass(self) -> str:
        """The same for Windlass."""
        return self.url

    def empty(self) -> None:
        """Nobody was here."""

    def settle(self) -> None:
        """What the server would do within a minute of a load is done before the worker starts."""

    def pids(self) -> list[int]:
        """The server, if there is one."""
        return []

    def close(self) -> None:
        """End it, with its data."""


class OnPostgres(Store):
    """A database of its own for each measurement."""

    about = "PostgreSQL {version}, initdb's settings, synchronous_commit on, fsync on"

    def __init__(self) -> None:
        super().__init__()
        self.server = Postgres(synchronous_commit="on")
        self.url = self.server.url.removesuffix("postgres") + "rivals"
        with psycopg.connect(self.server.url) as db:
            self.about = self.about.format(version=db.info.server_version // 10_000)

    def empty(self) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as db:
            db.execute("DROP DATABASE IF EXISTS rivals WITH (FORCE)")
            db.execute("CREATE DATABASE rivals")
            db.execute("CHECKPOINT")

    def settle(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute("VACUUM ANALYZE")

    def pids(self) -> list[int]:
        return [self.server.pid]

    def close(self) -> None:
        self.server.remove()


class OnRedis(Store):
    """A server with its append-only file, which is not rewritten while anybody is measured."""

    about = "Redis {version}, append-only file, appendfsync everysec"

    def __init__(self) -> None:
        super().__init__()
        self.server = Redis(**{"auto-aof-rewrite-percentage": "0"})
        self.url = self.server.url
        self.about = self.about.format(version=self.server.raw.info("server")["redis_version"])

    def empty(self) -> None:
        self.server.raw.flushall()

    def pids(self) -> list[int]:
        return [self.server.pid]

    def close(self) -> None:
        self.server.remove()


class OnSqlite(Store):
    """A new file for each measurement."""

    about = "SQLite files in the temporary folder"

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0

    def windlass(self) -> str:
        return f"sqlite:///{self.url}"

    def empty(self) -> None:
        self._count += 1
        self.url = str(Path(self._folder.name) / f"jobs{self._count}.db")

    def close(self) -> None:
        self._folder.cleanup()


STORES = {"postgres": OnPostgres, "redis": OnRedis, "sqlite": OnSqlite}
