"""Statistics in Redis: a hash for each minute and each hour, which expires by itself."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from windlass.model import Depth, Tally
from windlass.store import tallies
from windlass.store.contract import OTHER
from windlass.store.redis.records import encode, text

Run = Callable[..., Awaitable[Any]]

LINES = 200
"""How many (queue, task) a minute, and an hour, are kept apart: fewer than elsewhere, as all is in memory."""

WRITTEN = 200
"""Rows that one script writes."""

READ = 60
"""Hashes that one script reads."""

SUMS, MOST = "t", "td"

_values = msgspec.msgpack.Decoder(list[int | float])


async def tally(run: Run, now: float, rows: Sequence[Tally], depths: Sequence[Depth]) -> None:
    """`Store.tally`."""
    added = {
        (span, at, f"{queue}/{task}"): values for (span, at, queue, task), values in tallies.added(rows, now).items()
    }
    await write(run, now, SUMS, f"{OTHER}/{OTHER}", added)
    await write(
        run, now, MOST, f"{OTHER}/", {(*key[:2], f"{key[2]}/"): n for key, n in tallies.deepest(depths, now).items()}
    )


async def write(
    run: Run, now: float, kind: str, other: str, rows: Mapping[tuple[int, int, str], Sequence[float]]
) -> None:
    """Write rows, so many at a time."""
    first = dict(tallies.ends(now))
    flat = [
        (f"{span}:{at}", (at - first[span]) * tallies.MINUTE + tallies.HOUR, name, values)
        for (span, at, name), values in rows.items()
    ]
    for start in range(0, len(flat), WRITTEN):
        piece = [value for row in flat[start : start + WRITTEN] for value in row]
        await run("tally", kind, LINES, other, encode(piece))


async def read(
    run: Run, kind: str, parts: Sequence[tallies.Stretch], step: int, queue: str | None
) -> list[tuple[Any, ...]]:
    """Rows as `tallies` reads them, of the stretches of a series."""
    prefix = "" if queue is None else f"{queue}/"
    found: list[tuple[Any, ...]] = []
    for span, low, high in parts:
        each = span // tallies.MINUTE
        for start in range(low, high, READ * each):
            minutes = range(start, min(high, start + READ * each), each)
            flat = await run("series", kind, prefix, *(f"{span}:{at}" for at in minutes))
            for at in range(0, len(flat), 3):
                found += row_of(
                    minutes[flat[at]] * tallies.MINUTE // step * step // tallies.MINUTE, *flat[at + 1 : at + 3]
                )
    return found


def row_of(minute: int, name: bytes, packed: bytes) -> list[tuple[Any, ...]]:
    """A row; none of what nobody of ours wrote."""
    try:
        values = _values.decode(packed)
    except msgspec.MsgspecError:
        return []
    queue, _, task = text(name).partition("/")
    if len(values) == len(tallies.COLUMNS):
        return [(minute, queue, task, *values)]
    return [(minute, queue, *values)] if len(values) == len(tallies.LEVELS) else []
