"""Figures of a field that was disturbed: what its history and its store say."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.faults.field import Field, Mark
from tests.history import Event, Violation, check, tally
from windlass.model import JobRecord

Figures = dict[str, float]

KINDS = {
    "lost": ("lost:", "stuck:"),
    "twice": ("settled twice", "two outcomes", "stored twice", "found twice", "although the outcome"),
    "overlaps": ("still ran",),
}
"""Violations by how they begin or what they contain; any other one is "wrong"."""

SUMS = (
    "rounds",
    "jobs",
    "lost",
    "twice",
    "overlaps",
    "wrong",
    "charged",
    "failed",
    "restarted",
    "restarts",
    "extra",
    "stale",
    "forgotten",
    "orphans",
    "stood",
    "left",
    "silent",
    "early",
    "corrupt",
)


def kind_of(violation: Violation) -> str:
    """Which figure a violation counts in."""
    return next((kind for kind, words in KINDS.items() if any(word in violation.text for word in words)), "wrong")


def judge(field: Field) -> tuple[Figures, list[Violation]]:
    """The figures of a finished field, and what was wrong."""
    events = field.events()
    wrong = check(events)
    found = {job.id: job for job in field.records()}
    kinds = Counter(kind_of(violation) for violation in wrong)
    figures: Figures = {"jobs": len(field.load.put) + len(field.own)}
    figures |= {name: kinds[name] for name in ("lost", "twice", "overlaps", "wrong")}
    figures["charged"] = sum(
        job.attempt != field.load.put[id]
        for id, job in found.items()
        if id in field.load.put and job.state == "succeeded"
    )
    figures["failed"] = sum(not ended_well(field, job) for job in found.values())
    figures["restarted"] = field.started
    figures["extra"] = tally(events)["extra"] - sum(attempts - 1 for attempts in field.load.put.values())
    figures["stale"] = sum(event.what == "settled" and not event.yes for event in events)
    figures["orphans"] = field.orphans
    figures["enqueue"] = round(field.load.slowest, 2)
    return figures, wrong


def ended_well(field: Field, job: JobRecord) -> bool:
    """Whether a job is over as it shall be. One that we killed three times may fail for that."""
    wanted = field.own.get(job.id, "succeeded")
    killed = job.state == "failed" and job.lost >= 3
    return job.state == wanted or not job.state.final or (wanted == "succeeded" and killed and by_us(field, job))


def by_us(field: Field, job: JobRecord) -> bool:
    """Whether each process in which this job was lost was killed by us."""
    deaths = sum(entry.ending in ("lost", "failed") for entry in job.attempts)
    ours = {pid for mark in field.marks for pid in mark.pids}
    starts = {int(event.process) for event in field.events() if event.what == "started" and event.job == job.id}
    return deaths >= 3 and len(starts & ours) >= 3


BACK = ("lost", "interrupted")
"""Endings of attempts that were ended from outside."""

Hit = tuple[Mark, str, int]
"""A mark, and the job and the fence of an attempt that it interrupted."""


def times(field: Field) -> dict[str, Figures]:
    """By fault, how many attempts were interrupted, and the most seconds until each job was ready and started again."""
    stories: defaultdict[str, list[Event]] = defaultdict(list)
    for event in field.events():
        if event.what in ("claimed", "started", "ended", "settled"):
            stories[event.job].append(event)
    handed = {(job.id, entry.fence): entry.ended_at for job in field.records() for entry in job.attempts}
    found: defaultdict[str, Figures] = defaultdict(lambda: {"restarts": 0})
    for mark, job, fence in hits(stories, field.marks):
        figures = found[mark.fault]
        figures["restarts"] += 1
        again = next(event for event in stories[job] if event.what == "started" and event.fence > fence)
        name = "again" if mark.seen else "restart"
        figures[name] = max(figures.get(name, 0.0), again.at - mark.at)
        if mark.seen and (job, fence) in handed:
            figures["ready"] = max(figures.get("ready", 0.0), handed[job, fence] - mark.wall)
    return found


def hits(stories: Mapping[str, Sequence[Event]], marks: Iterable[Mark]) -> Iterator[Hit]:
    """The attempts that each mark interrupted, of jobs that started again before the next mark hit them."""
    claims: defaultdict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for job, story in stories.items():
        for event in story:
            if event.what in ("claimed", "started"):
                claims[event.process].setdefault((job, event.fence), event.at)
    last: dict[str, Hit] = {}
    for mark in sorted(marks, key=lambda mark: mark.at):
        taken = {one: at for pid in mark.pids for one, at in claims[str(pid)].items() if at < mark.at}
        for job, fence in taken:
            if is_open(stories[job], fence, mark.at):
                if (before := last.get(job)) and started_between(stories[job], before[2], mark.at):
                    yield before
                last[job] = (mark, job, fence)
    yield from (hit for hit in last.values() if started_between(stories[hit[1]], hit[2], math.inf))


def is_open(story: Sequence[Event], fence: int, at: float) -> bool:
    """Whether an attempt runs, or is about to, at that moment, and cannot be settled any more."""
    if started_between(story, fence, at):
        return False
    own = [event for event in story if event.fence == fence]
    return not any(
        (event.what == "ended" and event.at < at) or (event.what == "settled" and event.yes and event.word not in BACK)
        for event in own
    )


def started_between(story: Sequence[Event], fence: int, at: float) -> bool:
    """Whether a later attempt had been started by then."""
    return any(event.what == "started" and event.fence > fence and event.at < at for event in story)


def merged(rounds: Iterable[Mapping[str, float]]) -> Figures:
    """Figures of many rounds: counts are added, times are the longest."""
    total: Figures = {}
    for one in rounds:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value if name in SUMS else max(total.get(name, value), value)
    return total
