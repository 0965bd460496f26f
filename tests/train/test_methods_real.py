"""Each method on the real base: a few steps move it where its rows say, and the result registers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from tests.train.small_trainings import Training, quiet, train_small

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def registry(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A root on the real base."""
    return Registry.init(tmp_path_factory.mktemp("methods") / "root", base_folder, name="smollm2")


def train(registry: Registry, folder: Path, method: str, /, **changes: Any) -> Training:
    return train_small(folder, registry.base.path, method, **changes)


def publish(registry: Registry, found: Training) -> None:
    made = registry.publish(found.config.name, found.out, who="test")
    version = registry.version(found.config.name, made.version.number)
    assert {file.path for file in version.files} == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_preferences_part_the_better_from_the_worse_answer(
    registry: Registry, tmp_path: Path, method: str
) -> None:
    found = train(registry, tmp_path, method, training={"steps": 4})
    # A batch of ratings may hold one kind only, and then it has no margin.
    margins = [log["rewards/margins"] for log in found.logs if "rewards/margins" in log]
    assert margins[-1] > margins[0] + 0.05
    if method == "dpo":
        assert margins[0] == 0.0
        assert found.losses[0] == pytest.approx(math.log(2), rel=1e-4)
    if method == "kto":
        chosen, rejected = (
            [log[name] for log in found.logs if name in log]
            for name in ("rewards/chosen", "rewards/rejected")
        )
        assert chosen[-1] > 0 > rejected[-1]
    if method == "orpo":
        assert found.logs[-1]["nll_loss"] < found.logs[0]["nll_loss"]
    publish(registry, found)


def test_a_reward_model_tells_the_answers_apart(registry: Registry, tmp_path: Path) -> None:
    found = train(registry, tmp_path, "reward", data={"eval": "reward.jsonl"}, training={"steps": 4})
    with quiet():
        measured = found.trainer.evaluate()
    assert measured["eval_rewards/accuracies"] == 1.0
    assert measured["eval_rewards/margins"] > 0.1


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_reinforcement_answers_learns_and_registers(registry: Registry, tmp_path: Path, method: str) -> None:
    document = {"reward": {"graders": [{"type": "regex", "pattern": "e.*e.*e"}]}}
    found = train(registry, tmp_path, method, method=document, training={"steps": 2, "batch_size": 8})
    assert len(found.logs) == 2
    assert all(math.isfinite(log["loss"]) and 0 <= log["reward"] <= 1 for log in found.logs)
    assert any(log["grad_norm"] > 0 for log in found.logs)
    publish(registry, found)
