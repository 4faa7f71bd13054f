"""Rows of the PostgreSQL store as values."""

from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.gate import read_needs
from windlass.model import Attempt, JobRecord
from windlass.store.rows import MICRO, read_end, read_ending, read_fair, read_news, read_state, seconds

COLUMNS = (
    "id, task, queue, priority, state, args, options, attempt, lost, fence, runner, enqueued_at, run_at, started_at, "
    "finished_at, expires_at, cancelling, reason, result, progress, unique_key, tags, attempts, follow, "
    "gates, ahead, fair"
)
WIDTH = COLUMNS.count(",") + 1


def read_job(row: Sequence[Any]) -> JobRecord:
    """A row of COLUMNS."""
    progress, lines = read_news(row[19])
    return JobRecord(
        id=row[0],
        task=row[1],
        queue=row[2],
        priority=row[3],
        state=read_state(row[4]),
        args=row[5].encode("utf-8", "surrogatepass"),
        options=encoded(row[6]),
        attempt=row[7],
        lost=row[8],
        fence=row[9],
        runner=row[10],
        enqueued_at=row[11] / MICRO,
        run_at=row[12] / MICRO,
        started_at=seconds(row[13]),
        finished_at=seconds(row[14]),
        expires_at=seconds(row[15]),
        cancelling=row[16],
        reason=row[17],
        result=encoded(row[18]),
        progress=progress,
        lines=lines,
        unique=row[20],
        tags=tuple(row[21] or ()),
        attempts=tuple(read_attempt(text) for text in row[22] or ()),
        follow=encoded(row[23]),
        gates=read_needs(row[24]),
        ahead=row[25] / MICRO,
        fair=read_fair(row[26]),
    )


def encoded(text: str | None) -> bytes | None:
    """Stored JSON as it was encoded."""
    return None if text is None else text.encode()


def read_attempt(text: str) -> Attempt:
    """One entry of `attempts`."""
    fence, attempt, ending, runner, began, ended, end = msgspec.json.decode(text)
    failure, lines = read_end(None if end is None else msgspec.json.encode(end))
    return Attempt(
        fence=fence,
        attempt=attempt,
        ending=read_ending(ending),
        runner=runner,
        started_at=seconds(began),
        ended_at=ended / MICRO,
        failure=failure,
        lines=lines,
    )
