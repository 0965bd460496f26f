"""Mixture-of-experts bases: attention is trained, experts and routers stay as they are, and that is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.store import Registry
from tests.train.tiny import tiny_config, train, write_rows
from train.model.experts import experts_of, is_router, without_experts
from train.model.loading import make_model
from train.model.shape import check_shape
from train.model.targets import targeted_modules
from train.runs.run import prepare

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128,
}  # fmt: skip
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
FEED_FORWARD = {"gate_proj", "up_proj", "down_proj"}


def make_moe(folder: Path, tokenizer: Any, kind: str) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config: Any
    if kind == "qwen2_moe":
        config = transformers.Qwen2MoeConfig(
            **sizes, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        )  # fmt: skip
    elif kind == "mixtral":
        config = transformers.MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2)
    else:
        config = transformers.OlmoeConfig(**sizes, num_experts=4, num_experts_per_tok=2)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["qwen2_moe", "mixtral", "olmoe"])
def test_all_linear_on_a_moe_base_is_attention_and_shared_experts(
    tmp_path: Path, tokenizer: Any, kind: str
) -> None:
    from peft import get_peft_model

    base = make_moe(tmp_path / "base", tokenizer, kind)
    registry = Registry.init(tmp_path / "root", base, name="moe")
    write_rows(tmp_path)
    config = tiny_config(tmp_path)
    check_shape(config, registry.base, 32)
    model, shape = make_model(config, base)
    adapted = get_peft_model(model, shape)
    wanted = ATTENTION | (FEED_FORWARD if kind == "qwen2_moe" else set())
    names = {name for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert {name.split(".lora_A")[0].rpartition(".")[2] for name in names} == wanted
    found = targeted_modules(config.lora, registry.base.modules)
    assert {f"base_model.model.{module}" for module in found} == {name.split(".lora_A")[0] for name in names}
    assert experts_of(base) == 4


@pytest.mark.parametrize(
    ("kind", "targets", "words"),
    [
        ("olmoe", ["gate_proj"], "gate_proj, which only the routed experts have"),
        ("olmoe", ["q_proj", "down_proj"], "down_proj, which only the routed experts have"),
        ("mixtral", ["experts"], "experts, which is the experts' own"),
        ("mixtral", ["gate_up_proj"], "gate_up_proj, which is the experts' own"),
        ("qwen2_moe", ["gate"], "gate, which is a router's"),
        ("qwen2_moe", ["shared_expert_gate"], "shared_expert_gate, which is a router's"),
    ],
    ids=str,
)
def test_a_lora_on_experts_or_routers_is_refused_with_the_reason(
    tmp_path: Path, tokenizer: Any, kind: str, targets: list[str], words: str
) -> None:
    base = make_moe(tmp_path / "base", tokenizer, kind)
    registry = Registry.init(tmp_path / "root", base, name="moe")
    write_rows(tmp_path)
    config = tiny_config(tmp_path, lora={"target_modules": targets})
    with pytest.raises(UsageError, match=words) as refused:
        check_shape(config, registry.base, 32)
    assert "GPU kernels only" in refused.value.fact


@pytest.mark.parametrize("targets", [r".*(q_proj|gate_proj)", ["q_proj", "gate_proj"]], ids=str)
def test_experts_that_are_named_among_others_are_said_to_stay_as_they_are(
    tmp_path: Path, tokenizer: Any, targets: str | list[str]
) -> None:
    base = make_moe(tmp_path / "base", tokenizer, "qwen2_moe")
    registry = Registry.init(tmp_path / "root", base, name="moe")
    write_rows(tmp_path)
    config = tiny_config(tmp_path, lora={"target_modules": targets})
    (told,) = prepare(config, registry).warnings
    assert told.startswith("lora.target_modules names 4 modules of routed experts or routers (such as model.")
    assert prepare(tiny_config(tmp_path), registry).warnings == ()


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r".*experts\.\d+\..*", "matches routed experts and routers alone"),
        (r"layers\.0\.(gate|up_proj)", "whole names are like model.layers.0"),
        ("q_proj|v_proj", r"write it as a list: \[q_proj, v_proj\]"),
    ],
)
def test_an_expression_that_names_nothing_to_train_is_answered_with_what_would(
    tmp_path: Path, tokenizer: Any, pattern: str, words: str
) -> None:
    base = make_moe(tmp_path / "base", tokenizer, "qwen2_moe")
    registry = Registry.init(tmp_path / "root", base, name="moe")
    write_rows(tmp_path)
    with pytest.raises(UsageError, match=words):
        check_shape(tiny_config(tmp_path, lora={"target_modules": pattern}), registry.base, 32)


def test_the_routers_loss_is_for_bases_that_have_one(tmp_path: Path, tokenizer: Any) -> None:
    write_rows(tmp_path)
    config = tiny_config(tmp_path, training={"router_aux_loss_coef": 0.5})
    base = make_moe(tmp_path / "base", tokenizer, "olmoe")
    registry = Registry.init(tmp_path / "root", base, name="moe")
    check_shape(config, registry.base, 32)
    model, _ = make_model(config, base)
    assert (model.config.output_router_logits, model.router_aux_loss_coef) == (True, 0.5)
    dense = json.loads((base / "config.json").read_text()) | {"num_experts": 1}
    (base / "config.json").write_text(json.dumps(dense))
    with pytest.raises(UsageError, match=r"router_aux_loss_coef is 0\.5, and the base is dense"):
        check_shape(config, registry.base, 32)


@pytest.mark.training
def test_a_moe_base_trains_and_its_routers_loss_is_part_of_the_loss(tmp_path: Path, tokenizer: Any) -> None:
    base = make_moe(tmp_path / "base", tokenizer, "qwen2_moe")
    registry = Registry.init(tmp_path / "root", base, name="moe")
    write_rows(tmp_path)
    losses = []
    for coefficient in (0.0, 1.0):
        training = {"steps": 2, "router_aux_loss_coef": coefficient}
        done = train(registry, tiny_config(tmp_path, training=training, data={"eval": None}))
        assert done.published is not None
        losses.append(done.result.first_loss)
    assert losses[1] > losses[0] + 0.5
    assert set(registry.version("tiny", 1).target_modules) == ATTENTION | FEED_FORWARD


def test_routers_are_known_by_their_place() -> None:
    modules = {
        "m.0.mlp.gate", "m.0.mlp.experts.0.up_proj", "m.0.block_sparse_moe.router.layer",
        "m.0.mlp.shared_expert_gate", "m.0.self_attn.gate", "m.0.mlp.gate_proj", "m.0.self_attn.q_proj",
    }  # fmt: skip
    assert without_experts(modules) == {"m.0.self_attn.gate", "m.0.mlp.gate_proj", "m.0.self_attn.q_proj"}
    assert is_router("m.1.mlp.gate", ["m.1.mlp.gate"])  # experts in one tensor are not modules
