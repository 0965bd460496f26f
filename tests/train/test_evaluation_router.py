"""Evaluation through the real router: its refusals, its digests, its names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.cli.main import run as wardrobe
from tests.fakes.openai_server import write_suite
from tests.fakes.served import make_root, publish, serve


def test_versions_and_the_base_are_asked_by_their_own_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [{"prompt": f"{n}"} for n in range(4)]
    suite = write_suite(tmp_path / "suite", items, graders=[{"type": "stops"}])
    registry = make_root(tmp_path)
    with serve(registry, tmp_path) as server:
        server.publish("support", 1)
        server.publish("support", 2)
        url = str(server.client.base_url)
        command = ["--root", str(registry.root), "--url", url, "eval", "run", str(suite), "--json"]
        arms = ["--model", "support@2", "--against", "support@1", "--against", "base"]
        assert wardrobe([*command, *arms, "--out", str(tmp_path / "out")]) == 0
        asked = [seen.body["model"] for seen in server.inner.seen if seen.method == "POST"]
    printed = json.loads(capsys.readouterr().out)
    assert [arm["errors"] for arm in printed["arms"]] == [0, 0, 0]
    assert printed["arms"][0]["digest"] == registry.version("support", 2).digest
    assert sorted(asked) == ["support@1"] * 4 + ["support@2"] * 4 + ["tiny"] * 4
    assert len(registry.attestations("support", 1, "evaluation")) == 1


def test_a_server_of_another_root_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = write_suite(tmp_path / "suite", [{"prompt": "1"}], graders=[{"type": "stops"}])
    (tmp_path / "other").mkdir()
    mine, other = make_root(tmp_path), make_root(tmp_path / "other")
    with serve(other, tmp_path / "other") as server:
        server.publish("support", 2)
        publish(mine, tmp_path, "support", 1)
        url = str(server.client.base_url)
        command = ["--root", str(mine.root), "--url", url, "eval", "run", str(suite)]
        assert wardrobe([*command, "--model", "support@1", "--out", str(tmp_path / "out")]) == 1
    assert "1 questions have no answer" in capsys.readouterr().err
    assert "is this the server of this root?" in (tmp_path / "out" / "items.jsonl").read_text()
