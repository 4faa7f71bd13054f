"""The file itself: its URL, its schema, its health."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl

from windlass.config import masked
from windlass.errors import ConfigError
from windlass.store.queries import load_migrations
from windlass.store.sqlite.moves import SQL
from windlass.store.sqlite.rows import one
from windlass.store.sqlite.writer import is_locked

OLDEST = (3, 38, 0)
"""The first SQLite release with all that the statements use: STRICT tables, UPDATE … FROM, JSON built in."""

WAL_RESET_FIXED = (3, 51, 3)
PATIENCE_MS = 10_000


def refuse_old() -> None:
    """Raise `ConfigError` when this Python's SQLite is older than OLDEST."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise ConfigError(
            f"this Python comes with SQLite {sqlite3.sqlite_version}; 3.38 or later is needed. "
            "Use another Python build, or a postgresql:// or redis:// store"
        )


def parse(url: str) -> tuple[str, str]:
    """The path and the `synchronous` setting in a sqlite URL. Raises `ConfigError`."""
    head, _, query = url.partition("?")
    path = head.removeprefix("sqlite:///")
    options = dict(parse_qsl(query))
    synchronous = options.pop("synchronous", "full")
    if not path or path.startswith("sqlite:") or options or synchronous not in ("full", "normal"):
        raise ConfigError(
            "expected sqlite:///path/to/file.db (four slashes for an absolute path), optionally with "
            f"?synchronous=full or ?synchronous=normal; {masked(url)!r} came"
        )
    return path, synchronous.upper()


def apply_migrations(db: sqlite3.Connection) -> list[str]:
    """Bring the schema up to date, one transaction a step; the steps taken. Raises `ConfigError` for a newer schema."""
    steps = known_steps()
    taken: list[str] = []
    for number, name, script in steps:
        if version_of(db) >= number:
            continue
        begin(db)
        try:
            if take_step(db, number, script):
                taken.append(name)
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
    refuse_newer(version_of(db), steps[-1][0])
    return taken


def take_step(db: sqlite3.Connection, number: int, script: str) -> bool:
    """Bring the schema to `number` inside the open transaction; whether it was older."""
    if version_of(db) >= number:
        return False
    for statement in statements(script):
        db.execute(statement)
    db.execute(SQL.add_version, (number,))
    return True


def version_of(db: sqlite3.Connection) -> int:
    """The number of the last step taken, 0 before the first. `PRAGMA user_version` is left to the user, who may keep
    tables in the same file."""
    try:
        return int(one(db, SQL.schema_version) or 0)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return 0


def refuse_newer(version: int, known: int) -> None:
    """Raise `ConfigError` for a schema that only a later release knows."""
    if version > known:
        raise ConfigError(f"the database has schema {version}, this Windlass knows up to {known}: update Windlass")


def bring_up(db: sqlite3.Connection) -> None:
    """The same inside a transaction that is open already. Raises `ConfigError` for a newer schema."""
    steps = known_steps()
    version = version_of(db)
    if version != steps[-1][0]:
        refuse_newer(version, steps[-1][0])
        for number, _, script in steps:
            take_step(db, number, script)


@lru_cache(maxsize=1)
def known_steps() -> list[tuple[int, str, str]]:
    """The migrations, read once."""
    return load_migrations("windlass.store.sqlite")


def use_log(db: sqlite3.Connection) -> None:
    """Write ahead to a log. While another process gives a new file its log, SQLite fails at once; we wait for it.
    Raises `sqlite3.OperationalError`."""
    until = time.monotonic() + PATIENCE_MS / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() >= until:
                db.close()
                raise
        time.sleep(0.01)


def begin(db: sqlite3.Connection) -> None:
    """Take the write lock for a schema change, waiting for other processes that start at the same moment."""
    db.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
    db.execute("BEGIN IMMEDIATE")


def statements(script: str) -> Iterator[str]:
    """The single statements of a script; triggers hold semicolons of their own."""
    statement = ""
    for row in script.splitlines(keepends=True):
        statement += row
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def probe(db: sqlite3.Connection, path: str) -> Mapping[str, str]:
    """`Store.probe`."""
    found = {
        "engine": f"SQLite {sqlite3.sqlite_version}",
        "file": path,
        "schema": str(version_of(db)),
        "journal": str(one(db, "PRAGMA journal_mode")),
        "synchronous": {1: "normal", 2: "full"}.get(one(db, "PRAGMA synchronous"), "?"),
        "integrity": str(one(db, "PRAGMA quick_check(1)")),
    }
    if path != ":memory:":
        sizes = [Path(f"{path}{suffix}") for suffix in ("", "-wal")]
        found["bytes"] = str(sum(file.stat().st_size for file in sizes if file.exists()))
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED:
        found["warning"] = (
            "SQLite before 3.51.3 can damage a file whose log is reset by two programs at once. Windlass keeps its "
            "own processes from that; other programs that write to this file should set wal_autocheckpoint to 0"
        )
    return found
