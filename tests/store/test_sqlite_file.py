"""SQLite: a file that others use too."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.world import new
from windlass.clock import SystemClock
from windlass.errors import ConfigError
from windlass.store.sqlite.store import SQLiteStore


async def put_one(path: Path) -> None:
    store = SQLiteStore(f"sqlite:///{path}", SystemClock())
    await store.open()
    try:
        await store.put([job := new()])
        assert [found.id for found in await store.get([job.id])] == [job.id]
    finally:
        await store.close()


@pytest.mark.parametrize("theirs", [0, 1, 7])
async def test_the_version_that_others_keep_in_the_file_is_theirs(tmp_path: Path, theirs: int) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as app:
        app.execute("CREATE TABLE users (name TEXT)")
        app.execute(f"PRAGMA user_version = {theirs}")
        await put_one(path)
        assert app.execute("PRAGMA user_version").fetchone() == (theirs,)
        app.execute(f"PRAGMA user_version = {theirs + 1}")
        await put_one(path)


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await put_one(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute("INSERT INTO windlass_schema (version) VALUES (99)")
    with pytest.raises(ConfigError, match=r"schema 99.*update Windlass"):
        await put_one(path)
