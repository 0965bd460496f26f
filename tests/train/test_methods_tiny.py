"""What each method does to a model, on a tiny Llama: what it learns, keeps frozen and leaves behind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Conflict
from tests.train.small_runs import SERVABLE
from tests.train.small_trainings import build_small, make_tiny_base, quiet, train_small
from train.methods.paired.pairs import read_pairs
from train.methods.rewarded.reward_model import RewardModel, check_reward_folder
from train.methods.saving import ADAPTER_FILES
from train.model.loading import load_tokenizer

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]

EVERY = (*SERVABLE, "reward")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base", tokenizer)


@pytest.mark.parametrize("method", EVERY)
def test_the_same_seed_gives_the_same_bytes_and_every_step_is_logged(
    tmp_path: Path, base: Path, method: str
) -> None:
    training = {"steps": 2, "optimiser": "adamw_8bit", "accumulation": 2}
    first, again = (train_small(tmp_path / name, base, method, training=training) for name in "ab")
    assert first.digest == again.digest
    files = {path.name for path in first.out.iterdir()}
    assert files == {*ADAPTER_FILES, *(() if method in SERVABLE else ("reward.json",))}
    assert len(first.logs) == 2
    assert all(math.isfinite(log["loss"]) and "grad_norm" in log for log in first.logs)
    assert first.logs[1]["num_tokens"] > first.logs[0]["num_tokens"] > 0
    trained = [one.dtype for one in first.trainer.model.parameters() if one.requires_grad]
    assert {str(kind) for kind in trained} == {"torch.float32"}


def test_another_seed_gives_other_bytes(tmp_path: Path, base: Path) -> None:
    first, other = (
        train_small(tmp_path / str(n), base, "dpo", training={"steps": 1}, seed=n) for n in (1, 2)
    )
    assert first.digest != other.digest


@pytest.mark.parametrize("method", ["dpo", "kto", "rloo", "grpo"])
def test_going_on_from_an_adapter_leaves_one_adapter_and_the_start_as_reference(
    tmp_path: Path, base: Path, method: str
) -> None:
    from safetensors.torch import load_file

    start = train_small(tmp_path / "start", base, "supervised", training={"steps": 4}).out
    document = {"beta": 0.1}
    training = {"steps": 3, "learning_rate": 1e-2}
    found = train_small(tmp_path / "on", base, method, start, method=document, training=training)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (start, found.out))
    assert set(after) == set(before)
    assert {path.name for path in found.out.iterdir()} == set(ADAPTER_FILES)
    kept = {
        name.replace(".ref.", "."): value
        for name, value in found.trainer.model.named_parameters()
        if ".ref." in name
    }
    assert set(kept) == set(before)
    assert all(bool((kept[name] == before[name]).all()) for name in before)
    if method in {"dpo", "kto"}:
        assert any(not bool((after[name] == before[name]).all()) for name in before)
        assert found.logs[0]["rewards/margins"] == 0.0


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo", "reward"])
def test_the_margin_between_the_better_and_the_worse_answer_grows(
    tmp_path: Path, base: Path, method: str
) -> None:
    training = {"steps": 10, "learning_rate": 1e-2}
    found = train_small(tmp_path, base, method, training=training, data={"eval": f"{method}.jsonl"})
    # A batch of ratings may hold one kind only, and then it has no margin.
    margins = [log["rewards/margins"] for log in found.logs if "rewards/margins" in log]
    assert margins[-1] > margins[0] + 0.01
    with quiet():
        measured = found.trainer.evaluate()
    assert measured["eval_rewards/margins"] > margins[0] + 0.01
    assert measured["eval_loss"] < found.losses[0]
    if method == "kto":
        assert measured["eval_rewards/chosen"] > 0 > measured["eval_rewards/rejected"]


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_step_makes_the_rewarded_answers_likelier_than_the_others(
    tmp_path: Path, base: Path, method: str
) -> None:
    # An answer of six random tokens holds a b about every other time.
    document = {"reward": {"graders": [{"type": "regex", "pattern": "b"}]}, "answers": 8, "beta": 0.0}
    training = {"steps": 1, "learning_rate": 1e-2, "batch_size": 16, "schedule": "constant"}
    found = train_small(
        tmp_path, base, method, method=document, training=training, data={"eval": f"{method}.jsonl"}
    )
    (batch,) = found.trainer._buffered_inputs
    weights = batch["advantages"]
    assert weights.abs().sum() > 1
    after = answer_scores(found.trainer, batch)
    with found.trainer.model.disable_adapter():
        before = answer_scores(found.trainer, batch)
    assert float((weights * (after - before)).sum()) > 0.001
    with quiet():
        measured = found.trainer.evaluate()
    assert measured["eval_loss"] == pytest.approx(-measured["eval_reward"], abs=1e-5)
    assert 0 < measured["eval_reward"] < 1


def answer_scores(trainer: Any, batch: Any) -> Any:
    """Return the summed log-probability of each answer under the trainer's model as it is."""
    import torch

    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    length = batch["completion_ids"].size(1)
    with torch.no_grad(), quiet():
        scores = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length)[0]
    return (scores * batch["completion_mask"]).sum(dim=1)


