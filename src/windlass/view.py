"""What people and programs are shown of jobs, queues, workers and schedules: words, and plain data."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from windlass import follow
from windlass.gates import GateInfo
from windlass.machine import megabytes
from windlass.model import FINAL, Attempt, Ending, Filter, JobRecord, Line, State, Verb, WorkerInfo
from windlass.queues import Paused
from windlass.schedules import Schedule
from windlass.secret import HIDDEN, RESULT, hide
from windlass.store.census import FRONT
from windlass.timing import At, Cron, Every, Rule, to_data
from windlass.usage import Usage
from windlass.vault import ENCRYPTED, is_sealed

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))

SHOWN = 5
"""Next runs that are shown of one schedule."""

LATE = 10.0
"""Seconds over which a run that was not fired is worth a word."""

NO_TASK = "no running worker knows this task"
NO_QUEUE = "no running worker serves this queue"
NO_WORKER = "no worker is running"

ENDINGS = {
    Ending.RETRY: "failed, to be tried again",
    Ending.SNOOZED: "snoozed",
    Ending.FAILED: "failed for good",
    Ending.CANCELLED: "cancelled",
    Ending.INTERRUPTED: "interrupted: its worker stopped; not charged",
    Ending.LOST: "lost: its process died; not charged",
    Ending.SUCCEEDED: "succeeded",
}


def duration(seconds: float) -> str:
    """A number of seconds as people say it."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}".replace(".0 ", " ")
    return "1 min"


def about(number: int, exact: bool) -> str:
    """A number of jobs; one that was counted some time ago, or not to the end, is told as such."""
    return f"{number:,}" if exact or number <= FRONT else f"~{number:,}"


def iso(moment: float | None) -> str | None:
    """A moment as JSON has it: ISO 8601, UTC."""
    try:
        return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{moment:g} s after 1970"


def pretty(value: Any) -> str:
    """A value as JSON, on one line if it is short."""
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) <= 80 else json.dumps(value, ensure_ascii=False, indent=2)


def decoded(data: bytes | None) -> Any:
    """Stored JSON as values; text that is none is shown as it is."""
    if data is None:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")


def readable(data: bytes | None) -> Any:
    """Stored JSON as values, unless it is encrypted and its key is not here."""
    return ENCRYPTED if is_sealed(data) else decoded(data)


def arguments_of(job: JobRecord) -> Any:
    """The arguments, as far as they may be shown."""
    found = readable(job.args)
    return hide(found, secrets_of(job)) if isinstance(found, dict) else found


def result_of(job: JobRecord) -> Any:
    """The result, as far as it may be shown."""
    return HIDDEN if job.result is not None and RESULT in secrets_of(job) else readable(job.result)


def secrets_of(job: JobRecord) -> Collection[str]:
    """The names of arguments that nobody shall see."""
    found = readable(job.options)
    names = found.get("secret") if isinstance(found, dict) else None
    return names if isinstance(names, list) else ()


def options_of(job: JobRecord) -> Mapping[str, Any]:
    """What was asked for with `using()`."""
    found = readable(job.options)
    return found if isinstance(found, dict) else {"options": found} if found else {}


def priority_of(job: JobRecord) -> int:
    """The priority that was asked for: where its queue ages, the store has another."""
    asked = options_of(job).get("priority")
    return asked if isinstance(asked, int) else job.priority


def followers_of(job: JobRecord) -> list[tuple[str, str]]:
    """The tasks that its end makes jobs of, each with on_success, on_failure or on_final."""
    return [(one.task, follow.named(one.on)) for one in follow.read(job.follow)]


