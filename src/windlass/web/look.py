"""PURE: what stands on a page, from what was read: totals, queues, problems, failures by cause, a job's timeline."""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from windlass.jobs import Job
from windlass.model import JobRecord, State
from windlass.queues import Paused
from windlass.schedules import Schedule
from windlass.values import visible
from windlass.view import ENDINGS, NO_WORKER, duration, is_late, living, nobody
from windlass.web.live import Snapshot

VARIES = re.compile(
    r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}\b|\d+(?:[.,:]\d+)*"
)
"""What differs between two messages of one cause."""

LINE = 160
"""Characters of a message that tell causes apart."""

NOTHING = "-"
"""In place of an error that was not kept, or said nothing."""

MOST_CAUSES = 500

LONG_WAIT = 300.0
"""Seconds that a ready job may wait before it is worth a word."""


class Problem(Struct, frozen=True):
    """Something that a person on call should know: what, why, and where to look."""

    what: str
    why: str
    link: str = ""


class Totals(Struct, frozen=True):
    """All live jobs by state, the seconds that the oldest ready one waits, and the slots of living workers. `exact`:
    whether all numbers are of now."""

    states: dict[str, int]
    oldest: float
    slots: int
    exact: bool


class QueueView(Struct, frozen=True):
    """One queue: its jobs by state, the seconds that its oldest ready job waits, and the same by task with why nobody
    would run them."""

    name: str
    states: dict[str, int]
    oldest: float
    tasks: list["TaskView"]
    paused: Paused | None = None
    draining: Paused | None = None
    exact: bool = True
    """Whether its numbers are of now."""

    @property
    def total(self) -> int:
        """Its live jobs."""
        return sum(self.states.values())


class TaskView(Struct, frozen=True):
    """One task of a queue."""

    name: str
    states: dict[str, int]
    oldest: float
    problem: str
    paused: Paused | None = None
    exact: bool = True


class Cause(Struct):
    """Failed jobs of one task with one kind of error, whose messages begin alike: how many, the newest, and when the
    first of them failed."""

    task: str
    error: str
    shape: str
    newest: Job[Any]
    count: int = 0
    since: float | None = None

    @property
    def query(self) -> dict[str, str]:
        """The same as what narrows jobs."""
        return {"state": "failed", "task": self.task, "error": self.error, "shape": self.shape}


class Causes:
    """Failed jobs by what went wrong, as they are read: newest first. What comes after MOST_CAUSES others is only
    counted, in `rest`."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Cause] = {}
        self.rest = 0

    @property
    def list(self) -> list[Cause]:
        """The causes, that of the newest failure first."""
        return [*self._found.values()]

    def add(self, jobs: Sequence[Job[Any]]) -> None:
        """Count some more."""
        for job in jobs:
            key = (job.task, *cause_of(job))
            if key not in self._found and len(self._found) >= MOST_CAUSES:
                self.rest += 1
                continue
            cause = self._found.setdefault(key, Cause(*key, newest=job))
            cause.count += 1
            cause.since = job.record.finished_at


class Span(Struct, frozen=True):
    """A part of a job's life: `kind` is wait or run; `at` and `wide` in percent of all, `seconds` long."""

    kind: str
    at: float
    wide: float
    began: float
    seconds: float
    ending: str


def totals(snapshot: Snapshot) -> Totals:
    """The numbers at the top."""
    states = dict.fromkeys(map(str, State), 0)
    for line in snapshot.lines:
        states[str(line.state)] += line.count
    slots = sum(worker.concurrency for worker in living(snapshot.workers))
    return Totals(states, oldest_of(snapshot.lines), slots, are_exact(snapshot.lines))


def oldest_of(lines: Sequence[Any]) -> float:
    """Seconds that the oldest ready job of some lines waits."""
    return max((line.oldest for line in lines if line.state is State.READY), default=0.0)


def queues(snapshot: Snapshot) -> list[QueueView]:
    """The queues that have jobs, are paused or are drained, by name."""
    held = {one.name for one in (*snapshot.paused, *snapshot.draining) if one.kind == "queue"}
    return [queue(snapshot, name) for name in sorted({line.queue for line in snapshot.lines} | held)]


def queue(snapshot: Snapshot, name: str) -> QueueView:
    """One queue, were it empty."""
    held = {(one.kind, one.name): one for one in snapshot.paused}
    lines = [line for line in snapshot.lines if line.queue == name]
    tasks = []
    for task in sorted({line.task for line in lines}):
        own = [line for line in lines if line.task == task]
        problem = nobody(own[0], snapshot.workers)
        tasks.append(TaskView(task, by_state(own), oldest_of(own), problem, held.get(("task", task)), are_exact(own)))
    draining = next((one for one in snapshot.draining if one.name == name), None)
    paused = held.get(("queue", name))
    return QueueView(name, by_state(lines), oldest_of(lines), tasks, paused, draining, are_exact(lines))


