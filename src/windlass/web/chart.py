"""PURE: charts of what happened, from the sums that a store keeps, as lines to draw and as rows to read."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct

from windlass.model import BUCKETS, EMPTY, Depth, Tally
from windlass.view import duration

Range = Literal["15min", "1h", "6h", "24h", "7d", "30d"]

RANGES: dict[Range, tuple[int, int]] = {
    "15min": (900, 60),
    "1h": (3_600, 60),
    "6h": (21_600, 300),
    "24h": (86_400, 900),
    "7d": (604_800, 7_200),
    "30d": (2_592_000, 21_600),
}
"""How far back each range goes, and its step; in seconds."""

NOW: Literal["1min"] = "1min"
"""The last minute, of which nothing is kept: it is known while somebody looks (minute.py)."""

AnyRange = Literal["1min", Range]

LABELS: dict[AnyRange, str] = {one: re.sub(r"(\d+)", r"\1 ", one) for one in (NOW, *RANGES)}
"""The ranges as they are shown."""

WIDE, HIGH = 400, 90
"""The size of a drawing, in units of its own."""


class Point(Struct, kw_only=True):
    """One step, which begins `at` so many seconds since the epoch. Rates are jobs a minute (None: not known yet), times
    seconds (None: no job began or ended); `depth` the most jobs that were due and did not run, None where nobody
    looked."""

    at: int
    succeeded: float | None = 0.0
    failed: float | None = 0.0
    wait_p50: float | None = None
    wait_p95: float | None = None
    run_p95: float | None = None
    depth: int | None = None


class Line(Struct, frozen=True):
    """One line of a chart: its name, how it is drawn, where, and the last and the highest value as texts."""

    name: str
    kind: str
    path: str
    last: str
    most: str


class Chart(Struct, frozen=True):
    """Lines over the same time; the value at the top as a text."""

    title: str
    top: str
    lines: list[Line]

    @property
    def words(self) -> str:
        """What it shows, for those who do not see it."""
        return f"{self.title}: " + "; ".join(f"{one.name} {one.last} last, at most {one.most}" for one in self.lines)


class Shown(Struct, frozen=True):
    """What a page shows of a range. `before`: from when until when only the average is known."""

    range: AnyRange
    points: Sequence[Point]
    before: tuple[float, float] | None = None

    @property
    def charts(self) -> "list[Chart]":
        """The drawings."""
        return charts(self.points)

    @property
    def labels(self) -> dict[AnyRange, str]:
        """What there is to choose from."""
        return LABELS

    @property
    def when(self) -> str:
        """How its moments are told: without the day where that is no question."""
        return "clock" if self.range in (NOW, "15min") else "local"


def points(tallies: Sequence[Tally], depths: Sequence[Depth], begin: float, end: float, step: int) -> list[Point]:
    """All steps from the one that holds `begin` to the one that holds `end`, which is not over yet; oldest first."""
    first = int(begin // step) * step
    found = {at: Point(at=at) for at in range(first, int(end // step) * step + 1, step)}
    waits = {at: list(EMPTY) for at in found}
    runs = {at: list(EMPTY) for at in found}
    for one in tallies:
        at = one.minute * 60 // step * step
        if (point := found.get(at)) is not None:
            minutes = min(step, max(60, end - at)) / 60
            point.succeeded = (point.succeeded or 0) + one.succeeded / minutes
            point.failed = (point.failed or 0) + one.failed / minutes
            waits[at] = [*map(sum, zip(waits[at], one.waits, strict=True))]
            runs[at] = [*map(sum, zip(runs[at], one.runs, strict=True))]
    for depth in depths:
        if (point := found.get(depth.minute * 60 // step * step)) is not None:
            point.depth = (point.depth or 0) + depth.ready + depth.waiting
    for at, point in found.items():
        point.wait_p50, point.wait_p95 = quantile(waits[at], 0.5), quantile(waits[at], 0.95)
        point.run_p95 = quantile(runs[at], 0.95)
    return list(found.values())


def quantile(counts: Sequence[float], share: float) -> float | None:
    """The time that so large a share took no longer than, by buckets as in `Tally`; None of nothing. What took longer
    than the last bound counts as that."""
    left = share * sum(counts)
    if not left:
        return None
    low = 0.0
    for bound, count in zip(BUCKETS, counts, strict=False):
        if count and left <= count:
            return low + (bound - low) * left / count
        left -= count
        low = bound
    return BUCKETS[-1]


def charts(found: Sequence[Point]) -> list[Chart]:
    """What is drawn: throughput, waits, runs, depth."""
    return [
        chart("Jobs a minute", found, rate, [("succeeded", "good", lambda one: one.succeeded), FAILED]),
        chart("Wait", found, duration, [("p50", "calm", lambda one: one.wait_p50), WAIT_95]),
        chart("Run", found, duration, [("p95", "busy", lambda one: one.run_p95)]),
        chart("Depth", found, number, [("ready or waiting", "calm", lambda one: one.depth)]),
    ]


Value = Callable[[Point], float | None]

FAILED: tuple[str, str, Value] = ("failed", "bad", lambda one: one.failed)
WAIT_95: tuple[str, str, Value] = ("p95", "busy", lambda one: one.wait_p95)


def chart(
    title: str, found: Sequence[Point], text: Callable[[float], str], given: Iterable[tuple[str, str, Value]]
) -> Chart:
    """One chart, whose lines share a scale from 0 up."""
    rows = [(name, kind, [value(one) for one in found]) for name, kind, value in given]
    top = max((value for _, _, values in rows for value in values if value is not None), default=0.0)
    lines = []
    for name, kind, values in rows:
        known = [value for value in values if value is not None]
        last, most = (text(known[-1]), text(max(known))) if known else ("none", "none")
        lines.append(Line(name, kind, path(values, top), last, most))
    return Chart(title, text(top) if top else "", lines)


def path(values: Sequence[float | None], top: float) -> str:
    """A line through the values, with gaps where there are none."""
    found: list[str] = []
    pen = "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x = WIDE * (at + 0.5) / len(values)
        y = HIGH - 2 - (HIGH - 6) * (value / top if top else 0)
        lone = pen == "M" and (at + 1 == len(values) or values[at + 1] is None)
        found.append(f"{pen}{x:.1f} {y:.1f}" + ("h1.5" if lone else ""))
        pen = "L"
    return "".join(found)


def rate(value: float) -> str:
    """Jobs a minute as a text."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def number(value: float) -> str:
    """A whole number as a text."""
    return f"{value:,.0f}"
