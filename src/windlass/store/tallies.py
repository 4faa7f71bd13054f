"""What the stores have in common about statistics: which minutes and hours are kept, and how rows are added up.

Each row is added to its minute and to its hour at once, so nothing has to be rolled up, and no sum can drift from
another: what is older than a day is read by the hour, and the minutes of that time are dropped.
"""

import math
from collections.abc import Iterable, Sequence
from operator import add
from typing import Any, TypeVar

from windlass.errors import ConfigError
from windlass.model import EMPTY, Depth, Tally
from windlass.store.contract import OTHER, STEPS

MINUTE, HOUR, DAY = 60, 3_600, 86_400
WHOLE = HOUR // MINUTE
KEPT = 30 * DAY
LINES = 500
"""How many (queue, task) a minute, and an hour, are kept apart; of depths, as many queues."""

COUNTS = ("started", "succeeded", "failed", "cancelled", "retried", "lost")
SUMS = ("waited", "ran")
COLUMNS = (*COUNTS, *SUMS, *(f"{kind}{at}" for kind in ("w", "r") for at in range(len(EMPTY))))
"""The columns that are added up, in the order of `values_of`."""

FIRST = len(COUNTS) + len(SUMS)
"""Where the buckets begin."""

LEVELS = ("ready", "waiting", "scheduled", "running", "oldest")
"""The columns of depths, of which the most counts."""

Key = tuple[int, int, str, str]
"""Seconds that a row tells of (MINUTE or HOUR), the minute of the epoch with which those begin, queue, task."""

Line = TypeVar("Line", bound=tuple[str, ...])

Stretch = tuple[int, int, int]
"""Rows that are read: of so many seconds each, from one minute to before another."""


def filled(sql: str, *, typed: bool = False) -> str:
    """A statement with the names of COLUMNS, and what is done to them. `typed`: for PostgreSQL."""
    types = {name: "::double precision" if name in SUMS else "::bigint" for name in COLUMNS} if typed else {}
    parts = {
        "columns": ", ".join(COLUMNS),
        "marks": ", ".join("?" * len(COLUMNS)),
        "given": ", ".join(f"sum((given ->> {at}){types.get(name)})" for at, name in enumerate(COLUMNS, 4)),
        "added": ", ".join(f"{name} = tallies.{name} + excluded.{name}" for name in COLUMNS),
        "sums": ", ".join(f"sum({name}){types.get(name, '')}" for name in COLUMNS),
    }
    for name, part in parts.items():
        sql = sql.replace(f"{{{name}}}", part)
    return sql


def border(now: float) -> int:
    """The minute before which all is told by the hour: the beginning of an hour, a day ago or a little more."""
    return math.floor((now - DAY) / HOUR) * HOUR // MINUTE


def oldest(now: float) -> int:
    """The first minute that is kept."""
    return math.floor((now - KEPT) / HOUR) * HOUR // MINUTE


def spans(minute: int, now: float) -> Iterable[tuple[int, int]]:
    """The rows to which something of a minute is added, as (seconds, minute in which they begin)."""
    minute = min(minute, math.floor(now / MINUTE))
    if minute >= border(now):
        yield MINUTE, minute
    if minute >= oldest(now):
        yield HOUR, minute // WHOLE * WHOLE


def added(rows: Sequence[Tally], now: float) -> dict[Key, list[float]]:
    """Rows as what is to be added, in the order of their keys, so that no two stores' transactions cross."""
    found: dict[Key, list[float]] = {}
    for row in rows:
        given = values_of(row)
        for span, at in spans(row.minute, now):
            key = (span, at, row.queue, row.task)
            known = found.get(key)
            found[key] = list(given) if known is None else list(map(add, known, given))
    return dict(sorted(found.items()))


