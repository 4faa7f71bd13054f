"""What operators and full queues do to jobs that do not run: make room, put them elsewhere."""

import sqlite3
from typing import Any

from msgspec import UNSET

from windlass.gate import write_needs
from windlass.model import Shed
from windlass.place import EARLY, LIFTED, Change, Place
from windlass.store.contract import BATCH
from windlass.store.queries import load_queries
from windlass.store.rows import micros
from windlass.store.sqlite.gates import SQL as GATES
from windlass.store.sqlite.moves import SQL as MOVES
from windlass.store.sqlite.rows import exact, fetch, one, text

SQL = load_queries("windlass.store.sqlite", "control.sql")

Connection = sqlite3.Connection


def shed(db: Connection, now: int, queue: str, most: int, below: int | None, reason: str) -> Shed:
    """`Store.shed`."""
    depth: int = one(db, SQL.depth, {"queue": queue})
    count = min(depth - most, BATCH)
    if count <= 0:
        return Shed(ids=(), left=depth)
    sql = SQL.first_due if below is None else SQL.lowest
    ids = [row[0] for row in exact(db, sql, {"queue": queue, "count": count, "below": below})]
    if len(ids) < count:
        return Shed(ids=(), left=depth)
    for id in ids:
        db.execute(MOVES.cancel, {"id": id, "now": now, "reason": reason})
    return Shed(ids=tuple(ids), left=depth - count)


def amend(db: Connection, change: Change) -> bool:
    """Have one job stand elsewhere; whether it stood as was thought. One behind gates leaves its place, then comes
    anew."""
    rows = fetch(db, SQL.standing_of, (change.id,))
    if not rows:
        return False
    state, rank, *stands = rows[0]
    if stands[:4] != columns(change.was) or (change.was.options is not UNSET and stands[4] != text(change.was.options)):
        return False
    now, (gates, ahead) = change.now, stands[2:4]
    named: dict[str, Any] = {
        "id": change.id,
        **dict(zip(("queue", "priority", "gates", "ahead"), columns(now), strict=True)),
        "rank": rank + ahead - micros(now.ahead),
        "kept": now.options is UNSET,
        "options": None if now.options is UNSET else text(now.options),
    }
    if state == "scheduled" or (gates is None and not now.gates):
        db.execute(SQL.amend, named)
    else:
        db.execute(SQL.put_off, named)
        db.execute(SQL.amend, named)
        db.execute(SQL.bring_back, named)
        db.execute(SQL.give_rank, named)
    if gates is not None:
        give_up(db, change.id, {need.gate for need in now.gates if need.keep})
    return True


def lags(db: Connection, now: int) -> bool:
    """Whether there are jobs to lift."""
    return bool(one(db, SQL.lags, (now + micros(EARLY),)))


def lift(db: Connection, now: int) -> int:
    """`Store.lift`."""
    named = {"upto": now + micros(EARLY), "most": BATCH, "priority": LIFTED}
    db.execute(SQL.stir_behind, named)
    return db.execute(SQL.lift, named).rowcount


def give_up(db: Connection, id: str, keeps: set[str]) -> None:
    """Free the gates that a job which does not run has kept, but for those that it keeps on."""
    for (gate,) in exact(db, GATES.kept_by, (id,)):
        if gate not in keeps:
            db.execute(GATES.give_up, (gate, id))
            db.execute(GATES.call, (gate, 0, 0))


def columns(place: Place) -> list[Any]:
    """Where a job stands, as rows have it: queue, priority, gates, ahead."""
    return [place.queue, place.priority, write_needs(place.gates), micros(place.ahead)]
