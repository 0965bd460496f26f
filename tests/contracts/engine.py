"""What every engine does, whether it is vLLM or thirty lines: one suite, run for both.

A subclass gives the fixture `engine`. Adapter folders are SmolLM2-135M's shapes, built from bytes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from registry.errors import NotServable
from serve.engine.interface import Engine
from tests.fakes.adapters import Adapter
from tests.fakes.base import SMOLLM2

T = TypeVar("T")
# vLLM's own noise between two runs of the same prompt in other batches, in bfloat16.
NOISE = 0.05
TEXT = "The quick brown fox jumps over the lazy dog and runs far away"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run one call of an engine to its end."""
    return asyncio.run(coroutine)


def difference(left: list[float], right: list[float]) -> float:
    """Return the largest difference of two lists of log-probabilities."""
    assert len(left) == len(right)
    return max(abs(one - other) for one, other in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters whose effect is beyond doubt, and two folders that are no adapter."""
    root = tmp_path_factory.mktemp("adapters")
    strong = {"shape": SMOLLM2, "rank": 8, "alpha": 128.0, "modules": ("q_proj", "v_proj", "o_proj")}
    found = {
        "one": Adapter(seed=1, **strong).write(root / "one"),  # type: ignore[arg-type]
        "two": Adapter(seed=2, **strong).write(root / "two"),  # type: ignore[arg-type]
        "torn": Adapter(seed=3, **strong).write(root / "torn"),  # type: ignore[arg-type]
        "absent": root / "absent",
    }
    weights = found["torn"] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return found


class EngineContract:
    """The suite; `engine` is shared by its tests, each of which unloads what it loaded."""

    def test_it_is_alive_and_has_room(self, engine: Engine) -> None:
        assert engine.alive()
        assert engine.base_name
        assert engine.capacity >= engine.slots >= 1
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

    def test_scores_are_natural_log_probabilities_one_less_than_tokens(self, engine: Engine) -> None:
        prompts = [engine.tokenize(TEXT), engine.tokenize("Hello there, how are you?")]
        scores = run(engine.score(None, prompts))
        assert [len(one) for one in scores] == [len(prompt) - 1 for prompt in prompts]
        assert all(math.isfinite(value) and value <= 0 for one in scores for value in one)
        assert difference(scores[0], run(engine.score(None, prompts[:1]))[0]) < NOISE

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
