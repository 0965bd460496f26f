"""A version that adapts the output head is asked by answers, wherever its log-probabilities are wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import TINY
from tests.fakes.openai_server import openai_server
from tests.fakes.safetensors import encode
from tests.fakes.store import make_registry, put
from tests.fakes.terminal import Terminal
from train.evaluation.models.roster import Roster
from train.evaluation.models.served import ServedModel


def with_head(registry: Registry, folder: Path) -> None:
    a, b = np.ones((8, TINY.hidden), np.float32), np.ones((TINY.vocab, 8), np.float32)
    name = "base_model.model.lm_head.lora_"
    tensors = {f"{name}A.weight": encode(a, "BF16"), f"{name}B.weight": encode(b, "BF16")}
    registry.publish(
        "head", make_adapter(folder, modules=("lm_head",), mutate=lambda _: tensors), who="tester"
    )


def test_only_a_version_that_adapts_the_head_is_asked_by_answers(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry, "support")
    with_head(registry, tmp_path / "head")
    with openai_server({name: lambda _: "x" for name in ("head@1", "support@1", "tiny")}) as (url, server):
        roster = Roster(registry, url)
        asked = {}
        for reference in ("head@1", "support@1", "base"):
            server.seen.clear()
            model = roster.model(reference)
            assert isinstance(model, ServedModel)
            model.token_log_probabilities([1, 2, 3])
            asked[reference] = ["prompt_logprobs" in body for body in server.seen]
        roster.close()
    assert asked == {"head@1": [False, False], "support@1": [True], "base": [True]}


def test_the_harness_says_what_its_log_likelihoods_would_leave_out(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry, "support")
    with_head(registry, tmp_path / "head")
    terminal = Terminal(("--root", str(registry.root), "--url", "http://127.0.0.1:1"))
    line = ("eval", "harness", "--tasks", "arc_easy", "--dry-run", "--model")
    assert "head@1 adapts lm_head" in terminal.ok(*line, "head@1").err
    assert "adapts lm_head" not in terminal.ok(*line, "support@1").err
    assert "adapts lm_head" not in terminal.ok(*line, "head@1", "--chat").err
