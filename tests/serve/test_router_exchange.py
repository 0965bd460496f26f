"""Answers on a real uvicorn: streams to their end, outcomes, clients that leave, time limits."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry.store import Registry
from serve.settings import RequestLimits
from tests.fakes.served import Served, serve, wait_until


@contextlib.contextmanager
def streaming(served: Served, play: str) -> Iterator[httpx.Response]:
    body = {"model": "support", "stream": True, "play": play}
    with served.client.stream("POST", "/v1/chat/completions", json=body) as response:
        yield response


def settled(served: Served) -> dict[str, float]:
    """Return the outcomes once nothing is in flight any more."""
    wait_until(lambda: served.runtime.metrics.inflight() == 0 and served.inner.running == 0, "all is settled")
    return served.outcomes()


def test_a_stream_passes_byte_for_byte_and_tells_who_answers(served: Served) -> None:
    with streaming(served, "stream") as response:
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert response.headers["x-wardrobe-adapter"] == "support@1"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events[-1] == "[DONE]"
    words = [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:4]]
    assert words == ["", "one", " two", " three"]
    identities = {json.loads(event)["id"] for event in events[:4]}
    assert len(identities) == 1
    assert served.runtime.ids.verify(identities.pop()) is not None
    assert settled(served) == {"ok": 1}


def test_chunks_are_passed_on_as_they_come_and_not_at_the_end(served: Served) -> None:
    with streaming(served, "slow") as response:
        lines = response.iter_lines()
        first = [next(lines) for _ in range(3)]
        assert '"one"' in first[2]
        assert served.metric("wardrobe_inference_inflight", adapter="support", arm="stable") == 1
        served.inner.open = True
        assert "data: [DONE]" in list(lines)


def test_a_stream_counts_its_times_and_tokens(served: Served) -> None:
    with streaming(served, "stream") as response:
        response.read()
    settled(served)
    labels = {"adapter": "support", "version": "1", "arm": "stable"}
    assert served.metric("wardrobe_inference_ttft_seconds_count", **labels) == 1
    assert served.metric("wardrobe_inference_time_per_output_token_seconds_count", **labels) == 1
    assert served.metric("wardrobe_inference_duration_seconds_count", **labels) == 1
    assert served.metric("wardrobe_inference_tokens_total", type="input", **labels) == 7
    assert served.metric("wardrobe_inference_tokens_total", type="output", **labels) == 3


def test_an_answer_in_one_piece_has_tokens_and_no_time_to_first_token(served: Served) -> None:
    assert served.chat("support").status_code == 200
    labels = {"adapter": "support", "version": "1", "arm": "stable"}
    settled(served)
    assert served.metric("wardrobe_inference_tokens_total", type="output", **labels) == 3
    assert served.metric("wardrobe_inference_ttft_seconds_count", **labels) == 0


@pytest.mark.parametrize("play", ["unclosed", "error", "cut", "raise_late"])
def test_a_stream_that_ends_in_any_wrong_way_is_the_engines_failure(served: Served, play: str) -> None:
    with contextlib.suppress(httpx.RemoteProtocolError), streaming(served, play) as response:
        assert response.status_code == 200
        response.read()
    assert settled(served) == {"engine_error": 1}


def test_a_stream_whose_server_breaks_gets_an_error_event_and_no_silent_end(served: Served) -> None:
    with streaming(served, "raise_late") as response:
        events = [line for line in response.iter_lines() if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_error"


def test_a_server_that_breaks_before_it_answers_is_a_500_in_our_shape(served: Served) -> None:
    response = served.chat("support", play="raise")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "engine_error"
    assert response.headers["x-wardrobe-adapter"] == "support@1"
    assert settled(served) == {"engine_error": 1}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(400, "client_error"), (422, "client_error"), (500, "engine_error"), (503, "rejected")],
)
def test_the_servers_own_errors_pass_in_our_words_and_are_booked(
    served: Served, status: int, outcome: str
) -> None:
    response = served.chat("support", play=str(status))
    assert response.status_code == status
    found = response.json()["error"]
    assert (list(found), found["message"]) == (["message", "type", "param", "code"], "as told")
    assert int(response.headers["content-length"]) == len(response.content)
    assert settled(served) == {outcome: 1}


def test_a_busy_server_names_no_time_so_we_do(served: Served) -> None:
    assert served.chat("support", play="503").headers["retry-after"] == "1"


@pytest.mark.parametrize("play", ["slow", "hang"])
def test_a_client_that_leaves_is_seen_behind_and_booked_as_cancelled(served: Served, play: str) -> None:
    with contextlib.suppress(httpx.ReadTimeout), streaming_briefly(served, play):
        pass
    wait_until(lambda: served.inner.left == 1, "the server behind sees the client leave")
    assert settled(served) == {"cancelled": 1}


@contextlib.contextmanager
def streaming_briefly(served: Served, play: str) -> Iterator[httpx.Response]:
    body = {"model": "support", "stream": True, "play": play}
    with served.client.stream("POST", "/v1/chat/completions", json=body, timeout=0.3) as response:
        next(response.iter_lines())
        yield response


def test_a_client_that_leaves_frees_its_version(served: Served) -> None:
    with contextlib.suppress(httpx.ReadTimeout), streaming_briefly(served, "hang"):
        pass
    settled(served)
    served.registry.promote("support", served.publish("support", 2).number, who="tester")
    served.registry.delete("support", 1, who="tester")
    wait_until(lambda: "support@1" not in served.engine.resident(), "the old version is unloaded")


def test_a_request_over_its_time_is_a_504_or_an_error_event(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path, limits=RequestLimits(total_seconds=0.2)) as served:
        late = served.chat("support", play="hang")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        with streaming(served, "slow") as response:
            events = [line for line in response.iter_lines() if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        assert settled(served) == {"timeout": 2}
        assert served.chat("support").status_code == 200


def test_every_arm_and_operation_is_booked_under_its_own_labels(served: Served) -> None:
    served.chat("support")
    served.chat("support@1")
    served.chat(None)
    served.client.post("/v1/embeddings", json={"model": "support", "input": "x"})
    settled(served)
    assert served.outcomes(operation="chat") == {"ok": 3}
    assert served.outcomes(operation="embeddings", adapter="support", version="1", arm="stable") == {"ok": 1}
    assert served.outcomes(arm="direct", adapter="support", version="1") == {"ok": 1}
    assert served.outcomes(arm="base", adapter="tiny", version="0") == {"ok": 1}


def test_what_a_client_writes_never_becomes_a_label(served: Served) -> None:
    for name in ("hacker", "support@77", 'x"} 1\n', "support@evil"):
        served.chat(name)
    served.client.get("/hacker")
    labels = re.findall(r"\{(.*)\}", served.exposition())
    assert labels
    assert not any(word in label for label in labels for word in ("hacker", "77", "evil"))
