"""Sentry for jobs: `App(hooks=[Sentry()])`, and `sentry_sdk.init(…)` as ever.

Reports jobs that failed for good, continues traces, and checks in for schedules. Why only those: docs/design/sentry.md.
"""

import contextlib
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

try:
    import sentry_sdk
    from sentry_sdk import crons
    from sentry_sdk.integrations.logging import ignore_logger
    from sentry_sdk.scope import should_send_default_pii
    from sentry_sdk.tracing import Span
    from sentry_sdk.types import Event, Hint, MonitorConfig

    # AnnotatedValue is made in a private module of theirs; this is where others may have it from
    from sentry_sdk.utils import AnnotatedValue, event_from_exception, safe_repr  # type: ignore[attr-defined]
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("windlass.contrib.sentry needs sentry-sdk: pip install 'windlass[sentry]'") from missing

from windlass.codec import show
from windlass.context import Context
from windlass.errors import DecodeError
from windlass.follow import origin_of, parent_of
from windlass.hook import FAILURES, Hook, Sending
from windlass.model import Claim, Ending, Failure, Outcome
from windlass.options import NONE, Options, read_options
from windlass.policy import BY_OPERATOR, class_name
from windlass.schedule import Rhythm, read_rhythm
from windlass.secret import HIDDEN, hide
from windlass.timing import ALIASES, Cron, Every

ORIGIN = "auto.queue.windlass"

CHECK_INS = uuid.UUID("6c1f2e53-7c0f-4c52-9a37-0f6d1a6f2b64")
"""The namespace of the ids of check-ins: all attempts of a job are one."""

LATE = 5
"""Minutes that a job of a schedule may begin after its moment, beside its jitter, before Sentry says that it is missed:
queues may be long."""

LONGEST = 24 * 60
"""Minutes from its begin to its end, with retries, after which Sentry takes it for stuck. Timeouts are ours."""

UNITS: dict[Literal["week", "day", "hour", "minute"], int] = {
    "week": 604_800,
    "day": 86_400,
    "hour": 3_600,
    "minute": 60,
}

Clean = Callable[[str], str]