def job_data(job: JobRecord) -> dict[str, Any]:
    """A job that was revealed, as JSON."""
    return {
        "id": job.id,
        "task": job.task,
        "state": str(job.state),
        "queue": job.queue,
        "priority": priority_of(job),
        "attempt": job.attempt,
        "lost": job.lost,
        "fence": job.fence,
        "parent": follow.parent_of(job.id),
        "gates": [need.gate for need in job.gates],
        "args": arguments_of(job),
        "options": readable(job.options),
        "tags": list(job.tags),
        "then": [{"task": task, "on": on} for task, on in followers_of(job)],
        "unique": job.unique,
        "runner": job.runner,
        "cancelling": job.cancelling,
        "reason": job.reason,
        "progress": job.progress
        and {"done": job.progress.done, "total": job.progress.total, "note": job.progress.note},
        "lines": job.lines,
        "result": result_of(job),
        "enqueued_at": iso(job.enqueued_at),
        "run_at": iso(job.run_at),
        "started_at": iso(job.started_at),
        "finished_at": iso(job.finished_at),
        "expires_at": iso(job.expires_at),
        "attempts": [attempt_data(attempt) for attempt in job.attempts],
    }


def attempt_data(attempt: Attempt) -> dict[str, Any]:
    """One kept attempt as JSON."""
    failure = attempt.failure
    return {
        "attempt": attempt.attempt,
        "ending": str(attempt.ending),
        "runner": attempt.runner,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "lines": attempt.lines,
        "error": failure and {"type": failure.type, "message": failure.message, "traceback": failure.traceback},
    }


def log_of(job: JobRecord) -> list[tuple[int, str]]:
    """What each attempt of a job logged, as far as it is kept, with the number of the attempt."""
    ended = [(number, one.lines) for number, one in enumerate(job.attempts, 1) if one.lines]
    told = bool(job.attempts) and job.attempts[-1].fence == job.fence
    last = [] if (told and job.attempts[-1].lines) or not job.lines else [(len(job.attempts) + (not told), job.lines)]
    return ended + last


def why_not(job: JobRecord, verb: Verb) -> str:
    """Why a verb does not fit a job."""
    if verb is Verb.CANCEL and job.cancelling:
        return f"job {job.id} is being cancelled already"
    if verb is Verb.CANCEL:
        return f"job {job.id} is over already ({job.state})"
    if verb is Verb.DELETE:
        return f"job {job.id} runs: cancel it first"
    if job.state in FINAL:
        return f"job {job.id} cannot run again while another job holds its unique key"
    return f"job {job.id} is {job.state} already; only finished and scheduled jobs can be run again"


def narrowed(wanted: Filter, verb: Verb) -> list[Filter]:
    """The filters whose jobs a verb fits: what is running or over does not need to be counted, nor asked about."""
    if wanted.state is not None:
        return [wanted]
    states: dict[Verb, list[State]] = {
        Verb.RETRY: [State.FAILED],
        Verb.CANCEL: [state for state in State if not state.final],
        Verb.DELETE: [state for state in State if state is not State.RUNNING],
    }
    return [replace(wanted, state=state) for state in states[verb]]


