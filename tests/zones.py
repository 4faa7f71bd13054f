"""Cron in all time zones against a walk over every minute of UTC, which shares the written rules and no code.

`python -m tests.zones` groups all IANA zones by their offsets over two years. For each group and each of the
expressions below it compares all ticks of these years. Those of expressions with seconds, or with very many ticks, are
compared within five days of each change of the clocks. Questions from moments around each change, ticks or not, follow.
`--year 2010` takes other two years: Samoa's lost day, and what has become of Russia's summer.

The rules are written in docs/design/schedules.md. Times are whole seconds since 1970 in UTC, or on the wall.
"""

import argparse
import calendar
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache, partial
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt

from tests.spread import PROCESSES, Progress, spread
from windlass import cron

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}

EXPRESSIONS = re.split(
    r" {3}|\n",
    """\
0 0 * * *   30 0 * * *   15 1 * * *   30 1 * * *   45 1 * * *   0 2 * * *   30 2 * * *   0 3 * * *
59 23 * * *   0,15,30,45 2 * * *   0 1,2,3 * * *   30 0-3 * * *   */30 2 * * *   */15 23,0 * * *
* 2 * * *   10-50/20 1-3/2 * * *   0 0/6 * * *   30 0-22/2 * * *
0 * * * *   */15 * * * *   */7 */5 * * *   30 */2 * * *   0 */12 * * *   15 0-23 * * *
20 0-11,12-23 * * *   40 *,5 * * *   */5 * * * *   * * * * *
30 2 L * *   30 1 LW * *   30 0 15W * *   0 0 1W,20,31W * *   30 2 * * SUN#2   30 1 * * 7L
0 0 * * FRI#5,5L   0 0 13 * FRI   30 2 8-14 * SUN   30 2 */2 * 0   0 * 25-31 3,10 */7   0 0 29 2 *
30 2 * MAR,OCT,NOV SUN   45 23 L 3-10/7 5,6   0 * 1 1 *   */30 0-4 * APR-OCT MON-FRI
@hourly   @daily   @weekly   @monthly   @yearly
0 30 2 * * *   30 59 1 * * *   59 59 23 * * *   * 0 2 * * *   */10 */10 0-3 * * *   15,45 0 * * * *
*/20 * * * * *   * * * * * *   7 */13 * * * *   30 15 */2 L * *   1-59/29 30 0,1,2,3 * * 0""",
)
"""Fixed hours, wildcard hours, all that days can be, aliases, and seconds; three spaces stand between two."""

MINUTE, HOUR, DAY = 60, 3_600, 86_400
AROUND = 5 * DAY
"""How far from a change of the clocks seconds are walked."""

LEAD = 3 * DAY
"""How long before it counts the walk begins: it has to know what the clocks have shown already."""

MANY = 75_000
"""More ticks than this are not all compared, but those within `AROUND`, the nearest ones if there are more yet."""

Ticks = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]
Clocks = tuple[tuple[int, int], ...]
"""How far the wall is ahead of UTC, and from when on."""


# What the clocks do


def clocks_of(name: str, begin: int, end: int) -> Clocks:
    """The changes of a zone, the first entry being what holds at the begin; no two of them are within six hours."""
    zone = ZoneInfo(name)

    def ahead(moment: int) -> int:
        offset = datetime.fromtimestamp(moment, zone).utcoffset()
        assert offset is not None
        return round(offset.total_seconds())

    found = [(begin, ahead(begin))]
    for start in range(begin, end, 6 * HOUR):
        if ahead(start + 6 * HOUR) != found[-1][1]:
            change = start
            for step in (HOUR, MINUTE, 1):
                while ahead(change + step) == found[-1][1]:
                    change += step
            found.append((change + 1, ahead(change + 1)))
    return tuple(found)


@dataclass(frozen=True)
class Group:
    """Zones whose clocks show the same from `begin` to `end`."""

    names: tuple[str, ...]
    clocks: Clocks
    begin: int
    end: int

    @property
    def changes(self) -> list[int]:
        return [moment for moment, _ in self.clocks[1:] if self.begin <= moment <= self.end]

    def shown(self, moments: Ticks) -> Ticks:
        """What the wall shows."""
        since, ahead = np.array(self.clocks, np.int64).T
        shown: Ticks = moments + ahead[np.searchsorted(since, moments, "right") - 1]
        return shown


def groups(names: Iterable[str], year: int, years: int = 2) -> list[Group]:
    """Groups of zones over some years, the largest first."""
    begin, end = (int(datetime(one, 1, 1, tzinfo=UTC).timestamp()) for one in (year, year + years))
    alike: dict[Clocks, list[str]] = {}
    for name in names:
        alike.setdefault(clocks_of(name, begin - 2 * LEAD, end + LEAD), []).append(name)
    found = [Group(tuple(sorted(names)), clocks, begin, end) for clocks, names in alike.items()]
    return sorted(found, key=lambda group: (-len(group.names), group.names))


# What an expression says


