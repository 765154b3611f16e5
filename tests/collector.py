"""A collector of traces, as OpenTelemetry's SDK sends them: over HTTP, in protobuf."""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """What it was sent."""

    url: str = ""
    received: list[ExportTraceServiceRequest] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.received.append(ExportTraceServiceRequest.FromString(body))
        return web.Response()

    def traces(self) -> dict[bytes, set[str]]:
        """The spans of each trace, as ``part: name``."""
        found: dict[bytes, set[str]] = defaultdict(set)
        for sent in [sent for request in self.received for sent in request.resource_spans]:
            about = {word.key: word.value.string_value for word in sent.resource.attributes}
            for span in [span for scope in sent.scope_spans for span in scope.spans]:
                found[span.trace_id].add(f"{about['henji.part']}: {span.name}")
        return found


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector that listens on loopback."""
    collector, application = Collector(), web.Application()
    application.router.add_post("/v1/traces", collector.take)
    async with TestServer(application) as server:
        collector.url = str(server.make_url("/v1/traces"))
        yield collector
