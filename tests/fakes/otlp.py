"""A real receiver of OpenTelemetry's traces over HTTP: it decodes what comes and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.types import Receive, Scope, Send

from tests.fakes.http_server import served
from tests.fakes.served import wait_until


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    resource: dict[str, Any]


@dataclass(slots=True)
class Collector:
    """Takes POST /v1/traces; while `hold` is set it does not answer."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    hold: threading.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one export."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if dict(scope["headers"]).get(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        if self.hold is not None:
            self.hold.wait(10)
        self.paths.add(scope["path"])
        self.raw.append(body)
        self.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
        headers = [(b"content-type", b"application/x-protobuf")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        answer = ExportTraceServiceResponse().SerializeToString()
        await send({"type": "http.response.body", "body": answer})

    def wait_for(self, count: int) -> list[Span]:
        """Return the spans once there are `count`."""
        wait_until(lambda: len(self.spans) >= count, f"{count} spans", 20)
        return self.spans


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a receiver on a free port."""
    taking = Collector()
    with served(taking) as url:
        taking.url = url
        yield taking


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.status.code == 2,
                    _values(span.attributes),
                    {event.name: _values(event.attributes) for event in span.events},
                    _values(resource.resource.attributes),
                )


def _values(attributes: Any) -> dict[str, Any]:
    found = {}
    for one in attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        found[one.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found
