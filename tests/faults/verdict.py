"""Figures of a field that was disturbed: what its history and its store say."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

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
    "extra",
    "stale",
    "forgotten",
    "orphans",
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


def restarts(events: Sequence[Event], marks: Iterable[Mark]) -> dict[str, list[float]]:
    """By fault, the seconds after which each job started again that a mark interrupted."""
    stories: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.what in ("started", "ended", "settled"):
            stories[event.job].append(event)
    by_pid: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.what == "started":
            by_pid[event.process].append(event)
    found: defaultdict[str, list[float]] = defaultdict(list)
    for mark in marks:
        for start in (start for pid in mark.pids for start in by_pid[str(pid)] if start.at < mark.at):
            after = next_start(start, stories[start.job], mark.at)
            if after is not None:
                found[mark.fault].append(after - mark.at)
    return found


def next_start(start: Event, story: Sequence[Event], at: float) -> float | None:
    """When the job of this attempt was started again, if the attempt was open at that moment."""
    for event in story:
        if event.fence != start.fence:
            continue
        if (event.what == "ended" and event.at < at) or (event.what == "settled" and event.yes):
            return None
    return next((event.at for event in story if event.what == "started" and event.fence > start.fence), None)


def merged(rounds: Iterable[Mapping[str, float]]) -> Figures:
    """Figures of many rounds: counts are added, times are the longest."""
    total: Figures = {}
    for one in rounds:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value if name in SUMS else max(total.get(name, value), value)
    return total
