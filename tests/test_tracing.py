"""One trace for each reply, from the mention to the last edit, and nothing said in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from core.errors import UsageError
from core.observe import tracing
from tests.local_slack.deployment import slack_deployment
from tests.waiting import until


@pytest.fixture
def collector() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.set_processor(SimpleSpanProcessor(exporter), "test")
    yield exporter
    tracing.set_processor(None, "test")


async def test_a_reply_is_one_trace_from_the_mention_to_the_last_edit(
    redis: Redis, collector: InMemorySpanExporter
) -> None:
    async with slack_deployment(redis) as deployment:
        await deployment.core()
        await deployment.adapter()
        for text in ("open sesame", "and again"):
            ts = await deployment.slack.say("C1", "U1", f"<@U0HENJI> {text}")
            await deployment.answered("C1", ts, f"echo: {text}")

        async def brought_out() -> bool:
            return len(_named(collector, "deliver")) == 2

        await until(brought_out)
    traces: dict[int, set[str]] = {}
    for span in collector.get_finished_spans():
        assert span.context is not None
        traces.setdefault(span.context.trace_id, set()).add(span.name)
        assert "sesame" not in span.to_json()
        assert "U1" not in span.to_json()
    assert len(traces) == 2
    for names in traces.values():
        assert {"submit", "answer", "deliver", "slack post"} <= names


def _named(collector: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in collector.get_finished_spans() if span.name == name]


def test_processes_agree_on_a_trace_without_a_word(collector: InMemorySpanExporter) -> None:
    for part in ("a bot", "a core"):  # as in a process of their own
        tracing.set_processor(SimpleSpanProcessor(collector), part)
        with tracing.span("a job", part):
            pass
    one, other = collector.get_finished_spans()
    assert one.context is not None
    assert other.context is not None
    assert one.context.trace_id == other.context.trace_id
    assert one.parent is not None
    assert other.parent is not None
    assert one.parent.span_id == other.parent.span_id
    assert one.resource.attributes["henji.part"] != other.resource.attributes["henji.part"]


def test_a_fault_is_noted_without_its_words(collector: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="sesame"), tracing.span("a job", "answer"):
        raise ValueError("open sesame")
    (span,) = collector.get_finished_spans()
    assert not span.status.is_ok
    assert "sesame" not in span.to_json()


def test_without_the_extra_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(UsageError, match=r"\[tracing\]"):
        tracing.set_up_tracing("http://localhost:4318/v1/traces", "core")
    tracing.set_up_tracing(None, "core")
