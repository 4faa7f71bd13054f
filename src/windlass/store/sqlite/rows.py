"""Rows of the SQLite store as values, and values as rows."""

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from windlass.errors import StoreUnavailable
from windlass.gate import read_needs, write_needs
from windlass.model import TURN, Attempt, Claim, JobRecord, NewJob, Past
from windlass.store.rows import (
    MICRO,
    claimed_at,
    micros,
    read_end,
    read_ending,
    read_fair,
    read_news,
    read_state,
    seconds,
    write_end,
)

COLUMNS = (
    "id, task, queue, priority, state, args, options, attempt, lost, fence, runner, enqueued_at, run_at, started_at, "
    "finished_at, expires_at, cancelling, reason, result, progress, unique_key, follow, gates, "
    "ahead, fair"
)


def text(data: bytes | None) -> str | None:
    """Encoded JSON as it is stored."""
    return None if data is None else data.decode()


def raw(data: str | bytes | None) -> bytes | None:
    """Stored JSON as it was encoded; a row that somebody else wrote may hold a blob."""
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data


def due_of(job: NewJob, now: int) -> int:
    """When a job is due."""
    if job.run_at is not None:
        return micros(job.run_at)
    return now + micros(job.delay) if job.delay > 0 else now


def new_row(job: NewJob, now: int) -> tuple[Any, ...]:
    """A job as the columns of `put_jobs`. A key that is held for a time is no business of the job's any more."""
    past, due = job.past, due_of(job, now)
    return (
        job.id,
        f"{job.queue}/{job.task}{'!' if past and past.lost else ''}",
        job.queue,
        job.task,
        job.priority,
        (due if past else max(now, due)) - micros(job.ahead),
        "scheduled" if due > now else "waiting" if job.gates else "ready",
        due,
        None if job.expires_in is None else now + micros(job.expires_in),
        job.args.decode(),
        None if job.options is None else job.options.decode(),
        None if job.unique_for else job.unique,
        micros(past.enqueued_at) if past else now,
        write_needs(job.gates),
        micros(job.ahead),
        None if job.fair is None else msgspec.json.encode(job.fair).decode(),
        None if job.fair is None else job.fair.key,
        0 if job.fair is None else max(1, round(TURN / job.fair.weight)),
    )


def past_row(job: NewJob, past: Past) -> tuple[Any, ...]:
    """What a job brings along, as the columns of `put_past`."""
    return past.attempt, past.lost, past.fence, claimed_at(past), job.id


def attempt_row(job: str, attempt: Attempt) -> tuple[Any, ...]:
    """An attempt made in another store, as the columns of `put_attempts`."""
    return (
        job,
        attempt.fence,
        attempt.attempt,
        attempt.ending,
        attempt.runner,
        None if attempt.started_at is None else micros(attempt.started_at),
        micros(attempt.ended_at),
        write_end(attempt),
    )


def read_claim(row: Sequence[Any]) -> Claim:
    """A row of `claimed`."""
    return Claim(
        id=row[0],
        fence=row[1],
        seq=row[2],
        task=row[3],
        queue=row[4],
        args=raw(row[5]) or b"",
        options=raw(row[6]),
        priority=row[7],
        attempt=row[8],
        lost=row[9],
        enqueued_at=row[10] / MICRO,
        run_at=row[11] / MICRO,
    )


def read_job(row: Sequence[Any], tags: tuple[str, ...], attempts: tuple[Attempt, ...]) -> JobRecord:
    """A row of COLUMNS."""
    progress, lines = read_news(row[19])
    return JobRecord(
        id=row[0],
        task=row[1],
        queue=row[2],
        priority=row[3],
        state=read_state(row[4]),
        args=raw(row[5]) or b"",
        options=raw(row[6]),
        attempt=row[7],
        lost=row[8],
        fence=row[9],
        runner=row[10],
        enqueued_at=row[11] / MICRO,
        run_at=row[12] / MICRO,
        started_at=seconds(row[13]),
        finished_at=seconds(row[14]),
        expires_at=seconds(row[15]),
        cancelling=bool(row[16]),
        reason=row[17],
        result=raw(row[18]),
        progress=progress,
        lines=lines,
        unique=row[20],
        tags=tags,
        attempts=attempts,
        follow=raw(row[21]),
        gates=read_needs(row[22]),
        ahead=row[23] / MICRO,
        fair=read_fair(row[24]),
    )


def read_attempt(row: Sequence[Any]) -> Attempt:
    """A row of `attempts_of`, without the job in front."""
    failure, lines = read_end(row[7])
    return Attempt(
        fence=row[1],
        attempt=row[2],
        ending=read_ending(row[3]),
        runner=row[4],
        started_at=seconds(row[5]),
        ended_at=row[6] / MICRO,
        failure=failure,
        lines=lines,
    )


def pieces(rows: Sequence[Any], most: int) -> Iterable[Sequence[Any]]:
    """`rows` in pieces whose lengths are powers of two up to `most`, so that few statements serve all batches."""
    start = 0
    while start < len(rows):
        size = min(most, 1 << ((len(rows) - start).bit_length() - 1))
        yield rows[start : start + size]
        start += size


def flat(rows: Iterable[Sequence[Any]]) -> list[Any]:
    """All values of all rows, one after another."""
    return [value for row in rows for value in row]


@lru_cache(maxsize=64)
def filled(sql: str, width: int, count: int) -> str:
    """`sql` with its {rows} for a batch of `count` rows of `width` values."""
    row = f"({', '.join('?' * width)})"
    return sql.replace("{rows}", ", ".join([row] * count))


class Unreadable(StoreUnavailable):
    """A name that somebody else wrote, or a disk damaged, is no text; `mend.mend` makes it one."""


def exact(db: sqlite3.Connection, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
    """All rows, whose texts may be given back to SQLite. Raises `Unreadable` where one is no UTF-8."""
    try:
        return db.execute(sql, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
        raise Unreadable(f"a row that was not written by Windlass is in the way: {error}") from error


def fetch(db: sqlite3.Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """All rows, to be shown; of a text that is no UTF-8, what is not comes as halves of surrogate pairs."""
    try:
        return exact(db, sql, parameters)
    except Unreadable:
        pass
    before, db.text_factory = db.text_factory, lambda data: data.decode("utf-8", "surrogateescape")
    try:
        return db.execute(sql, parameters).fetchall()
    finally:
        db.text_factory = before


def sound(text: str) -> bool:
    """Whether a text of `fetch` is UTF-8 in the database too, without the NUL that ends a text in SQLite's JSON."""
    return not any(one == "\0" or "\udc80" <= one <= "\udcff" for one in text)


def bound(value: Any) -> Any:
    """What `fetch` gave, for a `CAST(? AS TEXT)`."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def one(db: sqlite3.Connection, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Any:
    """The first value of the first row, or None. Raises `Unreadable`."""
    rows = exact(db, sql, parameters)
    return rows[0][0] if rows else None
