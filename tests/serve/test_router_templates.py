"""A version with a chat template of its own: never asked in a conversation that the base's would render."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from serve.protocol.paths import ENDPOINTS, PathKind
from serve.rollout.assignment import Arm
from tests.fakes.adapters import make_adapter
from tests.fakes.served import Served, make_root, publish

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Make a root with `support` 1 (stable) and 2, which brings a template; no controller looks."""
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    folder = make_adapter(tmp_path / "own", seed=2, chat_template="{{ messages[0].content }}")
    registry.publish("support", folder, who="tester")
    return registry


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HELLO}),
        ("/v1/chat/completions", {"messages": HELLO, "chat_template": "{{ mine }}"}),
        ("/v1/chat/completions/batch", {"messages": [HELLO]}),
        ("/v1/responses", {"input": "Hello"}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 1}),
        ("/v1/messages/count_tokens", {"messages": HELLO}),
        ("/v1/tokenize", {"messages": HELLO}),
        ("/v1/embeddings", {"messages": HELLO}),
    ],
)
def test_a_conversation_is_refused_with_the_way_out(served: Served, path: str, body: dict[str, Any]) -> None:
    answer = served.client.post(path, json={"model": "support@2", **body})
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message.startswith("support@2: was trained on a chat template of its own")
    assert "/v1/completions" in message
    assert served.inner.seen == []
    assert served.outcomes(version="2") == {"client_error": 1.0}
    assert served.client.post(path, json={"model": "support@1", **body}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/completions", {"prompt": "Hello"}), ("/v1/tokenize", {"prompt": "Hello"})],
)
def test_a_prompt_is_answered(served: Served, path: str, body: dict[str, Any]) -> None:
    assert served.client.post(path, json={"model": "support@2", **body}).status_code == 200
    assert [seen.body["model"] for seen in served.inner.seen] == ["support@2"]


def test_a_canary_that_got_there_by_force_is_rescued_and_pays_for_it(served: Served) -> None:
    recorder = served.open_rollout(state="ramping", weight=10_000, stable=1, canary=2)
    answer = served.chat()
    assert answer.status_code == 200
    assert answer.headers["x-wardrobe-adapter"] == "support@1"
    served.settled()
    assert recorder.segment.arm(Arm.CANARY).outcomes == {"engine_error": 1}


def test_every_path_of_conversations_says_that_it_renders() -> None:
    found = {one.operation for one in ENDPOINTS.values() if one.kind is PathKind.INFERENCE and one.renders}
    assert found == {"chat", "chat_batch", "responses", "messages", "count_tokens"}
