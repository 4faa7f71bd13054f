"""Traces of OpenTelemetry, through a real store and a real worker."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.worker.rig import PATIENCE
from windlass import App, Hook, Retry, Secret, StoreUnavailable, current, every
from windlass.contrib.opentelemetry import OpenTelemetry
from windlass.vault import make_key

Spans = list[ReadableSpan]


class Traced:
    """An app whose spans end here, and one on the same store that traces nothing."""

    def __init__(self, url: str, **settings: Any) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("web")
        self.app = make_app(App(url, hooks=[Hook(), OpenTelemetry(provider)], **settings))
        self.other = make_app(App(url, **settings))

    def spans(self, kind: str, **wanted: object) -> Spans:
        """Those of one kind of operation with these attributes (`_` for `.`), oldest first."""
        return [
            span
            for span in sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
            if span.name.startswith(kind)
            and all((span.attributes or {}).get(name.replace("_", ".")) == value for name, value in wanted.items())
        ]

    async def work(self, count: int) -> None:
        """Run a worker until so many attempts are over."""
        async with self.app.worker(concurrency=4), asyncio.timeout(PATIENCE):
            while len(self.spans("process")) < count:
                await asyncio.sleep(0.01)
        await self.app.aclose()
        await self.other.aclose()


def make_app(app: App) -> App:
    @app.task(name="flaky", retry=Retry(attempts=2, backoff=0), queue="web")
    async def flaky(word: Annotated[str, Secret()]) -> None:
        if current().attempt == 1:
            raise ValueError(f"not {word}")
        assert baggage.get_baggage("tenant") in ("acme", None)
        await tasks["plain"].aenqueue()

    @app.task(name="plain")
    def plain() -> str:
        here = trace.get_current_span().get_span_context()
        assert trace.format_trace_id(here.trace_id) == current().trace_id
        return current().trace_id

    tasks: dict[str, Any] = {"flaky": flaky, "plain": plain}
    for number in range(2):
        app.on("order.paid", name=f"s{number}")(app.task(name=f"hears{number}")(lambda order: None))
    return app


def ids(spans: Spans) -> set[int]:
    return {span.context.trace_id for span in spans if span.context}


def test_all_that_a_request_starts_is_one_trace(tmp_path: Path) -> None:
    traced = Traced(f"sqlite:///{tmp_path}/windlass.db", keys=f"{make_key('k')},{make_key('unique')}")
    app = traced.app

    async def request() -> None:
        context.attach(baggage.set_baggage("tenant", "acme"))
        with traced.tracer.start_as_current_span("GET /pay"):
            plain = app.tasks["plain"]
            await app.tasks["flaky"].using(on_success=plain.using(on_final=plain).bind()).aenqueue("sesame")
            await app.schedules.acreate("daily", every(days=1), plain)
            await app.schedules.atrigger("daily")
            await app.apublish("order.paid", {"n": 1})
        with traced.tracer.start_as_current_span("GET /other"):
            await app.tasks["plain"].using(queue="other").aenqueue()
        await traced.work(9)

    asyncio.run(request())
    request_id, other_id = (ids(traced.spans(name)).pop() for name in ("GET /pay", "GET /other"))
    ran = Counter(str((span.attributes or {})["windlass.task"]) for span in traced.spans("process"))
    assert ran == {"flaky": 2, "plain": 5, "hears0": 1, "hears1": 1}
    one_trace = [span for span in traced.spans("process") if span.name != "process other"]
    assert ids(one_trace) == {request_id}
    assert ids(traced.spans("process other")) == {other_id}

    [sent] = traced.spans("send web")
    first, second = traced.spans("process web")
    assert sent.kind is trace.SpanKind.PRODUCER
    assert first.kind is trace.SpanKind.CONSUMER
    assert first.parent
    assert sent.context
    assert first.parent == second.parent == first.links[0].context
    assert first.parent.span_id == sent.context.span_id
    assert first.context != second.context
    assert dict(first.attributes or {}) | {"messaging.message.body.size": 0} == {
        "messaging.system": "windlass",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "web",
        "messaging.message.id": (sent.attributes or {})["messaging.message.id"],
        "messaging.message.body.size": 0,
        "windlass.task": "flaky",
        "windlass.attempt": 1,
        "windlass.fence": 1,
        "windlass.ending": "retry",
        "error.type": "ValueError",
    }
    assert first.status.status_code is trace.StatusCode.ERROR
    assert second.status.status_code is trace.StatusCode.UNSET
    assert first.events[0].name == "exception"
    assert "sesame" not in first.to_json()

    [batch] = [
        span for span in traced.spans("send default") if "messaging.batch.message_count" in (span.attributes or {})
    ]
    made = traced.spans("create default")
    assert [span.parent for span in made] == [batch.context] * 2
    heard = traced.spans("process", windlass_task="hears0") + traced.spans("process", windlass_task="hears1")
    assert {span.parent.span_id for span in heard if span.parent} == {span.context.span_id for span in made}


def test_the_attempts_of_a_job_that_nobody_traced_are_one_trace(tmp_path: Path) -> None:
    traced = Traced(f"sqlite:///{tmp_path}/windlass.db")

    async def main() -> None:
        plain = traced.other.tasks["plain"]
        for _ in range(2):
            await traced.other.tasks["flaky"].using(on_success=plain).aenqueue("word")
        await traced.work(8)

    asyncio.run(main())
    counts = Counter(span.context.trace_id for span in traced.spans("process") if span.context)
    assert sorted(counts.values()) == [4, 4]
    assert "send" in {span.name.split()[0] for span in traced.spans("")}


def test_a_store_that_refuses_ends_the_span_and_a_broken_hook_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Hook):
        def sending(self, jobs: object) -> Any:
            raise RuntimeError("sending")

    traced = Traced(f"sqlite:///{tmp_path}/no/such/windlass.db")
    with pytest.raises(StoreUnavailable):
        traced.app.tasks["plain"].enqueue()
    [sent] = traced.spans("send")
    assert (sent.attributes or {})["error.type"] == "windlass.errors.StoreUnavailable"

    app = make_app(App(f"sqlite:///{tmp_path}/windlass.db", hooks=[Broken()]))
    assert app.tasks["plain"].enqueue().new
    assert "Broken.sending failed" in caplog.text
    app.close()