class Sentry(Hook):
    """Reports each job that failed, once, when it will not be tried again; its attempts are transactions.

    Where Sentry was not initialised in this process, nothing happens.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], tuple[contextlib.ExitStack, Span]] = {}
        ignore_logger(FAILURES)  # it tells of every failed job, and so do we

    @contextlib.contextmanager
    def sending(self, jobs: Sequence[Sending]) -> Iterator[None]:
        """A span around the write, inside of whatever transaction there is, and the trace to the jobs."""
        if not sentry_sdk.is_initialized():
            yield
            return
        queue = jobs[0].queue if len({job.queue for job in jobs}) == 1 else ""
        with sentry_sdk.start_span(op="queue.publish", name=queue or "jobs", origin=ORIGIN) as span:
            span.set_data("messaging.system", "windlass")
            if queue:
                span.set_data("messaging.destination.name", queue)
            if len(jobs) == 1:
                span.set_data("messaging.message.id", jobs[0].id)
                span.set_data("messaging.message.body.size", jobs[0].size)
            carried = dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers())
            for job in jobs:
                job.carry(carried)
            yield

    def before(self, context: Context) -> None:
        """Give an attempt a scope and a transaction of its own, and check in for its schedule."""
        claim = context.job
        if claim is None or not sentry_sdk.is_initialized():
            return
        own = options_of(claim)
        with contextlib.ExitStack() as stack:
            scope = stack.enter_context(sentry_sdk.isolation_scope())
            scope.clear_breadcrumbs()
            describe(scope, claim, own, context.attempt)
            if own.secret:
                scope.add_event_processor(cleaner(context.scrub, own.secret))
            transaction = scope.continue_trace(
                trace_of(claim.id, context.carrier), op="queue.process", name=claim.task, source="task", origin=ORIGIN
            )
            span = stack.enter_context(sentry_sdk.start_transaction(transaction))
            for name, value in of_attempt(claim, context.attempt).items():
                span.set_data(name, value)
            context.trace_id = context.trace_id or transaction.trace_id
            check_in(claim, own, "in_progress")
            self._open[claim.id, claim.fence] = stack.pop_all(), span

    def after(self, context: Context, outcome: Outcome) -> None:
        """Report what the task raised, if that was its last attempt, and end its transaction."""
        stack, span = self._open.pop((outcome.id, outcome.fence), (None, None))
        if stack is None or span is None:
            return
        with stack:
            span.set_status("ok" if outcome.failure is None else "internal_error")
            error = context.error
            if error is not None and outcome.ending is Ending.FAILED and is_of_code(outcome.failure):
                options = sentry_sdk.get_client().options
                mechanism = {"type": "windlass", "handled": False}
                event, hint = event_from_exception(error, client_options=options, mechanism=mechanism)
                drop_own(event)
                sentry_sdk.capture_event(event, hint=hint)

    def settled(self, claim: Claim, outcome: Outcome) -> None:
        """Report what no code of the task raised (its time was over, its process died), and check in."""
        if not outcome.ending.state.final or not sentry_sdk.is_initialized():
            return
        own, failure = options_of(claim), outcome.failure
        untold = failure is not None and outcome.ending is Ending.FAILED and not is_of_code(failure)
        if not untold and own.rhythm is None:
            return
        with sentry_sdk.isolation_scope() as scope:
            describe(scope, claim, own, outcome.attempt)
            scope.continue_trace(trace_of(claim.id, own.carrier))
            if failure is not None and untold:
                sentry_sdk.capture_event(of_failure(failure, claim.task))
            good = outcome.ending is not Ending.FAILED and outcome.reason != BY_OPERATOR
            check_in(claim, own, "ok" if good else "error")


def options_of(claim: Claim) -> Options:
    """What came with a job; nothing where that cannot be read."""
    try:
        return read_options(claim.options)
    except DecodeError:
        return NONE


def is_of_code(failure: Failure | None) -> bool:
    """Whether the code of a task raised it, so that `after` has it; else only `settled` hears of it everywhere."""
    return failure is not None and '\n  File "' in failure.traceback and failure.type != class_name(DecodeError)


# What is told


def describe(scope: sentry_sdk.Scope, claim: Claim, own: Options, attempt: int) -> None:
    """Say whose events these are."""
    job: dict[str, Any] = {
        "job_id": claim.id,
        "task": claim.task,
        "queue": claim.queue,
        "attempt": attempt,
        "fence": claim.fence,
    }
    more = {"schedule": own.schedule, "parent": parent_of(claim.id)}
    job |= {name: value for name, value in more.items() if value}
    if shows_args():
        with contextlib.suppress(DecodeError):
            job["args"] = hide(show(claim.args), own.secret)
    scope.set_context("windlass", job)
    for name in ("job_id", "task", "queue"):
        scope.set_tag(f"windlass.{name}", job[name])
    scope.set_transaction_name(claim.task, source="task")


def shows_args() -> bool:
    """Whether this app lets Sentry have what is in its queues: by `data_collection`, else by `send_default_pii`."""
    wanted = sentry_sdk.get_client().options.get("data_collection") or {}
    return bool(wanted.get("queues", should_send_default_pii()))


def of_attempt(claim: Claim, attempt: int) -> dict[str, str | int]:
    """The data of an attempt's transaction, as Sentry's page on queues wants them."""
    return {
        "messaging.system": "windlass",
        "messaging.destination.name": claim.queue,
        "messaging.message.id": claim.id,
        "messaging.message.body.size": len(claim.args),
        "messaging.message.retry.count": attempt - 1,
        "messaging.message.receive.latency": max(0, round((time.time() - claim.run_at) * 1000)),
    }


def of_failure(failure: Failure, task: str) -> Event:
    """The event of a failure that is told as it is stored."""
    module, _, name = failure.type.rpartition(".")
    value = {
        "type": name,
        "module": module or None,
        "value": failure.message,
        "mechanism": {"type": "windlass", "handled": False},
    }
    return {"level": "error", "exception": {"values": [value]}, "fingerprint": ["windlass", failure.type, task]}


def drop_own(event: Event) -> None:
    """Leave out the variables of the frame that called the task: they are the arguments once more, without their names
    by which short secrets are known."""
    for value in event.get("exception", {}).get("values", ()):
        for frame in (value.get("stacktrace") or {}).get("frames", ()):
            if frame.get("module") == "windlass.worker.pipeline":
                frame.pop("vars", None)


def trace_of(id: str, carrier: Mapping[str, str]) -> dict[str, str]:
    """The headers that a job came with; where nobody sent any, a trace that is made of its id, so that all attempts,
    and what follows, are one."""
    if "sentry-trace" in carrier:
        return {name: carrier[name] for name in ("sentry-trace", "baggage") if name in carrier}
    digest = hashlib.sha256(origin_of(id).encode("utf-8", "surrogatepass")).hexdigest()
    return {"sentry-trace": f"{digest[:32]}-{digest[32:48]}"}


# Secrets


def cleaner(scrub: Clean, names: Collection[str]) -> Callable[[Event, Hint], Event]:
    """Takes the secrets of a job out of all that is reported while it runs: local variables, messages, breadcrumbs."""

    def clean(event: Event, hint: Hint) -> Event:
        cleaned: Event = without(event, scrub, names)
        return cleaned

    return clean


def without(value: Any, scrub: Clean, names: Collection[str], *, is_vars: bool = False) -> Any:
    """A value without secrets; of the variables of a frame, those named as secret parameters are hidden whole."""
    if isinstance(value, Mapping):
        return {
            scrub(name) if isinstance(name, str) else name: HIDDEN
            if is_vars and name in names
            else without(one, scrub, names, is_vars=name == "vars")
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [without(one, scrub, names) for one in value]
    if isinstance(value, AnnotatedValue):
        return AnnotatedValue(without(value.value, scrub, names), value.metadata)
    if value is None or isinstance(value, bool | float | datetime):
        return value
    text = value if isinstance(value, str) else safe_repr(value)
    cleaned = scrub(text)
    return value if cleaned == text and isinstance(value, int) else cleaned


# Schedules


def check_in(claim: Claim, own: Options, status: str) -> None:
    """Tell Sentry of a run of a schedule whose rhythm it understands."""
    if (rhythm := read_rhythm(own.rhythm)) is None or (monitor := monitor_of(rhythm)) is None:
        return
    id = uuid.uuid5(CHECK_INS, claim.id).hex
    crons.capture_checkin(slug_of(own.schedule), check_in_id=id, status=status, monitor_config=monitor)


def monitor_of(rhythm: Rhythm) -> MonitorConfig | None:
    """What Sentry shall expect of a schedule; None for what it cannot know: an end, seconds, calendar rules."""
    rule = rhythm.rule
    if rhythm.ends or not isinstance(rule, Cron | Every):
        return None
    monitor: MonitorConfig = {
        "timezone": rule.tz if isinstance(rule, Cron) else "UTC",
        "checkin_margin": LATE + round(rhythm.jitter / 60),
        "max_runtime": LONGEST,
    }
    if isinstance(rule, Every):
        found = next(
            ((unit, size) for unit, size in UNITS.items() if not rule.interval % timedelta(seconds=size)), None
        )
        if found is None:
            return None
        count = rule.interval // timedelta(seconds=found[1])
        monitor["schedule"] = {"type": "interval", "value": count, "unit": found[0]}
        return monitor
    parts = ALIASES.get(rule.expression.lower(), rule.expression).split()
    if len(parts) == 6 and re.fullmatch("0+", parts[0]):
        del parts[0]
    if len(parts) != 5 or re.search(r"\dW", parts[2].upper()):
        return None
    monitor["schedule"] = {"type": "crontab", "value": " ".join(parts)}
    return monitor


def slug_of(name: str) -> str:
    """The name of a schedule as Sentry may have it: small letters, digits, - and _, at most 50, not digits alone. One
    that has to be changed gets a hash, so that no two are one monitor."""
    if re.fullmatch(r"(?=.*[a-z_-])[a-z0-9_-]{1,50}", name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub('[^a-z0-9_-]+', '-', name.lower())[:40]}-{digest}".lstrip("-")
