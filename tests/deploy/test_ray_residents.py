"""What Ray is told of where an adapter is, without Ray."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deploy.ray.residents import KnownAdapters, ResidentAdapters, adapter_of
from registry.store import Registry
from tests.fakes.store import beat, make_registry, put


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


def body(**fields: object) -> bytes:
    return json.dumps({"messages": [], **fields}).encode()


@pytest.mark.parametrize(
    ("path", "content", "adapter"),
    [
        ("/v1/chat/completions", body(model="support"), "support"),
        ("/v1/completions?x=1", body(model="support@3"), "support"),
        ("/v1/chat/completions", body(model="support@next"), "support"),
        ("/a/support/v1/chat/completions", body(), "support"),
        ("/a/support@3/v1/chat/completions", body(model="other"), "support"),
        ("/a/support%403/v1/models", b"", "support"),
        ("/v1/chat/completions", body(), ""),
        ("/v1/chat/completions", body(model=None), ""),
        ("/v1/chat/completions", body(model=["support"]), ""),
        ("/v1/chat/completions", body(model="../../etc"), ""),
        ("/v1/chat/completions", b'{"model": "support"', ""),
        ("/v1/chat/completions", b'["model"]', ""),
        ("/v1/chat/completions", b'{"model": ' + b"[" * 100_000, ""),
        ("/v1/chat/completions", b"\xff" + body(model="support"), ""),
        ("/v1/chat/completions", body(model="support", pad="x" * 2**20), ""),
        ("/admin/v1/adapters/support/promote", body(model="support"), ""),
    ],
)
def test_the_adapter_of_a_request_is_told_by_its_path_or_its_body(
    path: str, content: bytes, adapter: str
) -> None:
    assert adapter_of(path, content) == adapter


def test_the_base_and_unknown_names_are_nobodys_adapter(registry: Registry) -> None:
    put(registry)
    known = KnownAdapters(registry.root)
    assert "support" in known
    for name in ("", "tiny", "nobody"):
        assert name not in known
    put(registry, "nobody", seed=2)
    assert "nobody" in known


def test_a_replica_tells_what_its_heartbeat_says_and_what_it_was_asked_since(registry: Registry) -> None:
    now = [100.0]
    told = ResidentAdapters(registry.root / "replicas" / "one.json", lambda: now[0])
    assert told.names() == []
    registry.beat(beat("one", "support@1", "support@2", "other@7"))
    assert told.names() == ["other", "support"]
    assert told.ask("third")
    assert not told.ask("third")
    assert not told.ask("support")
    assert told.names() == ["other", "support", "third"]
    now[0] += 10.0
    assert told.names() == ["other", "support"]  # it was asked for, and is not there
    registry.beat(beat("one", "third@1"))
    assert told.names() == ["third"]


def test_a_heartbeat_that_cannot_be_read_leaves_what_was_told_last(registry: Registry) -> None:
    told = ResidentAdapters(registry.root / "replicas" / "one.json")
    registry.beat(beat("one", "support@1"))
    assert told.names() == ["support"]
    path = registry.root / "replicas" / "one.json"
    for content in (b"", b"{", b"[]", b'{"resident": 7}'):
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        assert told.names() == ["support"]
    path.unlink()
    assert told.names() == ["support"]
