"""What every engine does, whether it is vLLM or thirty lines: one suite, run for both.

A subclass gives the fixture `engine`. Adapter folders are SmolLM2-135M's shapes, built from bytes.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from registry.errors import NotServable
from serve.engine.interface import TOP_TOKENS, Engine
from serve.router.residents import probing
from tests.fakes.adapters import Adapter
from tests.fakes.base import SMOLLM2, BaseShape
from tests.fakes.safetensors import encode

T = TypeVar("T")
# vLLM's own noise between two runs of the same prompt in other batches, in bfloat16.
NOISE = 0.05
TEXT = "The quick brown fox jumps over the lazy dog and runs far away"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run one call of an engine to its end."""
    return asyncio.run(coroutine)


Score = dict[int, float]


def difference(left: Score, right: Score) -> float:
    """Return by how much two scores of one prompt differ, as the proof counts it."""
    return probing.difference([left], [right])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters whose effect is beyond doubt, and two folders that are not adapters."""
    root = tmp_path_factory.mktemp("adapters")
    found = {name: strong_adapter(root / name, seed) for seed, name in enumerate(("one", "two", "torn"), 1)}
    found |= {"head": on_the_head(root / "head"), "absent": root / "absent"}
    weights = found["torn"] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return found


def strong_adapter(folder: Path, seed: int, shape: BaseShape = SMOLLM2) -> Path:
    """Write an adapter whose effect is beyond doubt."""
    modules = ("q_proj", "v_proj", "o_proj")
    return Adapter(seed=seed, shape=shape, rank=8, alpha=128.0, modules=modules).write(folder)


def on_the_head(folder: Path) -> Path:
    """Write an adapter that changes nothing but the output head."""
    rng = np.random.default_rng(5)
    a = rng.standard_normal((8, SMOLLM2.hidden), dtype=np.float32) * 0.05
    b = rng.standard_normal((SMOLLM2.vocab, 8), dtype=np.float32) * 0.05
    name = "base_model.model.lm_head.lora_"
    tensors = {f"{name}A.weight": encode(a, "BF16"), f"{name}B.weight": encode(b, "BF16")}
    adapter = Adapter(shape=SMOLLM2, alpha=64.0, modules=("lm_head",), mutate=lambda _: tensors)
    return adapter.write(folder)


class EngineContract:
    """The suite; `engine` is shared by its tests, each of which unloads what it loaded."""

    def test_it_is_alive_and_has_room(self, engine: Engine) -> None:
        assert engine.alive()
        assert engine.base_name
        assert engine.capacity >= engine.slots >= 1
        assert engine.context_tokens > 0
        assert engine.prompt_characters is None or engine.prompt_characters >= engine.context_tokens

    def test_it_tells_right_items_of_a_request_from_a_wrong_one(self, engine: Engine) -> None:
        right: list[object] = [{"role": "user", "content": "hi"}] * 40
        assert run(engine.vet_items(json.dumps(right).encode())) == ""
        assert "item 40 " in run(engine.vet_items(json.dumps([*right, "text", *right]).encode()))
        assert engine.resident() == frozenset()

    @pytest.mark.parametrize("workers", [False, True])
    def test_it_answers_a_pulse_idle_and_while_it_works(self, engine: Engine, workers: bool) -> None:
        async def both() -> None:
            await asyncio.gather(engine.score(None, [engine.tokenize(TEXT)]), engine.pulse(workers=workers))

        run(engine.pulse(workers=workers))
        run(both())

    def test_what_it_makes_of_a_request_is_progress(self, engine: Engine) -> None:
        before = engine.progress()
        run(engine.score(None, [engine.tokenize(TEXT)]))
        after = engine.progress()
        assert before.made is not None
        assert after.made is not None
        assert after.made > before.made
        assert after.unfinished == 0

    def test_text_becomes_token_ids_without_special_ones(self, engine: Engine) -> None:
        assert engine.tokenize("") == []
        tokens = engine.tokenize(TEXT)
        assert len(tokens) > 5
        assert all(isinstance(token, int) for token in tokens)
        assert engine.tokenize(TEXT) == tokens

    def test_scores_are_natural_log_probabilities_of_the_likeliest_next_tokens(self, engine: Engine) -> None:
        prompts = [engine.tokenize(TEXT), engine.tokenize("Hello there, how are you?")]
        scores = run(engine.score(None, prompts))
        assert [len(one) for one in scores] == [TOP_TOKENS] * 2
        assert all(math.isfinite(value) and value <= 0 for one in scores for value in one.values())
        assert difference(scores[0], run(engine.score(None, prompts[:1]))[0]) < NOISE

    def test_an_adapter_on_the_output_head_alone_changes_its_scores(
        self, engine: Engine, folders: dict[str, Path]
    ) -> None:
        prompts = [engine.tokenize(TEXT)]
        run(engine.load("head", folders["head"]))
        head, base = (run(engine.score(name, prompts))[0] for name in ("head", None))
        assert difference(head, base) > 3 * NOISE
        run(engine.unload("head"))

    def test_a_loaded_adapter_is_resident_and_changes_only_its_own_scores(
        self, engine: Engine, folders: dict[str, Path]
    ) -> None:
        prompts = [engine.tokenize(TEXT)]
        base = run(engine.score(None, prompts))[0]
        for name in ("one", "two"):
            run(engine.load(name, folders[name]))
        assert engine.resident() == {"one", "two"}
        one, two = (run(engine.score(name, prompts))[0] for name in ("one", "two"))
        assert difference(one, base) > 3 * NOISE
        assert difference(two, base) > 3 * NOISE
        assert difference(one, two) > 3 * NOISE
        assert difference(run(engine.score(None, prompts))[0], base) < NOISE
        for name in ("one", "two"):
            run(engine.unload(name))
        assert engine.resident() == frozenset()

    def test_loading_a_loaded_name_leaves_it_alone(self, engine: Engine, folders: dict[str, Path]) -> None:
        prompts = [engine.tokenize(TEXT)]
        run(engine.load("one", folders["one"]))
        before = run(engine.score("one", prompts))[0]
        run(engine.load("one", folders["two"]))
        assert difference(run(engine.score("one", prompts))[0], before) < NOISE
        run(engine.unload("one"))

    def test_an_unloaded_name_is_gone_and_unloading_it_again_is_no_error(
        self, engine: Engine, folders: dict[str, Path]
    ) -> None:
        run(engine.load("one", folders["one"]))
        run(engine.unload("one"))
        run(engine.unload("one"))
        run(engine.unload("never loaded"))
        assert engine.resident() == frozenset()
        with pytest.raises(NotServable, match="not loaded"):
            run(engine.score("one", [engine.tokenize(TEXT)]))

    def test_other_weights_under_a_name_used_before_are_the_ones_that_answer(
        self, engine: Engine, folders: dict[str, Path]
    ) -> None:
        prompts = [engine.tokenize(TEXT)]
        scores = []
        for folder in ("one", "two"):
            run(engine.load("again", folders[folder]))
            scores.append(run(engine.score("again", prompts))[0])
            run(engine.unload("again"))
        assert difference(*scores) > 3 * NOISE

    @pytest.mark.parametrize("broken", ["torn", "absent"])
    def test_a_broken_folder_is_refused_with_a_reason_and_nothing_stays(
        self, engine: Engine, folders: dict[str, Path], broken: str
    ) -> None:
        with pytest.raises(NotServable) as refused:
            run(engine.load("bad", folders[broken]))
        assert refused.value.subject == "bad"
        assert len(refused.value.fact) > 20
        assert "bad" not in engine.resident()
        assert engine.alive()
        run(engine.load("bad", folders["one"]))
        assert engine.resident() == {"bad"}
        run(engine.unload("bad"))

    def test_names_are_loaded_side_by_side(self, engine: Engine, folders: dict[str, Path]) -> None:
        async def both() -> None:
            await asyncio.gather(engine.load("one", folders["one"]), engine.load("two", folders["two"]))

        run(both())
        assert engine.resident() == {"one", "two"}
        for name in ("one", "two"):
            run(engine.unload(name))
