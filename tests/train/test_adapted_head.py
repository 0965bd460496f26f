"""An adapter on the vocabulary's head or on the embedding is trained as PEFT computes it, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.records import BaseModelInfo
from tests.fakes.base import base_record
from tests.train.small_runs import SERVABLE
from tests.train.small_trainings import build_small, make_tiny_base, quiet, train_small
from train.config import TrainConfig, parse_config
from train.loop.refusals import named_refusals
from train.model.head import scored_where_learnt
from train.model.shape import check_shape

FRESH = {"steps": 2, "warmup": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("head") / "base", tokenizer)


def changed(out: Path) -> dict[str, float]:
    """Return the largest value of each B, which is zero before the first step."""
    from safetensors.torch import load_file

    tensors = load_file(out / "adapter_model.safetensors")
    return {name: float(one.abs().max()) for name, one in tensors.items() if "_B" in name}


@pytest.mark.training
@pytest.mark.parametrize("method", SERVABLE)
def test_every_method_trains_an_adapter_on_the_head_and_the_embedding(
    tmp_path: Path, base: Path, method: str
) -> None:
    lora = {"target_modules": ["lm_head", "embed_tokens"]}
    more: dict[str, Any] = {"training": FRESH}
    if method in {"rloo", "grpo"}:
        more = {
            "training": {**FRESH, "batch_size": 8},
            "method": {"reward": {"graders": [{"type": "regex", "pattern": "e"}]}},
        }
    found = train_small(tmp_path, base, method, lora=lora, **more)
    moved = changed(found.out)
    assert len(moved) == 2  # the base's own embedding is not copied beside them
    if method not in {"rloo", "grpo"}:  # random weights may give every answer the same reward
        assert all(value > 0 for value in moved.values())


@pytest.mark.training
@pytest.mark.parametrize("compact", [True, False])
def test_the_loss_and_gradients_are_those_of_pefts_own_forward(
    tmp_path: Path, base: Path, compact: bool
) -> None:
    import contextlib

    import torch

    lora = {"target_modules": ["q_proj", "lm_head"]}
    _, trainer, _ = build_small(tmp_path, base, "supervised", lora=lora)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    trainer.model.eval()
    names = [name for name, one in trainer.model.named_parameters() if one.requires_grad]

    def gradients() -> list[Any]:
        found = [one.grad.clone() for one in trainer.model.parameters() if one.grad is not None]
        trainer.model.zero_grad()
        return found

    with quiet(), scored_where_learnt() if compact else contextlib.nullcontext():
        ours = trainer.compute_loss(trainer.model, dict(batch))
    ours.backward()
    our_gradients = gradients()
    logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:].reshape(-1)
    theirs = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert len(our_gradients) == len(names)
    for one, other in zip(our_gradients, gradients(), strict=True):
        assert torch.allclose(one, other, rtol=1e-2, atol=1e-5)


def config(method: Any = "supervised", **lora: Any) -> TrainConfig:
    return parse_config(
        {"name": "a", "data": {"train": "x"}, "method": method, "lora": lora}, "config", Path()
    )


@pytest.fixture
def record(tmp_path: Path) -> BaseModelInfo:
    import dataclasses

    found = base_record(tmp_path)
    return dataclasses.replace(found, modules={**found.modules, "lm_head": (256, 64)})


@pytest.mark.parametrize("kind", ["dora", "pissa", "full"])
@pytest.mark.parametrize("targets", [["lm_head"], ["q_proj", "embed_tokens"], ".*"])
def test_what_is_no_plain_lora_keeps_to_linear_modules(
    record: BaseModelInfo, kind: str, targets: Any
) -> None:
    with pytest.raises(UsageError, match=f"lora.kind {kind} takes linear modules only"):
        check_shape(config(kind=kind, target_modules=targets), record, 32)


def test_a_reward_model_has_no_head_to_adapt(record: BaseModelInfo) -> None:
    with pytest.raises(UsageError, match="in whose place a reward model has a head of its own"):
        check_shape(config("reward", target_modules=["lm_head", "q_proj"]), record, 32)


def test_a_base_on_which_vllm_adapts_no_head_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names lm_head, which the base does not have or vLLM cannot adapt"):
        check_shape(config(target_modules=["lm_head"]), base_record(tmp_path), 32)


@pytest.mark.training
def test_what_a_library_refuses_is_an_error_with_its_own_words(base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from train.model.loading import load_base

    wanted = LoraConfig(target_modules=["input_layernorm"], task_type="CAUSAL_LM")
    refused = pytest.raises(UsageError, match="small: cannot be trained so: peft refuses it")
    with refused, named_refusals("small"), quiet():
        get_peft_model(load_base(base), wanted)


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="ours"), named_refusals("small"):
        raise ValueError("ours")
