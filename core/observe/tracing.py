"""One trace for each reply, from the message to its last edit, across processes: an option.

Every process derives a reply's trace id, and the id of the root span, from the job's id: nothing
has to be passed on. Without the extra ``tracing`` and HENJI_OTLP_ENDPOINT nothing
is measured. No span holds a person or a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from core.errors import UsageError, install_command

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_provider: TracerProvider | None = None


def set_up_tracing(endpoint: str | None, part: str) -> None:
    """Send this process's spans to an OTLP collector, such as http://localhost:4318/v1/traces."""
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise UsageError(f"HENJI_OTLP_ENDPOINT needs: {install_command('tracing')}") from None
    set_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)), part)


def set_processor(processor: Any, part: str) -> None:
    """Send this process's spans to a processor of the OpenTelemetry SDK; None: drop them."""
    global _provider
    if processor is None:
        _provider = None
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    attributes_ = {"service.name": "henji", "service.version": version("henji"), "henji.part": part}
    _provider = TracerProvider(resource=Resource.create(attributes_))
    _provider.add_span_processor(processor)


@contextmanager
def span(job: str, name: str, **attributes_: str | int | float) -> Iterator[None]:
    """A span of a reply's trace, around the work inside; it records an exception."""
    if _provider is None:
        yield
        return
    from opentelemetry.trace import StatusCode, set_span_in_context

    with _provider.get_tracer("henji").start_as_current_span(
        name,
        context=set_span_in_context(_reply_context(job)),
        attributes={"henji.job": job, **attributes_},
        record_exception=False,  # its text may hold what was said
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def _reply_context(job: str) -> Any:
    """The root of a reply's spans, the same in every process."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    digest = hashlib.sha256(job.encode()).digest()
    return NonRecordingSpan(
        SpanContext(
            trace_id=int.from_bytes(digest[:16], "big"),
            span_id=int.from_bytes(digest[16:24], "big"),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
    )