def test_a_reward_model_ranks_pairs_that_it_has_not_seen_and_rewards_answers(
    tmp_path: Path, base: Path
) -> None:
    tokenizer = load_tokenizer(base)
    training = {"steps": 12, "learning_rate": 1e-2}
    made = train_small(tmp_path / "model", base, "reward", training=training)
    written = {path.name for path in made.out.iterdir()}
    assert written == {*ADAPTER_FILES, "reward.json"}
    assert str(base) not in (made.out / "adapter_config.json").read_text()
    unseen = tmp_path / "unseen.jsonl"
    row = {"prompt": "Another one?", "chosen": "emerald green", "rejected": "crimson red"}
    unseen.write_text(json.dumps(row))
    (pair,) = read_pairs(unseen, tokenizer, made.config).items
    good, bad = [*pair.prompt_ids, *pair.chosen_ids], [*pair.prompt_ids, *pair.rejected_ids]
    with quiet():
        model = RewardModel(made.out, base, tokenizer, dtype="float32")
    together = model.scores([good, bad, good[:-1]])
    assert together[0] > together[1] + 0.1
    # Padding changes nothing, and the end-of-turn token, which is SmolLM2's padding, is read.
    assert together == pytest.approx([model.scores([row])[0] for row in (good, bad, good[:-1])], abs=1e-4)
    assert abs(together[0] - together[2]) > 1e-3
    document = {"reward": {"model": str(made.out)}}
    found = train_small(tmp_path / "rl", base, "rloo", method=document, training={"steps": 1})
    assert math.isfinite(found.logs[0]["rewards/reward_model/mean"])


def test_a_reward_model_of_another_base_is_refused(tmp_path: Path, base: Path, tokenizer: Any) -> None:
    made = train_small(tmp_path / "model", base, "reward", training={"steps": 1}).out
    check_reward_folder(made, base)
    config = base / "config.json"
    written = config.read_text()
    try:
        config.write_text(json.dumps({**json.loads(written), "rope_theta": 99.0}))
        with pytest.raises(Conflict, match="was trained on another base"):
            check_reward_folder(made, base)
    finally:
        config.write_text(written)


def test_the_reference_has_no_dropout_while_the_policy_has(tmp_path: Path, base: Path) -> None:
    start = train_small(tmp_path / "start", base, "supervised", training={"steps": 1}).out
    _, trainer, _ = build_small(tmp_path / "on", base, "dpo", start, lora={"dropout": 0.5})
    modules = [one for one in trainer.model.modules() if hasattr(one, "lora_dropout")]
    kinds = {name: {type(one.lora_dropout[name]).__name__ for one in modules} for name in ("default", "ref")}
    assert kinds == {"default": {"Dropout"}, "ref": {"Identity"}}
