"""The losses are TRL's where TRL is right, and the same however a step is cut into batches."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.train.small_trainings import build_small, make_tiny_base, quiet, train_small
from train.methods.paired.pair_losses import PairScores, dpo_loss, orpo_loss
from train.methods.rewarded.prompts import OnlinePrompt
from train.settings.methods import Dpo, Orpo

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]

RELATIVE = 1e-4
FP32 = {"precision": "fp32"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base", tokenizer)


def first_batch(trainer: Any) -> Any:
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def moved(trainer: Any) -> Any:
    """Give the adapter weights of its own, so that policy and reference differ."""
    import torch

    torch.manual_seed(1)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    return trainer


@pytest.mark.parametrize(
    "settings",
    [{"loss": "sigmoid"}, {"loss": "hinge"}, {"loss": "ipo"}, {"loss": "robust", "label_smoothing": 0.2}],
)
def test_the_dpo_losses_are_trls(tmp_path: Path, base: Path, settings: dict[str, Any]) -> None:
    from trl import DPOTrainer

    method = {"beta": 0.3, **settings}
    _, trainer, _ = build_small(tmp_path, base, "dpo", method=method, training=FP32)
    batch = first_batch(moved(trainer))
    with quiet():
        ours = trainer._compute_loss(trainer.model, batch, return_outputs=False)
        trainer.beta, trainer.loss_types = method["beta"], [settings["loss"]]
        trainer.label_smoothing = settings.get("label_smoothing", 0.0)
        theirs = DPOTrainer._compute_loss(trainer, trainer.model, batch, return_outputs=False)
    assert ours.item() == pytest.approx(theirs.item(), rel=RELATIVE)
    if settings["loss"] == "sigmoid":
        assert abs(ours.item() - math.log(2)) > 0.01


def test_the_supervised_weight_adds_the_chosen_answers_loss_per_token() -> None:
    import torch

    policy = scores([-4.0, -9.0], [-6.0, -6.0], [2, 3], [3, 3])
    start = scores([-5.0, -5.0], [-5.0, -5.0], [2, 3], [3, 3])
    plain = dpo_loss(policy, start, Dpo(type="dpo")).loss
    weighted = dpo_loss(policy, start, Dpo(type="dpo", supervised_weight=0.5)).loss
    assert torch.allclose(weighted - plain, torch.tensor([1.0, 1.5]))


def test_the_orpo_loss_is_trls_for_answers_of_equal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    with quiet():
        from trl.experimental.orpo import ORPOTrainer

    policy = scores([-0.4, -9.0, -2.0], [-6.0, -6.0, -2.0], [3, 3, 3], [3, 3, 3])
    found = orpo_loss(policy, Orpo(type="orpo", beta=0.2))
    accelerator = SimpleNamespace(device=torch.device("cpu"))
    theirs = ORPOTrainer.odds_ratio_loss(
        SimpleNamespace(beta=0.2, accelerator=accelerator), policy.chosen / 3, policy.rejected / 3
    )
    # TRL's step loss: the mean negative log-likelihood of the batch's tokens, less the mean of its ratio.
    assert found.loss.mean().item() == pytest.approx(
        (-(policy.chosen / 3).mean() - theirs[0].mean()).item(), rel=1e-6
    )
    assert torch.allclose(found.chosen_reward, theirs[1])


def test_the_orpo_loss_stays_finite_where_an_answer_is_certain() -> None:
    import torch

    chosen = torch.tensor([-1e-6], requires_grad=True)
    policy = PairScores(chosen, torch.tensor([-50.0]), torch.tensor([1]), torch.tensor([1]))
    loss = orpo_loss(policy, Orpo(type="orpo")).loss.sum()
    loss.backward()
    assert math.isfinite(loss.item())
    assert chosen.grad is not None
    assert math.isfinite(chosen.grad.item())


def scores(chosen: list[float], rejected: list[float], long: list[int], short: list[int]) -> PairScores:
    import torch

    return PairScores(torch.tensor(chosen), torch.tensor(rejected), torch.tensor(long), torch.tensor(short))


@pytest.mark.parametrize("method", ["supervised", "dpo", "orpo", "reward"])
def test_one_batch_of_four_learns_as_four_batches_of_one(tmp_path: Path, base: Path, method: str) -> None:
    document: dict[str, Any] = {"type": method}
    if method == "dpo":
        document["supervised_weight"] = 0.5
    steps = {**FP32, "steps": 3, "grouping": "random"}
    rows = tmp_path / "uneven.jsonl"
    rows.write_text("".join(uneven(method, number) for number in range(12)))
    whole, cut = (
        train_small(
            tmp_path / name,
            base,
            method,
            method=document,
            data={"train": str(rows)},
            training={**steps, "batch_size": size, "accumulation": 4 // size},
        )
        for name, size in (("whole", 4), ("cut", 1))
    )
    assert len(whole.losses) == 3
    assert cut.losses == pytest.approx(whole.losses, rel=RELATIVE)
    assert min(whole.losses) != pytest.approx(max(whole.losses), rel=RELATIVE)


def uneven(method: str, number: int) -> str:
    import json

    answer, other = "green " * (1 + number % 4), "red " * (1 + number % 3)
    if method == "supervised":
        return json.dumps({"prompt": f"{number}?", "completion": answer}) + "\n"
    return json.dumps({"prompt": f"{number}?", "chosen": answer, "rejected": other}) + "\n"


def test_a_kto_batch_measures_its_distance_with_its_own_answers(tmp_path: Path, base: Path) -> None:
    _, trainer, items = build_small(tmp_path, base, "kto", training=FP32)
    batch = first_batch(trainer)
    answers = [
        row[mask.bool()].tolist()
        for row, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    others = [
        row[mask.bool()].tolist()
        for row, mask in zip(batch["KL_input_ids"], batch["KL_completion_mask"], strict=True)
    ]
    assert others == [answers[-1], *answers[:-1]]
    prompts = {
        tuple(row[: mask.tolist().index(1)].tolist())
        for row, mask in zip(batch["KL_input_ids"], batch["KL_completion_mask"], strict=True)
    }
    assert prompts <= {item.prompt_ids for item in items}


def test_answers_in_reinforcement_are_weighed_against_their_group(tmp_path: Path, base: Path) -> None:
    # An answer of six random tokens holds a b about every other time.
    method = {"reward": {"graders": [{"type": "regex", "pattern": "b"}]}, "answers": 8, "beta": 0.0}
    training = {"batch_size": 16, "steps": 1}
    for kind in ("rloo", "grpo"):
        found = train_small(tmp_path / kind, base, kind, method=method, training=training)
        rewards = list(found.trainer._logs["rewards"]["regex"])
        advantages = list(found.trainer._logs["advantages"])
        assert len(rewards) == 16
        expected = [weighed(kind, rewards[at : at + 8], index) for at in (0, 8) for index in range(8)]
        assert advantages == pytest.approx(expected, abs=1e-4)
        assert any(abs(advantage) > 0.1 for advantage in advantages)


def weighed(kind: str, group: list[float], index: int) -> float:
    others = [reward for at, reward in enumerate(group) if at != index]
    if kind == "rloo":
        return group[index] - sum(others) / len(others)
    mean = sum(group) / len(group)
    spread = math.sqrt(sum((reward - mean) ** 2 for reward in group) / (len(group) - 1))
    return (group[index] - mean) / (spread + 1e-4)


def test_reinforcement_asks_with_the_prompts_as_they_were_rendered(tmp_path: Path, base: Path) -> None:
    found = train_small(tmp_path, base, "rloo", training={"batch_size": 8, "steps": 1})
    (batch,) = found.trainer._buffered_inputs
    asked = {
        tuple(row[mask.bool()].tolist())
        for row, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    }
    assert len(asked) == 2
    assert asked <= {item.prompt_ids for item in found.items if isinstance(item, OnlinePrompt)}