def numbers(field: str, low: int, high: int, names: str = "") -> set[int]:
    """The numbers of a field: `*`, `a`, `a-b` and lists of them, with `/step`; `a/step` goes to the end."""
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        start = low if first == "*" else number(first, low, names)
        stop = high if first == "*" or (step and not last) else number(last or first, low, names)
        found |= set(range(start, stop + 1, int(step or 1)))
    return found


def number(text: str, low: int, names: str) -> int:
    return int(text) if text.isdigit() else names.split().index(text) + low


MONTHS, WEEKDAYS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", "SUN MON TUE WED THU FRI SAT"


def in_month(term: str, day: date) -> bool:
    """Whether a term of the day of the month says so: 13, 8-14, L, LW, 15W."""
    last = calendar.monthrange(day.year, day.month)[1]
    if term == "L":
        return day.day == last
    if term == "LW":
        return day.day == max(n for n in range(1, last + 1) if day.replace(day=n).isoweekday() < 6)
    if term.endswith("W"):
        aim = int(term[:-1])
        working = [n for n in range(1, last + 1) if day.replace(day=n).isoweekday() < 6]
        return aim <= last and day.day == min(working, key=lambda n: abs(n - aim))
    return day.day in numbers(term, 1, 31)


def in_week(term: str, day: date) -> bool:
    """Whether a term of the day of the week says so: 5, MON-FRI, 7L, MON#2."""
    which, _, nth = term.partition("#")
    if nth and (day.day + 6) // 7 != int(nth):
        return False
    if term.endswith("L"):
        which = term[:-1]
        if day.day + 7 <= calendar.monthrange(day.year, day.month)[1]:
            return False
    return day.isoweekday() % 7 in {n % 7 for n in numbers(which, 0, 7, WEEKDAYS)}


def among(field: str, count: int) -> Marks:
    """Which of the first numbers from 0 on are in a field."""
    return np.isin(np.arange(count), list(numbers(field, 0, count - 1)))


@dataclass(frozen=True)
class Told:
    """An expression, read from its text alone."""

    parts: tuple[str, ...]

    @property
    def unit(self) -> int:
        return 1 if len(self.parts) == 6 else MINUTE

    @property
    def elapsed(self) -> bool:
        """Whether rule 2 holds: the hour is a wildcard."""
        return self.parts[-4].startswith("*") or len(numbers(self.parts[-4], 0, 23)) == 24

    def on(self, day: date) -> bool:
        month_days, months, week_days = self.parts[-3:]
        if day.month not in numbers(months, 1, 12, MONTHS):
            return False
        of_month = any(in_month(term, day) for term in month_days.split(","))
        of_week = any(in_week(term, day) for term in week_days.split(","))
        both = month_days.startswith("*") or week_days.startswith("*")
        return of_month and of_week if both else of_month or of_week

    def times(self) -> Marks:
        """The minutes, or the seconds, of a day."""
        *finer, minutes, hours = self.parts[:-3]
        marks = np.outer(among(hours, 24), among(minutes, 60)).ravel()
        return np.outer(marks, among(finer[0], 60)).ravel() if finer else marks


def told(expression: str) -> Told:
    return Told(tuple(ALIASES.get(expression, expression).split()))


@cache
def days(expression: str, first: int, count: int) -> Marks:
    """Which days match, from the day `first` after 1970 on."""
    begin = date(1970, 1, 1) + timedelta(days=first)
    return np.array([told(expression).on(begin + timedelta(days=n)) for n in range(count)])


class Walk(NamedTuple):
    """All minutes or seconds of UTC, which of those from the day `first` on the wall shows then, and the latest yet."""

    moments: Ticks
    first: int
    length: int
    place: Ticks
    latest: Ticks


@lru_cache(maxsize=12)  # two years, and what is around their changes, in minutes and in seconds
def walk(group: Group, begin: int, end: int, unit: int) -> Walk:
    moments = np.arange(begin - LEAD, end + 1, unit, dtype=np.int64)
    shown = group.shown(moments)
    if (shown % unit).any():
        raise ValueError(f"{group.names[0]}: expected offsets of whole minutes in these years")
    first, last = int(shown.min()) // DAY, int(shown.max()) // DAY
    place = (shown - first * DAY) // unit
    return Walk(moments, first, last - first + 1, place, np.maximum.accumulate(place))


def due(expression: str, group: Group, begin: int, end: int) -> Ticks:
    """All ticks from `begin` up to `end` by the written rules."""
    one = told(expression)
    moments, first, length, place, latest = walk(group, begin, end, one.unit)
    wall = np.outer(days(expression, first, length), one.times()).ravel()
    if one.elapsed:
        marks = wall[place]
    else:
        so_far = np.cumsum(wall, dtype=np.int32)[latest]  # how many were shown or skipped
        marks = np.diff(so_far, prepend=so_far[0]) > 0
    found: Ticks = moments[marks]
    return found[found >= begin]


# The comparison


@dataclass
class Outcome:
    """What came out for a group; `differences` are sentences, the shortest expression first."""

    ticks: int
    questions: int
    differences: list[tuple[str, str]]


