"""Rows whose names are no text, as somebody else wrote them or a disk damaged them: nobody can give such a name back.

Met by a write, the jobs among them fail, under ids that can be named; other rows of that kind are dropped. This walks
tables, and runs only then.
"""

import logging
import sqlite3
import uuid

import msgspec

from windlass.model import Ending, Failure
from windlass.store.sqlite.moves import SQL, add_attempt, depart_runner
from windlass.store.sqlite.rows import bound, fetch, one, sound

logger = logging.getLogger("windlass.store")

Connection = sqlite3.Connection


NAMES = (
    ("marks", "job"),
    ("workers", "id"),
    ("runners", "id"),
    ("runners", "worker"),
    ("holds", "gate"),
    ("holds", "job"),
    ("blocked", "line"),
    ("blocked", "gates"),
    ("blocked", "gate"),
    ("blocked", "id"),
    ("stirred", "line"),
    ("stirred", "gates"),
    ("freed", "gate"),
)
"""Where a row goes whose name is no text."""


def mend(db: Connection, now: int) -> None:
    """Leave no row that raises `Unreadable` in a write."""
    failed = [fail(db, now, id, "id") for id in broken(db, "jobs", "id")]
    for line in (row[0] for row in fetch(db, SQL.lines) if not sound(row[0])):
        failed += [fail(db, now, row[0], "queue or task") for row in fetch(db, SQL.ready_in, (bound(line),))]
    for gates in broken(db, "jobs", "gates"):
        failed += [fail(db, now, row[0], "gates") for row in fetch(db, SQL.behind_gates, (bound(gates),))]
    dropped = 0
    for table, column in NAMES:
        for name in broken(db, table, column):
            dropped += db.execute(named(SQL.drop_broken, table, column), (bound(name),)).rowcount
    for row in fetch(db, SQL.orphans):
        depart_runner(db, now, row[0], Ending.LOST)
    logger.error(
        "rows that were damaged, or not written by Windlass, had names that are no text: %d jobs have failed or were "
        "renamed (%s), %d other rows were dropped",
        len(failed),
        ", ".join(map(ascii, failed[:5])) or "none",
        dropped,
    )


def named(sql: str, table: str, column: str) -> str:
    """A statement for one column of one table."""
    return sql.replace("{table}", table).replace("{column}", column)


def broken(db: Connection, table: str, column: str) -> list[str]:
    """The values of a column that are no UTF-8, as `fetch` gives them."""
    return [row[0] for row in fetch(db, named(SQL.unusual, table, column)) if not sound(row[0])]


def fail(db: Connection, now: int, id: str, what: str) -> str:
    """Fail a job, unless it is over, because its `what` is no text; its id from now on."""
    old = bound(id)
    ended = db.execute(SQL.fail_broken, (now, old)).rowcount
    if not sound(id):
        id = old.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
        if one(db, SQL.state_of, (id,)) is not None:
            id = f"{id}-{uuid.uuid4()}"
        for table, column in (("jobs", "id"), ("attempts", "job"), ("tags", "job")):
            db.execute(named(SQL.rename, table, column), (id, old))
    if ended:
        message = f"the stored {what} of this job is no text: the row was damaged, or not written by Windlass"
        failure = Failure(type="windlass.errors.DecodeError", message=message)
        add_attempt(db, now, id, 0, Ending.FAILED, msgspec.json.encode(failure).decode())
    return id
