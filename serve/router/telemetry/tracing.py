"""OpenTelemetry spans of requests, where `tracing.endpoint` is set: who answered, how long, how many tokens.

Needs the extra `otel`; nothing of OpenTelemetry is imported where it is off. The W3C trace context of a
client is continued, and handed on to vLLM, which makes spans of its own under `otlp_traces_endpoint`.
Attributes have the names of OpenTelemetry's GenAI conventions, ours begin with `wardrobe.`. Invariants:
prompts and answers are never in a span; spans wait in a bounded queue for a thread that sends them, and are
dropped where it is full.
"""

from __future__ import annotations

import asyncio
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from registry.errors import UsageError
from serve.outcomes import Outcome
from serve.router.telemetry.accounts import Account, RequestAccount
from serve.settings import ServeSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PROVIDER = "vllm"
"""`gen_ai.provider.name`: who runs the model."""

OPERATIONS = {"completion": "text_completion", "responses": "chat", "messages": "chat", "chat_batch": "chat"}
"""Our operations by the conventions' word, where it differs."""

CLOSE_SECONDS = 3.0
"""How long the end of the server may wait for spans that are not sent."""

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_FAILED = frozenset(one.value for one in Outcome if one.fails_user)
_CONTEXT = (b"traceparent", b"tracestate")

Attributes = dict[str, str | int | float | bool | list[str]]


class Tracing:
    """A keeper that makes a span of each request."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("wardrobe")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def open(cls, settings: ServeSettings) -> Tracing | None:
        """Return the keeper that `settings` ask for, None for none.

        Raises: UsageError: OpenTelemetry is not installed.
        """
        return None if settings.tracing.endpoint is None else cls(_provider(settings))

    def begin(self, request: RequestAccount) -> None:
        """Begin a span, below the client's own where it sent its context."""
        from opentelemetry.trace import SpanKind

        sent = {name.decode(): request.headers.get(name, b"").decode("latin-1") for name in _CONTEXT}
        above = self._propagator.extract({name: value for name, value in sent.items() if value})
        span = self._tracer.start_span(request.operation, above, kind=SpanKind.SERVER)
        request.span = span
        request.trace_id = f"{span.get_span_context().trace_id:032x}"

    def forward(self, request: RequestAccount, headers: list[tuple[bytes, bytes]]) -> None:
        """Have the server behind continue our span, not the client's."""
        from opentelemetry.trace import Span, set_span_in_context

        assert isinstance(request.span, Span), "begun"
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(request.span))
        headers[:] = [header for header in headers if header[0] not in _CONTEXT]
        headers.extend((name.encode(), value.encode("latin-1")) for name, value in carrier.items())

    def end(self, request: RequestAccount) -> None:
        """End the span with what became of the request."""
        from opentelemetry.trace import Span, StatusCode

        assert isinstance(request.span, Span), "begun"
        span, last = request.span, request.last
        for name, value in span_attributes(request).items():
            span.set_attribute(name, value)
        if last is not None:
            span.update_name(f"{_operation(request)} {last.adapter}")
            if last.first_token is not None:
                began = time.time() - last.seconds
                span.add_event("first token", timestamp=int((began + last.first_token) * 1e9))
        for failed in request.tries[:-1]:
            span.add_event("rescue", {"wardrobe.failed": failed.model, "error.type": failed.outcome})
        # A 429 is an answer that its client is to act on, by OpenTelemetry's conventions.
        if request.status >= 500 or (request.outcome in _FAILED and request.status != 429):
            span.set_status(StatusCode.ERROR, request.reason or request.outcome)
        span.end()

    async def close(self) -> None:
        """Send what waits, for a few seconds."""
        thread = threading.Thread(target=self._provider.shutdown, name="wardrobe-traces", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, CLOSE_SECONDS)


def span_attributes(request: RequestAccount) -> Attributes:
    """Return the attributes of a request's span."""
    attributes: Attributes = {
        "gen_ai.operation.name": _operation(request),
        "gen_ai.provider.name": PROVIDER,
        "http.response.status_code": request.status,
        "wardrobe.outcome": request.outcome,
        "wardrobe.operation": request.operation,
    }
    if request.inner_id:
        attributes["gen_ai.response.id"] = request.inner_id
    if request.outcome != "ok":
        attributes["error.type"] = request.reason or request.outcome
    if request.who:
        attributes["wardrobe.key"] = request.who
    return attributes if request.last is None else attributes | _answered(request.last)


def _answered(account: Account) -> Attributes:
    attributes: Attributes = {
        "gen_ai.request.model": account.adapter,
        "gen_ai.response.model": account.model,
        "gen_ai.request.stream": account.stream,
        "wardrobe.adapter": account.adapter,
        "wardrobe.adapter.version": account.version,
        "wardrobe.arm": account.arm,
    }
    if account.finish:
        attributes["gen_ai.response.finish_reasons"] = [account.finish]
    if account.usage is not None:
        attributes["gen_ai.usage.input_tokens"] = account.usage.input
        attributes["gen_ai.usage.output_tokens"] = account.usage.output
    if account.first_token is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = account.first_token
    return attributes


def _operation(request: RequestAccount) -> str:
    return OPERATIONS.get(request.operation, request.operation)


def _provider(settings: ServeSettings) -> TracerProvider:
    if not all(_is_installed(package) for package in _PACKAGES):
        fact = "is set, but OpenTelemetry is not installed"
        raise UsageError("tracing.endpoint", fact, "pip install 'wardrobe-llm[otel]', or leave it out")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    told = settings.tracing
    assert told.endpoint is not None, "asked before"
    whose = {"service.name": told.service_name, "service.instance.id": settings.replica_name}
    sampler = ParentBased(TraceIdRatioBased(told.sample_ratio))
    provider = TracerProvider(sampler, Resource.create(whose), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(_traces_url(told.endpoint), timeout=told.export_timeout_seconds)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=told.queue_size))
    return provider


def _traces_url(endpoint: str) -> str:
    """Return the full address: a collector's own without a path gets the path of OTLP over HTTP."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