def walked(expression: str, zone: str, begin: int, end: int, most: int) -> list[float]:
    """All ticks from `begin` up to `end`, each asked for from the one before, as it came; no more than `most`."""
    rule, found = cron(expression, tz=zone), list[float]()
    tick = rule.next_after(datetime.fromtimestamp(begin, UTC) - datetime.resolution)
    while tick and (moment := tick.timestamp()) <= end and len(found) < most:
        found.append(moment)
        tick = rule.next_after(tick)
    return found


def compare(group: Group, most: int = MANY, whole: bool = True) -> Outcome:
    """All expressions on the clocks of a group: over its years if `whole`, and around its changes."""
    outcome = Outcome(0, 0, [])
    for expression in EXPRESSIONS:
        wide = whole and told(expression).unit == MINUTE
        ticks = due(expression, group, group.begin, group.end) if wide else None
        if ticks is not None and len(ticks) <= most:
            stretch(outcome, expression, group, ticks, group.begin, group.end)
        for change in group.changes or [(group.begin + group.end) // 2]:
            begin, end = max(group.begin, change - AROUND), min(group.end, change + AROUND)
            near = due(expression, group, begin, end)
            if ticks is None or len(ticks) > most:
                few, first, last = nearest(near, change, most, begin, end)
                stretch(outcome, expression, group, few, first, last)
            ask(outcome, expression, group, near, change, end)
    outcome.differences.sort(key=lambda pair: (len(pair[0]), pair))
    return outcome


def nearest(ticks: Ticks, change: int, most: int, begin: int, end: int) -> tuple[Ticks, int, int]:
    """The ticks next to a change, up to `most`, and from when to when these are all."""
    middle = int(np.searchsorted(ticks, change))
    low, high = max(0, middle - most // 2), min(len(ticks), middle + most // 2)
    few = ticks[low:high]
    return few, begin if low == 0 else int(few[0]), end if high == len(ticks) else int(few[-1])


def stretch(outcome: Outcome, expression: str, group: Group, ticks: Ticks, begin: int, end: int) -> None:
    """Compares all ticks from `begin` up to `end`."""
    found = walked(expression, group.names[0], begin, end, len(ticks) + 1)
    outcome.ticks += len(ticks)
    if found != ticks.tolist():
        wrong = min(set(found) ^ set(ticks.tolist()), default=begin)
        what = "is due by the rules, and was left out" if wrong in set(ticks.tolist()) else "came, and is not due"
        outcome.differences.append((expression, f"cron({expression!r}, tz={group.names[0]!r}): {utc(wrong)} {what}"))


def ask(outcome: Outcome, expression: str, group: Group, ticks: Ticks, change: int, end: int) -> None:
    """Asks from moments around a change that are no ticks, within gaps and repeats too."""
    rule = cron(expression, tz=group.names[0])
    for moment in (*range(change - 3 * HOUR, change + 3 * HOUR, 29 * MINUTE), change - 1, change, change + 1):
        place = int(np.searchsorted(ticks, moment, "right"))
        wanted = float(ticks[place]) if place < len(ticks) else None
        tick = rule.next_after(datetime.fromtimestamp(moment, UTC))
        found = tick.timestamp() if tick and tick.timestamp() <= end else None
        outcome.questions += 1
        if found != wanted:
            text = f"after {utc(moment)} {utc(wanted)} is due, and {utc(found)} came"
            outcome.differences.append((expression, f"cron({expression!r}, tz={group.names[0]!r}): {text}"))


def utc(moment: float | None) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%SZ}" if moment is not None else "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zones", description=__doc__)
    parser.add_argument("--year", type=int, default=2026, help="the first of two")
    parser.add_argument("--first", type=int, default=0, help="the first group")
    parser.add_argument("--groups", type=int, default=None, help="how many; all, if not given")
    parser.add_argument("--most", type=int, default=MANY, help="ticks that are all compared; of more, the nearest")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="how many at a time")
    given = parser.parse_args()
    names = available_timezones() - {"localtime"}  # the last is a name of this machine alone
    found = groups(sorted(names), given.year)
    print(f"{len(names)} zones in {len(found)} groups, {len(EXPRESSIONS)} expressions", flush=True)
    found = found[given.first :][: given.groups]
    progress, ticks, questions, wrong = Progress(len(found), "groups"), 0, 0, list[tuple[str, str]]()
    with spread(partial(compare, most=given.most), found, given.processes) as results:
        for outcome in results:
            ticks, questions = ticks + outcome.ticks, questions + outcome.questions
            wrong += outcome.differences
            go_on = f"--year {given.year} --most {given.most} --first {given.first + progress.done + 1}"
            progress.add(1, f"; {len(wrong)} differences in {ticks:,} ticks; go on with {go_on}")
    print(f"{progress}: {len(wrong)} differences in {ticks:,} ticks and {questions:,} other questions")
    for _, story in sorted(wrong, key=lambda pair: (len(pair[0]), pair))[:20]:
        print(story)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
