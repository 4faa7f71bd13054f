"""SQLite: a file that others use too."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.test_gates import behind, declare, names
from tests.store.test_lift import late
from tests.store.world import SQLiteWorld, new
from windlass.clock import SystemClock
from windlass.errors import ConfigError
from windlass.model import Need, State
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


async def test_damaged_gates_and_ids_stop_neither_a_lift_nor_a_claim(tmp_path: Path) -> None:
    """The jobs that have them fail, with a reason."""
    world = SQLiteWorld(tmp_path)
    await world.open()
    try:
        await declare(world, limit=5)
        bad, waits, nul, good = (late(5, gates=(Need("g"),)), behind("g"), late(5), late(5, gates=(Need("g"),)))
        await world.put(bad, waits, nul, good)
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            for id in (bad.id, waits.id):
                other.execute("UPDATE jobs SET gates = CAST(X'5B5B2267FF225D5D' AS TEXT) WHERE id = ?", (id,))
            other.execute("UPDATE jobs SET id = 'nul' || char(0) WHERE id = ?", (nul.id,))
        await world.advance(10)
        assert [await world.store.lift() for _ in range(2)] == [3, 0]
        crew = await world.crew()
        assert not (await crew.beat()).lift
        assert [claim.id for claim in await crew.claim(9)] == [good.id]
        for job in await world.store.get([*names([bad, waits]), "nul\\x00"]):
            assert (job.state, "is no text" in str(job.attempts[-1].failure)) == (State.FAILED, True)
    finally:
        await world.close()