def deepest(depths: Sequence[Depth], now: float) -> dict[tuple[int, int, str], list[float]]:
    """The same of depths."""
    found: dict[tuple[int, int, str], list[float]] = {}
    for depth in depths:
        given = [getattr(depth, name) for name in LEVELS]
        for span, at in spans(depth.minute, now):
            key = (span, at, depth.queue)
            known = found.get(key, given)
            found[key] = [max(a, b) for a, b in zip(known, given, strict=True)]
    return dict(sorted(found.items()))


def values_of(row: Tally) -> list[float]:
    """A row as COLUMNS."""
    return [*(getattr(row, name) for name in (*COUNTS, *SUMS)), *row.waits, *row.runs]


def read_tally(minute: int, queue: str, task: str, values: Sequence[Any]) -> Tally:
    """The way back."""
    started, succeeded, failed, cancelled, retried, lost, waited, ran = values[:FIRST]
    return Tally(
        minute=minute,
        queue=queue,
        task=task,
        started=started,
        succeeded=succeeded,
        failed=failed,
        cancelled=cancelled,
        retried=retried,
        lost=lost,
        waited=float(waited),
        ran=float(ran),
        waits=tuple(values[FIRST : FIRST + len(EMPTY)]),
        runs=tuple(values[FIRST + len(EMPTY) :]),
    )


def read_depth(minute: int, queue: str, values: Sequence[Any]) -> Depth:
    """A row of depths."""
    *counts, age = values
    return Depth(minute=minute, queue=queue, **dict(zip(LEVELS, map(int, counts), strict=False)), oldest=float(age))


def stretches(since: float, until: float, step: int, now: float) -> list[Stretch]:
    """The rows that make up a series. Raises `ConfigError`."""
    if type(step) is not int or step < MINUTE or step % MINUTE:
        raise ConfigError(f"expected a step of whole minutes in seconds, such as 60 or 3600; {step!r} came")
    if not (math.isfinite(since) and math.isfinite(until)):
        raise ConfigError(f"expected two moments in seconds since the epoch; {since!r} and {until!r} came")
    first, end = math.floor(since / step) * step // MINUTE, math.ceil(until / step) * step // MINUTE
    if (end - first) * MINUTE > STEPS * step:
        raise ConfigError(f"expected at most {STEPS} steps of {step} s from since to until: give a longer step")
    end = min(end, math.floor(now / MINUTE) + 1)
    middle = end if step % HOUR == 0 else border(now)
    low = max(first // WHOLE * WHOLE, oldest(now))
    parts = [(HOUR, low, min(end, middle)), (MINUTE, max(first, middle), end)]
    return [part for part in parts if part[1] < part[2]]


def kept(name: Line, known: set[Line]) -> Line:
    """Under which name something is kept: its own, or OTHER where LINES are `known`, which grow with it."""
    if name not in known and len(known) >= LINES:
        return type(name)([OTHER] * len(name))
    known.add(name)
    return name


def read_series(rows: Iterable[Sequence[Any]]) -> list[Tally]:
    """Rows of (minute, queue, task, COLUMNS) in order; two of one step, of which hours and minutes tell, are one."""
    found: dict[tuple[int, str, str], Sequence[Any]] = {}
    for row in rows:
        key, values = (row[0], row[1], row[2]), row[3:]
        known = found.get(key)
        found[key] = values if known is None else list(map(add, known, values))
    return [read_tally(*key, values) for key, values in sorted(found.items())]


def read_depths(rows: Iterable[Sequence[Any]]) -> list[Depth]:
    """Rows of (minute, queue, LEVELS) in the same way."""
    found: dict[tuple[int, str], list[float]] = {}
    for minute, queue, *values in rows:
        known = found.get((minute, queue), values)
        found[minute, queue] = [max(a, b) for a, b in zip(known, values, strict=True)]
    return [read_depth(*key, values) for key, values in sorted(found.items())]


def ends(now: float) -> tuple[tuple[int, int], ...]:
    """Before which minute rows of a span are dropped."""
    return (MINUTE, border(now)), (HOUR, oldest(now))
