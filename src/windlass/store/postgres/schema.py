"""The schema in the database: brought up to date step by step, and never by two processes at once."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection

from windlass.errors import ConfigError, StoreUnavailable
from windlass.store.postgres.statements import SQL, filled
from windlass.store.postgres.target import Target
from windlass.store.queries import load_migrations

OLDEST_SERVER = 130_000
STEPS = load_migrations("windlass.store.postgres")
NEWEST = STEPS[-1][0]


async def bring_up(connection: AsyncConnection[Any], target: Target, *, allowed: bool) -> Sequence[str]:
    """Bring the schema to this version; the steps taken. Raises `ConfigError` for a server or a schema that does not
    fit, or for one that is behind when changing it is not `allowed`."""
    if connection.info.server_version < OLDEST_SERVER:
        raise ConfigError(f"PostgreSQL 13 or later is needed; {target.place} runs {connection.info.server_version}")
    version = await version_of(connection, target)
    if version == NEWEST:
        return []
    if not allowed:
        raise ConfigError(
            f"schema {target.schema!r} at {target.place} is at version {version} of {NEWEST}, and the URL says "
            "migrate=no: run windlass migrate first"
        )
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '5s'")
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (target.quoted,))
            return await take_steps(connection, target)
    except psycopg.Error as error:
        raise StoreUnavailable(
            f"schema {target.schema!r} at {target.place} cannot be brought up to date; nothing was changed: {error}"
        ) from error


async def version_of(connection: AsyncConnection[Any], target: Target) -> int:
    """The version of the schema, 0 if there is none. Raises `ConfigError` for one that this code is too old for."""
    found = await connection.execute(SQL.version, (f"{target.quoted}.schema_version",))
    if (await found.fetchall()) == [(None,)]:
        return 0
    rows = await (await connection.execute(filled(SQL.schema_version, target.quoted).encode())).fetchall()
    version, oldest = rows[0] if rows else (0, 0)
    if oldest > NEWEST:
        raise ConfigError(
            f"schema {target.schema!r} at {target.place} has version {version} and takes Windlass from {oldest} on; "
            f"this one knows {NEWEST}: update Windlass"
        )
    return min(int(version), NEWEST)


async def take_steps(connection: AsyncConnection[Any], target: Target) -> list[str]:
    """Take the steps that are missing, in the transaction that is open."""
    version, taken = await version_of(connection, target), []
    if version == 0:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {target.quoted}".encode())
    await connection.execute(f"SET LOCAL search_path = {target.quoted}, pg_temp".encode())
    for number, name, script in STEPS:
        if number > version:
            await connection.execute(filled(script, target.quoted).encode())
            taken.append(name)
    await connection.execute(filled(SQL.set_version, target.quoted).encode(), (NEWEST, OLDEST_CODE))
    return taken


OLDEST_CODE = 1
"""The newest step that older code must know to use this schema: raised by a step that they cannot live with."""
