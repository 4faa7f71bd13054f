"""Statistics in SQLite: two tables, rows of minutes and rows of hours."""

import sqlite3
from collections.abc import Sequence

from windlass.model import Depth, Tally
from windlass.store import tallies
from windlass.store.contract import BATCH
from windlass.store.queries import Queries, load_queries
from windlass.store.rows import MICRO
from windlass.store.sqlite.rows import fetch

Connection = sqlite3.Connection

SQL = Queries(
    **{name: tallies.filled(sql) for name, sql in vars(load_queries("windlass.store.sqlite", "tallies.sql")).items()}
)


def tally(db: Connection, now: int, rows: Sequence[Tally], depths: Sequence[Depth]) -> None:
    """`Store.tally`."""
    lines: dict[tuple[int, int], set[tuple[str, str]]] = {}
    for (span, at, queue, task), values in tallies.added(rows, now / MICRO).items():
        if (span, at) not in lines:
            lines[span, at] = {(one, other) for one, other in fetch(db, SQL.lines, (span, at))}
        db.execute(SQL.add, (span, at, *tallies.kept((queue, task), lines[span, at]), *values))
    queues: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for (span, at, queue), numbers in tallies.deepest(depths, now / MICRO).items():
        if (span, at) not in queues:
            queues[span, at] = {(one,) for (one,) in fetch(db, SQL.queues, (span, at))}
        db.execute(SQL.deepen, (span, at, *tallies.kept((queue,), queues[span, at]), *numbers))


def series(db: Connection, now: int, since: float, until: float, step: int, queue: str | None) -> list[Tally]:
    """`Store.series`."""
    parts = tallies.stretches(since, until, step, now / MICRO)
    rows = [row for part in parts for row in fetch(db, SQL.series, (step, *part, queue))]
    return tallies.read_series(rows)


def depths(db: Connection, now: int, since: float, until: float, step: int, queue: str | None) -> list[Depth]:
    """`Store.depths`."""
    parts = tallies.stretches(since, until, step, now / MICRO)
    rows = [row for part in parts for row in fetch(db, SQL.depths, (step, *part, queue))]
    return tallies.read_depths(rows)


def prune(db: Connection, now: int) -> None:
    """Drop what is kept no longer, at most BATCH rows of each kind."""
    for span, before in tallies.ends(now / MICRO):
        db.execute(SQL.prune_tallies, (span, before, BATCH))
        db.execute(SQL.prune_depths, (span, before, BATCH))
