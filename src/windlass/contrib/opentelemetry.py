"""Spans of OpenTelemetry for jobs: `App(hooks=[OpenTelemetry()])`.

Names and attributes are those of the semantic conventions for messaging. A job carries the context of the span that
sent it; each of its attempts is a child of that span, and linked to it, and so are those of the jobs that follow it.
Why children: docs/design/traces.md.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from contextvars import Token

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context as Surroundings
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "windlass.contrib.opentelemetry needs opentelemetry-api: pip install 'windlass[otel]'"
    ) from missing

from windlass.context import Context
from windlass.follow import origin_of
from windlass.hook import Hook, Sending
from windlass.model import Claim, Outcome
from windlass.policy import class_name, first_line

Attributes = dict[str, str | int]


class OpenTelemetry(Hook):
    """A span around each enqueue (`send QUEUE`) and each attempt (`process QUEUE`).

    They go to `provider`, or to the global one, whenever that is set. What a task does is inside its attempt's span.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("windlass", tracer_provider=provider)
        self._open: dict[tuple[str, int], tuple[Span, Token[Surroundings]]] = {}

    @contextlib.contextmanager
    def sending(self, jobs: Sequence[Sending]) -> Iterator[None]:
        """One span for the write; of several jobs each has one more, `create QUEUE`, to be the parent of."""
        queue = jobs[0].queue if len({job.queue for job in jobs}) == 1 else ""
        attributes = destination("send", "send", queue)
        if len(jobs) == 1:
            attributes |= message(jobs[0])
        else:
            attributes["messaging.batch.message_count"] = len(jobs)
        kind = SpanKind.PRODUCER if len(jobs) == 1 else SpanKind.CLIENT
        span = self._tracer.start_span(f"send {queue}".strip(), kind=kind, attributes=attributes)
        inside = trace.set_span_in_context(span)
        for job in jobs:
            carried: dict[str, str] = {}
            propagate.inject(carried, inside if len(jobs) == 1 else self._create(job, inside))
            job.carry(carried)
        try:
            yield
        except BaseException as error:
            fail(span, class_name(type(error)), str(error))
            raise
        finally:
            span.end()

    def _create(self, job: Sending, inside: Surroundings) -> Surroundings:
        attributes = destination("create", "create", job.queue) | message(job)
        span = self._tracer.start_span(f"create {job.queue}", inside, SpanKind.PRODUCER, attributes)
        span.end()
        return trace.set_span_in_context(span, inside)

    def before(self, context: Context) -> None:
        """Begin the span of an attempt; the task runs inside."""
        claim = context.job
        if claim is None:
            return
        parent = propagate.extract(context.carrier, Surroundings())
        creation = trace.get_current_span(parent).get_span_context()
        links = [trace.Link(creation)] if creation.is_valid else []
        if not links:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(sender_of(claim.id)), parent)
        attributes = of_attempt(context, claim)
        span = self._tracer.start_span(f"process {claim.queue}", parent, SpanKind.CONSUMER, attributes, links)
        if (own := span.get_span_context()).is_valid:
            context.trace_id = trace.format_trace_id(own.trace_id)
        token = contexts.attach(trace.set_span_in_context(span, parent))
        self._open[claim.id, claim.fence] = span, token

    def after(self, context: Context, outcome: Outcome) -> None:
        """End it. What the task raised is told without the secrets of the job, as it is stored."""
        span, token = self._open.pop((outcome.id, outcome.fence))
        contexts.detach(token)
        span.set_attribute("windlass.ending", str(outcome.ending))
        if (failure := outcome.failure) is not None:
            told = {
                "exception.type": failure.type,
                "exception.message": failure.message,
                "exception.stacktrace": failure.traceback,
            }
            span.add_event("exception", told)
            fail(span, failure.type, failure.message)
        span.end()


def destination(name: str, kind: str, queue: str) -> Attributes:
    """What every span says of its operation, and of its queue if there is one."""
    where = {"messaging.destination.name": queue} if queue else {}
    said = {"messaging.system": "windlass", "messaging.operation.name": name, "messaging.operation.type": kind}
    return {**said, **where}


def message(job: Sending) -> Attributes:
    """What a span says of a job that is sent."""
    return {"messaging.message.id": job.id, "messaging.message.body.size": job.size, "windlass.task": job.task}


def of_attempt(context: Context, claim: Claim) -> Attributes:
    """What the span of an attempt says from its start."""
    said = destination("process", "process", claim.queue) | {
        "messaging.message.id": claim.id,
        "messaging.message.body.size": len(claim.args),
        "windlass.task": claim.task,
        "windlass.attempt": context.attempt,
        "windlass.fence": claim.fence,
    }
    if context.schedule:
        said["windlass.schedule"] = context.schedule
    if context.parent:
        said["windlass.parent"] = context.parent
    return said


def fail(span: Span, kind: str, text: str) -> None:
    """Say that what a span stands for failed."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, first_line(text)))


def sender_of(id: str) -> trace.SpanContext:
    """What stands for the sending of a job that nobody traced, made of its id: the attempts of a job that a schedule or
    a message made, and of what follows it, are one trace. Nobody ever reports this very span."""
    digest = hashlib.sha256(origin_of(id).encode("utf-8", "surrogatepass")).digest()
    return trace.SpanContext(
        trace_id=int.from_bytes(digest[:16]),
        span_id=int.from_bytes(digest[16:24]),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