def are_exact(lines: Sequence[Any]) -> bool:
    """Whether all these lines were counted now."""
    return all(line.exact for line in lines)


def by_state(lines: Sequence[Any]) -> dict[str, int]:
    """Jobs by state."""
    states: dict[str, int] = {}
    for line in lines:
        states[str(line.state)] = states.get(str(line.state), 0) + line.count
    return states


def problems(snapshot: Snapshot, schedules: Sequence[Schedule], broken: Sequence[str]) -> list[Problem]:
    """What is wrong, the worst first."""
    found = list(nobody_works(snapshot))
    alive = {worker.id for worker in living(snapshot.workers)}
    for worker in snapshot.workers:
        if worker.id not in alive:
            beat = duration(worker.beat_age)
            found.append(
                Problem(f"Worker {worker.host}:{worker.pid} is lost", f"its last beat was {beat} ago", "workers")
            )
    found += map(held_up, snapshot.paused)
    for one in queues(snapshot):
        if alive and one.oldest > LONG_WAIT and not (one.paused or any(it.problem or it.paused for it in one.tasks)):
            why = f"its oldest ready job has waited for {duration(one.oldest)}"
            found.append(Problem(f"Queue {one.name} is behind", why, f"jobs?state=ready&queue={one.name}"))
    found += [
        Problem(f"Schedule {one.name} is late", "a run is due and nobody fired it", f"schedules/{one.name}")
        for one in schedules
        if is_late(one)
    ]
    found += [
        Problem(f"Schedule {name} cannot be read", "so it does not fire: delete it", "schedules") for name in broken
    ]
    return found


def held_up(one: Paused) -> Problem:
    """A queue or a task that is paused."""
    if one.until is not None:
        return Problem(f"The circuit breaker of {one.name} is open", one.reason, "limits")
    link = f"queues/{one.name}" if one.kind == "queue" else "queues"
    return Problem(f"{one.kind.capitalize()} {one.name} is paused", one.reason or "no reason was given", link)


def nobody_works(snapshot: Snapshot) -> Sequence[Problem]:
    """Live jobs that nobody would run."""
    total = sum(line.count for line in snapshot.lines if line.state is not State.RUNNING)
    if not living(snapshot.workers):
        waits = f"{total:,} job{' waits' if total == 1 else 's wait'}. Start one: windlass worker MODULE:APP"
        return [Problem(NO_WORKER.capitalize(), waits, "queues")] if snapshot.lines else []
    return [
        Problem(f"{one.name} / {task.name}", task.problem, f"jobs?queue={one.name}&task={task.name}")
        for one in queues(snapshot)
        for task in one.tasks
        if task.problem
    ]


def failures(jobs: Sequence[Job[Any]]) -> list[Cause]:
    """Failed jobs by what went wrong, the most frequent first. `jobs` are the newest first."""
    causes = Causes()
    causes.add(jobs)
    return sorted(causes.list, key=lambda cause: -cause.count)


def cause_of(job: Job[Any]) -> tuple[str, str]:
    """The class of a job's last error, and the first line of what it said, with # for numbers and ids."""
    if job.error is None:
        return NOTHING, NOTHING
    first = next((line.strip() for line in job.error.message.splitlines() if line.strip()), "")
    return cut(job.error.type) or NOTHING, cut(VARIES.sub("#", first[:LINE])) or NOTHING


def cut(text: str) -> str:
    """The beginning of a text, as it may stand in an address."""
    return visible(text[:LINE])[:LINE]


# A job's timeline


def timeline(job: JobRecord, now: float) -> list[Span]:
    """When a job waited and when it ran, as far as that is known, up to its end or `now`."""
    end = job.finished_at or now
    runs = [(one.started_at, one.ended_at, ENDINGS[one.ending]) for one in job.attempts if one.started_at is not None]
    kept = bool(runs) and (job.started_at or 0) <= runs[-1][0] + 1e-6
    if job.started_at is not None and not kept and (job.state is State.RUNNING or job.state.final):
        runs.append((job.started_at, end, str(job.state)))
    spans: list[tuple[str, float, float, str]] = []
    at = job.enqueued_at
    for began, ended, ending in runs:
        if began > at:
            spans.append(("wait", at, began, ""))
        spans.append(("run", began, max(began, ended), ending))
        at = max(at, began, ended)
    if not job.state.final and job.state is not State.RUNNING and end > at:
        spans.append(("wait", at, end, ""))
    first = spans[0][1] if spans else at
    whole = max(1e-6, (spans[-1][2] if spans else end) - first)
    return [
        Span(kind, 100 * (began - first) / whole, max(0.4, 100 * (ended - began) / whole), began, ended - began, ending)
        for kind, began, ended, ending in spans
    ]
