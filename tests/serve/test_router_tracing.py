"""Spans of requests at a real OTLP receiver: names, parents, what they hold, and what they must not."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from serve.settings import TracingSettings
from tests.fakes.otlp import Collector, collector
from tests.fakes.served import Served, make_root, publish, serve

SECRET = "the patient has told us about the weather"
TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    return registry


@pytest.fixture
def taking() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture
def served(registry: Registry, tmp_path: Path, taking: Collector) -> Iterator[Served]:
    with serve(registry, tmp_path, tracing=TracingSettings(endpoint=taking.url)) as running:
        yield running


def test_a_stream_is_a_span_with_the_names_of_the_conventions(served: Served, taking: Collector) -> None:
    served.client.headers["traceparent"] = f"00-{TRACE}-{ABOVE}-01"
    served.chat("support", stream=True)
    (span,) = taking.wait_for(1)
    assert taking.paths == {"/v1/traces"}
    assert span.name == "chat support"
    assert (span.trace_id, span.parent_id) == (TRACE, ABOVE)
    assert not span.failed
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "support",
        "gen_ai.response.model": "support@1",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ["stop"],
        "http.response.status_code": 200,
        "wardrobe.adapter": "support",
        "wardrobe.adapter.version": "1",
        "wardrobe.arm": "stable",
        "wardrobe.outcome": "ok",
    }
    assert {name: span.attributes.get(name) for name in expected} == expected
    assert "first token" in span.events
    assert span.resource["service.name"] == "wardrobe"
    assert span.resource["service.instance.id"] == "r1"


def test_the_server_behind_continues_our_span(served: Served, taking: Collector) -> None:
    served.client.headers["traceparent"] = f"00-{TRACE}-{ABOVE}-01"
    served.client.headers["tracestate"] = "vendor=1"
    served.chat("support")
    (span,) = taking.wait_for(1)
    behind = served.inner.seen[-1].headers
    assert behind["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
    assert behind["tracestate"] == "vendor=1"


def test_without_a_context_a_trace_begins_here(served: Served, taking: Collector) -> None:
    served.chat("support")
    (span,) = taking.wait_for(1)
    assert span.parent_id == ""
    assert served.inner.seen[-1].headers["traceparent"].split("-")[1] == span.trace_id


def test_no_word_of_a_prompt_or_an_answer_is_in_a_span(served: Served, taking: Collector) -> None:
    messages = [{"role": "user", "content": SECRET}]
    for fields in ({}, {"play": "500"}, {"model": SECRET}, {"lora_path": SECRET}):
        body = {"model": "support", "messages": messages, "user": SECRET, **fields}
        served.client.post("/v1/chat/completions", json=body, headers={"x-session-id": SECRET})
    taking.wait_for(4)
    assert SECRET[:20].encode() not in b"".join(taking.raw)


@pytest.mark.parametrize(
    ("fields", "failed", "error"),
    [
        ({"play": "500"}, True, "engine_error"),
        ({"play": "400"}, False, "client_error"),
        ({"model": "nobody"}, False, "model_not_found"),
    ],
)
def test_a_failure_has_its_kind_and_a_clients_fault_is_none_of_ours(
    served: Served, taking: Collector, fields: dict[str, Any], failed: bool, error: str
) -> None:
    served.chat(fields.pop("model", "support"), **fields)
    (span,) = taking.wait_for(1)
    assert (span.failed, span.attributes["error.type"]) == (failed, error)


def test_a_rescue_is_an_event_of_the_span(served: Served, taking: Collector) -> None:
    served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = "500"
    assert served.chat("support").status_code == 200
    (span,) = taking.wait_for(1)
    assert span.attributes["gen_ai.response.model"] == "support@1"
    assert span.events["rescue"] == {"wardrobe.failed": "support@2", "error.type": "engine_error"}
    assert not span.failed


def test_a_sample_of_none_sends_nothing_but_what_the_client_sampled(
    registry: Registry, tmp_path: Path, taking: Collector
) -> None:
    with serve(registry, tmp_path, tracing=TracingSettings(endpoint=taking.url, sample_ratio=0)) as served:
        served.chat("support")
        served.client.headers["traceparent"] = f"00-{TRACE}-{ABOVE}-01"
        served.chat("support")
    assert [span.trace_id for span in taking.spans] == [TRACE]


def test_a_receiver_that_does_not_answer_holds_up_neither_requests_nor_the_end(
    registry: Registry, tmp_path: Path, taking: Collector
) -> None:
    taking.hold = threading.Event()
    told = TracingSettings(endpoint=taking.url, queue_size=512)
    with serve(registry, tmp_path, tracing=told) as served:
        assert {served.chat("support").status_code for _ in range(600)} == {200}
    taking.hold.set()


def test_where_tracing_is_off_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, serve.router.app, serve.router.telemetry.tracing\n"
        "from serve.settings import ServeSettings\n"
        "assert serve.router.telemetry.tracing.Tracing.open(ServeSettings()) is None\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
