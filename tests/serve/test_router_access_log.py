"""The access log: one line for each request, whatever became of it, and never a word of the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from serve.router.inference import Inference
from serve.router.telemetry.accounted import ObservedInference
from serve.settings import RequestLimits
from tests.fakes.served import Served, make_root, publish, serve, wait_until

SECRET = "the patient has told us about the weather"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    log = tmp_path / "logs" / "access.jsonl"
    limits = RequestLimits(total_seconds=0.5)
    with serve(
        registry, tmp_path, limits=limits, log_file=log, log_format="json", access_log=True
    ) as running:
        yield running


def lines(served: Served, count: int = 1) -> list[dict[str, Any]]:
    """Return the access lines once there are `count`."""
    path = served.folder / "logs" / "access.jsonl"

    def read() -> list[dict[str, Any]]:
        every = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in every if line["logger"] == "wardrobe.access"]

    wait_until(lambda: len(read()) >= count, f"{count} lines")
    assert len(read()) == count
    return read()


def test_a_line_says_who_answered_how_and_for_how_long(served: Served) -> None:
    answer = served.client.post(
        "/v1/chat/completions",
        json={"model": "support", "stream": True, "messages": [{"role": "user", "content": SECRET}]},
        headers={"x-request-id": "mine-1"},
    )
    (line,) = lines(served)
    assert {name: line[name] for name in ("operation", "status", "outcome", "adapter", "version", "arm")} == {
        "operation": "chat",
        "status": 200,
        "outcome": "ok",
        "adapter": "support",
        "version": "1",
        "arm": "stable",
    }
    assert (line["input_tokens"], line["output_tokens"], line["finish"]) == (7, 3, "stop")
    assert line["request_id"] == "mine-1" == answer.headers["x-request-id"]
    assert ".support@1.s." in line["id"]
    assert 0 < line["ttft_seconds"] <= line["seconds"]
    assert line["stream"] is True
    assert line["key"] == "anonymous"
    assert line["level"] == "info"
    assert line["message"].startswith("chat support@1 stable 200 ok")


def test_no_word_of_a_prompt_or_an_answer_is_in_the_log(served: Served) -> None:
    for fields in ({}, {"play": "500"}, {"play": "raise"}, {"lora_path": SECRET}, {"model": SECRET}):
        messages = [{"role": "user", "content": SECRET}]
        body = {"model": "support", "messages": messages, "user": SECRET, **fields}
        # A connection of its own: uvicorn closes the one whose application broke.
        httpx.post(served.client.base_url.join("/v1/chat/completions"), json=body)
    served.client.post("/v1/chat/completions", content=f"no JSON: {SECRET}".encode())
    lines(served, 6)
    assert SECRET[:20] not in (served.folder / "logs" / "access.jsonl").read_text()


@pytest.mark.parametrize(
    ("fields", "status", "outcome", "reason"),
    [
        ({"model": "nobody"}, 404, "refused", "model_not_found"),
        ({"lora_path": "/x"}, 400, "refused", None),
        ({"play": "500"}, 500, "engine_error", None),
        ({"play": "400"}, 400, "client_error", None),
        ({"play": "hang"}, 504, "timeout", None),
        ({"play": "error", "stream": True}, 200, "engine_error", None),
    ],
    ids=["unknown model", "forbidden field", "500", "400", "too long", "error in a stream"],
)
def test_a_request_that_is_not_answered_well_has_its_line_too(
    served: Served, fields: dict[str, Any], status: int, outcome: str, reason: str | None
) -> None:
    model = fields.pop("model", "support")
    answer = served.chat(model, **fields)
    assert answer.status_code == status
    (line,) = lines(served)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["status"], line["outcome"]) == (status, outcome)
    if reason is not None:
        assert line["reason"] == reason


def test_a_version_that_does_not_load_is_named(served: Served) -> None:
    served.engine.refusals["support@2"] = "no"
    assert served.chat("support@2").status_code == 503
    (line,) = lines(served)
    assert (line["status"], line["outcome"], line["version"]) == (503, "engine_error", "2")


def test_a_rescued_request_is_one_line_that_names_both(served: Served) -> None:
    served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = "500"
    assert served.chat("support").status_code == 200
    (line,) = lines(served)
    assert (line["adapter"], line["version"], line["arm"], line["rescued_from"]) == (
        "support", "1", "stable", "support@2",
    )  # fmt: skip


def test_a_key_is_named_by_its_id_and_never_by_its_secret(served: Served) -> None:
    info, token = KeyStore(served.registry.root).create([Scope.INFER], who="tester")
    wait_until(lambda: served.chat("support").status_code == 401, "keys are in use")
    served.client.headers["authorization"] = f"Bearer {token}"
    wait_until(lambda: served.chat("support").status_code == 200, "the key is known")
    path = served.folder / "logs" / "access.jsonl"
    wait_until(lambda: info.id in path.read_text(), "the line is there")
    every = [json.loads(line) for line in path.read_text().splitlines()]
    assert every[-1]["key"] == info.id
    refused = next(line for line in every if line["status"] == 401)
    assert refused["outcome"] == "refused"
    assert "key" not in refused
    assert token.partition(f"{info.id}_")[2] not in path.read_text()


def test_a_server_that_keeps_no_accounts_runs_none_of_their_code(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path) as quiet:
        assert type(quiet.router._inference) is Inference
    with serve(registry, tmp_path, log_file=tmp_path / "log", access_log=True) as loud:
        assert type(loud.router._inference) is ObservedInference