def living(workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """The workers whose lease runs."""
    return [worker for worker in workers if worker.alive]


def nobody(line: Line, workers: Sequence[WorkerInfo]) -> str:
    """Why nobody would run the jobs of this line now; empty if somebody would."""
    alive = living(workers)
    knowing = [worker for worker in alive if any(line.task in runner.tasks for runner in worker.runners)]
    if not alive:
        return NO_WORKER
    if not knowing:
        return NO_TASK
    return "" if any(worker.serves(line.queue) for worker in knowing) else NO_QUEUE


def line_data(line: Line, workers: Sequence[WorkerInfo]) -> Mapping[str, object]:
    """A line as JSON. `oldest`: seconds that the first job is due; `exact`: whether `count` is of now."""
    return {
        "queue": line.queue,
        "task": line.task,
        "state": str(line.state),
        "count": line.count,
        "exact": line.exact,
        "oldest": line.oldest,
        "problem": nobody(line, workers) or None,
    }


def admits(one: GateInfo) -> str:
    """What a gate admits, in words."""
    if one.paused:
        return f"nothing: paused{one.paused.reason and ', '}{one.paused.reason}"
    said = [] if one.limit is None else [f"{one.limit:,} at once" if one.limit else "nothing: no code declares it"]
    if one.interval is not None:
        burst = f", {one.burst} together" if one.burst > 1 else ""
        said.append(f"one every {duration(one.interval)}{burst}")
    return ("; ".join(said) or "all") + (" (this key)" if one.own else "")


def gate_data(one: GateInfo) -> Mapping[str, object]:
    """A gate as JSON."""
    return {
        "name": one.name,
        "limit": one.limit,
        "interval": one.interval,
        "burst": one.burst,
        "held": sum(one.holders.values()),
        "holders": dict(one.holders),
        "waiting": one.waiting,
        "own": one.own,
        "paused": paused_data(one.paused) if one.paused else None,
    }


def paused_data(one: Paused) -> Mapping[str, object]:
    """A pause as JSON."""
    return {
        "kind": one.kind,
        "name": one.name,
        "reason": one.reason,
        "since": iso(one.since.timestamp()),
        "until": iso(one.until.timestamp() if one.until else None),
    }


def memory_of(usage: Usage) -> str:
    """Memory, in words; empty if it is not known."""
    return megabytes(usage.memory) if usage.memory else ""


def share_of(usage: Usage) -> str:
    """Time of processors, of which one is 100%; empty if it is not known."""
    return "" if usage.cpu is None else f"{usage.cpu:.0%}"


def usage_data(usage: Usage) -> Mapping[str, object]:
    """What processes take as JSON: bytes, and processors' worth of time; null if it is not known."""
    return {"memory": usage.memory or None, "cpu": usage.cpu}


def worker_data(worker: WorkerInfo) -> Mapping[str, object]:
    """A worker as JSON."""
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "alive": worker.alive,
        "draining": worker.draining,
        "lease": worker.lease,
        "beat_age": worker.beat_age,
        "queues": worker.queues or None,
        "slots": worker.concurrency,
        "started_at": iso(worker.started_at),
        **usage_data(worker.usage),
        "runners": [
            {
                "id": runner.id,
                "pid": runner.pid,
                "running": runner.running,
                "joined_at": iso(runner.joined_at),
                **usage_data(runner.usage),
                "tasks": list(runner.tasks),
            }
            for runner in worker.runners
        ],
    }


def rule_text(rule: Rule) -> str:
    """A rule as text of its kind."""
    if isinstance(rule, Cron):
        return rule.expression
    if isinstance(rule, Every):
        return f"{rule.interval.total_seconds():.15g}"
    return rule.moment.isoformat() if isinstance(rule, At) else rule.rule


def rule_zone(rule: Rule) -> str | None:
    """The zone of a rule, for kinds that have one."""
    return None if isinstance(rule, Every | At) else rule.tz


def words(rule: Rule) -> str:
    """A rule as it would be written, without what goes without saying."""
    if isinstance(rule, Every):
        return f"every {duration(rule.interval.total_seconds())}".replace(".0 ", " ")
    return repr(rule).replace(", tz='UTC'", "")


def is_late(one: Schedule) -> bool:
    """Whether a run is due and nobody fired it."""
    following = [] if one.paused or one.waiting else one.next_runs(1)
    return bool(following) and (one.read_at - following[0]).total_seconds() - one.jitter > LATE


def schedule_data(one: Schedule, count: int = SHOWN) -> dict[str, Any]:
    """A schedule as JSON."""
    return {
        "name": one.name,
        "rule": to_data(one.rule),
        "task": one.task,
        "args": one.args,
        "queue": one.queue,
        "priority": one.priority,
        "tags": list(one.tags),
        "catch_up": one.catch_up,
        "most": one.most,
        "overlap": one.overlap,
        "jitter": one.jitter,
        "runs": one.runs,
        "fired": one.fired,
        "paused": one.paused,
        "waiting": one.waiting,
        "origin": one.origin,
        "jobs": list(one.jobs),
        "last_tick": iso(one.last_tick.timestamp()),
        "next_runs": [moment.isoformat() for moment in one.next_runs(count)],
    }
