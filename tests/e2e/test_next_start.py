"""The end of a server, and the next one on its root: kill -9 of the launcher leaves nothing behind.

The next one writes access lines and spans, divides its prefix cache between groups, and SIGTERM lets it
finish what is in flight.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from loadtests.live import Live, is_alive
from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import Group, Scope
from tests.deploy.monitoring import wait
from tests.e2e.asking import ALPHA, ask
from tests.e2e.conftest import SERVER_OPTIONS
from tests.e2e.test_recovery import Stream
from tests.fakes.otlp import Collector, Span, collector

QUESTION = "Has the patient told us about the weather?"


@dataclass(frozen=True)
class Traced:
    """A server on the session's root that tells of its requests, and who takes its spans."""

    server: Live
    taking: Collector

    def spans(self) -> list[Span]:
        """Return the spans of requests; what proved the version has traces of its own."""
        traces = {one.trace_id for one in self.taking.spans if one.name == "chat support"}
        return [one for one in self.taking.spans if one.trace_id in traces]


@pytest.fixture(scope="module")
def traced(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with collector() as taking:
        environment = {
            "WARDROBE_ACCESS_LOG": "true",
            "WARDROBE_LOG_FORMAT": "json",
            "WARDROBE_REPLICA": "watched",
            "WARDROBE_TRACING__ENDPOINT": taking.url,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        options = (
            *SERVER_OPTIONS,
            "--enable-prompt-tokens-details",
            "--otlp-traces-endpoint",
            f"{taking.url}/v1/traces",
        )
        log = tmp_path_factory.mktemp("next") / "serve.log"
        with Live.running(live.root, log, *options, environment=environment) as server:
            yield Traced(server, taking)


@pytest.fixture(scope="module")
def keys(traced: Traced) -> dict[str, str]:
    """Make two groups and a key of each, beside one of no group; from here on the server asks for keys."""
    store = GroupStore(traced.server.root)
    for name in ("ours", "theirs"):
        store.create(Group(name), who="tester")
    made = {}
    for name, group in (("ours", "ours"), ("theirs", "theirs"), ("nobody's", "default")):
        _, made[name] = KeyStore(traced.server.root).create({Scope.INFER}, who="tester", group=group)
    url = f"{traced.server.url}/v1/models"
    wait(lambda: httpx.get(url, timeout=10).status_code == 401, "the server has read the keys")
    return made


def gone(pids: list[int], seconds: float) -> list[int]:
    """Return the processes that are still there after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(is_alive(pid) for pid in pids):
        time.sleep(0.1)
    return [pid for pid in pids if is_alive(pid)]


def test_kill_9_of_the_launcher_leaves_no_process(live: Live) -> None:
    processes = live.children()
    assert processes
    live.close_clients()
    live.process.kill()
    live.process.wait(10)
    assert gone(processes, 20) == []


def test_the_next_start_serves_with_lines_and_spans_of_its_own_and_vllms_below(traced: Traced) -> None:
    answer = ask(traced.server.client(), "support", QUESTION)
    assert answer.marker == ALPHA
    wait(lambda: len(traced.spans()) == 2, "a span of ours and one of vLLM's")
    theirs, ours = sorted(traced.spans(), key=lambda one: one.name, reverse=True)
    assert (ours.name, theirs.name) == ("chat support", "llm_request")
    assert theirs.parent_id == ours.span_id
    assert ours.attributes["gen_ai.response.model"] == answer.model
    printed = traced.server.log.read_text().splitlines()
    lines = [json.loads(line) for line in printed if line.startswith("{")]
    (line,) = [one for one in lines if one["logger"] == "wardrobe.access"]
    assert (line["outcome"], line["adapter"], line["trace_id"]) == ("ok", "support", ours.trace_id)
    assert any("ready on" in one["message"] for one in lines)
    written = [*(traced.server.root / "logs" / "watched").iterdir(), traced.server.log]
    assert [path.name for path in written if QUESTION in path.read_text()] == []


def test_the_engine_and_its_worker_are_forked_from_one_that_imported(traced: Traced) -> None:
    (fork_server,) = traced.server.children("ForkServer")
    made = [*traced.server.children("EngineCore"), *traced.server.children("VLLM::Worker")]
    parents = [int(Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[1]) for one in made]
    assert parents == [fork_server, fork_server]


def test_the_prefix_cache_knows_a_group_its_own_prompts_and_no_others(
    traced: Traced, keys: dict[str, str]
) -> None:
    """Paired: the same prompt, told apart by who asks alone."""
    prompt = "The patient told us about the weather, and then again about the weather. " * 40

    def cached(key: str, **fields: str) -> int:
        body = {"model": "support", "prompt": prompt, "max_tokens": 1, **fields}
        headers = {"authorization": f"Bearer {keys[key]}"}
        answer = httpx.post(f"{traced.server.url}/v1/completions", json=body, headers=headers, timeout=60)
        details = answer.json()["usage"]["prompt_tokens_details"]
        return int(details["cached_tokens"]) if details else 0

    assert cached("ours") == 0
    assert cached("ours") > 0
    assert cached("theirs") == 0, "ours has asked it twice"
    assert cached("theirs") > 0
    assert cached("ours", cache_salt="a client's") == 0
    assert cached("ours", cache_salt="a client's") > 0
    assert cached("theirs", cache_salt="a client's") == 0
    assert cached("nobody's") == 0, "keys of no group have a part of their own, too"


def test_sigterm_lets_a_stream_finish_and_refuses_new_work(traced: Traced, keys: dict[str, str]) -> None:
    server = traced.server
    stream = Stream(server, tokens=250, key=keys["ours"])  # less than `drain_seconds` of a busy machine
    stream.start()
    assert stream.begun.wait(30)
    processes = server.children()
    server.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert server.process.poll() is None, "the server left before its stream had ended"
    refused = httpx.get(f"{server.url}/readyz", timeout=10)
    assert refused.status_code == 503
    stream.join(60)
    assert stream.ended_properly
    assert server.process.wait(60) == 0
    assert gone(processes, 10) == []
