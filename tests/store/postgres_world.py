"""PostgreSQL under test: a schema per process and kind of clock, emptied for each world, and time that tests set."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from tests import servers
from tests.store.world import PushedClock, World
from windlass.clock import FakeClock, SystemClock

TABLES = (
    "live",
    "history",
    "lines",
    "marks",
    "docs",
    "workers",
    "runners",
    "exchanges",
    "departed",
    "holds",
    "blocked",
    "stirred",
    "freed",
    "tallies",
    "depths",
)
RESET = "UPDATE bounds SET due_low = 0, expiry_low = 0, call_low = 0, surveyed_at = 0, survey_took = 0"

TRUNCATE = f"TRUNCATE {', '.join(TABLES)}; {RESET}"
"""Empties the tables, and makes small what was large. It costs fifty times as much as deleting a few rows."""

DELETE = f"{'; '.join(f'DELETE FROM {table}' for table in TABLES)}; {RESET}"

SIZE = f"SELECT {' + '.join(f'pg_relation_size($${table}$$)' for table in TABLES)}"
LARGE = 1_000_000
"""Bytes of tables from which on they are truncated."""

FAKE_CLOCK = """
CREATE TABLE test_clock AS SELECT 0::bigint AS now, 0::bigint AS steady;
CREATE OR REPLACE FUNCTION now_micros() RETURNS bigint LANGUAGE sql AS $$ SELECT now FROM {}.test_clock $$;
CREATE OR REPLACE FUNCTION steady_micros() RETURNS bigint LANGUAGE sql AS $$ SELECT steady FROM {}.test_clock $$
"""
"""Time as the tests left it, instead of the server's."""


class PostgresWorld(World):
    """One schema of the server of this run."""

    kind = "postgres"
    _made: ClassVar[set[str]] = set()

    def __init__(self, folder: Path, clock: FakeClock | SystemClock | None = None) -> None:
        super().__init__(folder, clock or PushedClock())
        self._fake = isinstance(self.clock, FakeClock)
        self.schema = f"{self.kind}_{'fake' if self._fake else 'real'}_{os.getpid()}"
        self._direct: psycopg.Connection | None = None

    @property
    def server(self) -> str:
        """The URL that the store connects to, without options."""
        return servers.postgres_url()

    @property
    def url(self) -> str:
        return with_options(self.server, f"schema={self.schema}")

    @property
    def direct(self) -> psycopg.Connection:
        """A connection of the test's own, with the schema in its path."""
        if self._direct is None:
            self._direct = psycopg.connect(servers.postgres_url(), autocommit=True)
            self._direct.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(self.schema)))
        return self._direct

    async def open(self) -> None:
        if self.schema not in self._made:
            await self._make()
        (size,) = self.direct.execute(SIZE).fetchone() or (0,)
        self.direct.execute(TRUNCATE if size > LARGE else DELETE)
        self._push()
        if isinstance(self.clock, PushedClock):
            self.clock.push = self._push
        await self.reopen()

    async def _make(self) -> None:
        self.direct.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))
        store = self.connect()
        await store.migrate()
        await store.close()
        if self._fake:
            schema = sql.Identifier(self.schema)
            self.direct.execute(sql.SQL(FAKE_CLOCK).format(schema, schema))
        self._made.add(self.schema)

    def _push(self) -> None:
        if self._fake:
            moments = [round(seconds * 1e6) for seconds in (self.clock.now(), self.clock.boot())]
            self.direct.execute("UPDATE test_clock SET now = %s, steady = %s", moments)

    async def close(self) -> None:
        await super().close()
        if self._direct:
            self._direct.close()
            self._direct = None


class PgBouncerWorld(PostgresWorld):
    """The same through PgBouncer, with hints from the server itself."""

    kind = "pgbouncer"

    @property
    def server(self) -> str:
        return servers.pgbouncer_url()

    @property
    def url(self) -> str:
        return with_options(super().url, f"listen={servers.postgres_url()}")


def with_options(url: str, options: str) -> str:
    """A URL with more in its query."""
    return f"{url}{'&' if '?' in url else '?'}{options}"


@contextlib.contextmanager
def old_snapshot(world: PostgresWorld) -> Iterator[None]:
    """Somebody holds a snapshot of now for the length of a block, as a long report would."""
    with psycopg.connect(servers.postgres_url()) as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT 1")
        yield
