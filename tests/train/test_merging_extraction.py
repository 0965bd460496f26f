"""A plain LoRA out of DoRA, PiSSA and full fine-tuning, on a whole Llama in miniature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import InvalidAdapter, UsageError
from registry.store import Registry
from tests.fakes.llama import load_llama, logits, make_llama, train_steps
from train.merging.extraction import extract_lora

# PEFT says that merging may untie a tied embedding, and that a bias is put on a layer without one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("base") / "tiny")


def trained(base: Path, dtype: str = "float32", **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    targets = ["q_proj", "down_proj"]
    given = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM"} | options
    return train_steps(get_peft_model(load_llama(base, dtype), LoraConfig(**given)))


def fine_tuned(base: Path, names: frozenset[str] | None) -> Any:
    """Train the weights of these names (None: all) of the base itself."""
    model = load_llama(base)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(names is None or name in names)
    return train_steps(model, rate=3e-3)


def linear_weights(base: Path) -> frozenset[str]:
    """Return the names of the weights that a LoRA can hold, bar embeddings and head."""
    return frozenset(name for name, _ in load_llama(base).named_parameters() if "_proj" in name)


def converted(base: Path, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(load_llama(base), folder)


def distance(one: Any, other: Any) -> float:
    return float((logits(one) - logits(other)).abs().max())


def register(base: Path, folder: Path, root: Path) -> tuple[str, ...]:
    """Register a folder in a new root of this base and return the warnings."""
    return Registry.init(root, base, name="tiny").publish("support", folder, who="tester").warnings


@pytest.mark.parametrize(
    ("options", "rank"),
    [
        ({}, 4),
        ({"use_rslora": True}, 4),
        ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 16}}, 4),
        ({"layers_to_transform": [1]}, 4),
        ({"target_modules": ["q_proj", "lm_head"]}, 4),
        ({"init_lora_weights": "pissa"}, 8),
        ({"init_lora_weights": "pissa_niter_4"}, 8),
        ({"init_lora_weights": "olora"}, 8),
        ({"init_lora_weights": "mica"}, 4),
        ({"use_dora": True}, 32),
        ({"use_dora": True, "init_lora_weights": "pissa"}, 32),
    ],
    ids=lambda value: ",".join(f"{key}={value[key]}" for key in value) if isinstance(value, dict) else None,
)
def test_the_lora_answers_as_the_model_that_was_trained(
    base: Path, tmp_path: Path, options: dict[str, Any], rank: int
) -> None:
    model = trained(base, **options)
    found = extract_lora(base, model, tmp_path / "out", rank=rank, max_rank=32, accept_residual=0.3)
    apart = distance(model, load_llama(base))
    assert apart > 0.05
    if not options.get("use_dora"):  # DoRA's difference has the full rank
        assert found.residual < 1e-4
        assert distance(converted(base, tmp_path / "out"), model) < 1e-3 * apart
    assert distance(converted(base, tmp_path / "out"), model) < 0.2 * apart
    assert register(base, tmp_path / "out", tmp_path / "root") == ()


def test_the_model_is_left_as_it_was(base: Path, tmp_path: Path) -> None:
    model = trained(base, use_dora=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    extract_lora(base, model, tmp_path / "out", rank=8, max_rank=32, accept_residual=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_pissa_learnt_on_a_bf16_base_is_told_from_the_rounding_of_the_base(
    base: Path, tmp_path: Path
) -> None:
    model = trained(base, "bfloat16", init_lora_weights="pissa")
    found = extract_lora(base, model, tmp_path / "out", max_rank=32)
    assert found.rank <= 8
    assert found.residual < 0.05


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_what_was_learnt_on_a_quantised_base_is_the_difference_to_the_quantised_base(
    base: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    def quantised() -> Any:
        nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        return AutoModelForCausalLM.from_pretrained(base, quantization_config=nf4, dtype=torch.float32)

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], **options)
    model = train_steps(get_peft_model(quantised(), config))
    found = extract_lora(base, model, tmp_path / "out", rank=32, max_rank=32, accept_residual=0.2)
    assert (len(found.modules), found.unheld) == (4, ())
    plain = PeftModel.from_pretrained(quantised(), tmp_path / "out")
    assert distance(plain, model) < 0.2 * distance(quantised(), model)


def test_a_full_fine_tune_of_what_a_lora_holds_converts_with_its_residual(base: Path, tmp_path: Path) -> None:
    model = fine_tuned(base, linear_weights(base))
    small = extract_lora(base, model, tmp_path / "4", rank=4, max_rank=32, accept_residual=1)
    large = extract_lora(base, model, tmp_path / "32", rank=32, max_rank=32, accept_residual=1)
    assert large.unheld == ()
    assert len(large.modules) == 14
    assert 0 < large.residual < small.residual < 1
    near, far = (converted(base, tmp_path / rank) for rank in ("32", "4"))
    assert distance(near, model) < distance(far, model)
    assert register(base, tmp_path / "32", tmp_path / "root") == ()


def test_the_residual_is_the_distance_of_the_stored_lora_from_the_difference(
    base: Path, tmp_path: Path
) -> None:
    model = fine_tuned(base, linear_weights(base))
    found = extract_lora(base, model, tmp_path / "out", rank=8, max_rank=32, accept_residual=1)
    merged = converted(base, tmp_path / "out").merge_and_unload().state_dict()
    start, end = load_llama(base).state_dict(), model.state_dict()
    apart = sum(float((merged[name] - end[name]).double().square().sum()) for name in end)
    whole = sum(float((start[name] - end[name]).double().square().sum()) for name in end)
    assert found.residual == pytest.approx((apart / whole) ** 0.5, rel=1e-3)
    assert found.norm == pytest.approx(whole**0.5, rel=1e-3)


def test_a_tied_embedding_is_held_as_embedding_and_as_head(base: Path, tmp_path: Path) -> None:
    model = fine_tuned(base, frozenset({"model.embed_tokens.weight"}))
    found = extract_lora(base, model, tmp_path / "out", rank=32, max_rank=32, accept_residual=1)
    assert [one.module for one in found.modules] == ["lm_head", "model.embed_tokens"]
    assert distance(converted(base, tmp_path / "out"), model) < 0.5 * distance(load_llama(base), model)
    assert register(base, tmp_path / "out", tmp_path / "root") == ()


def test_a_changed_norm_is_named_and_counts(base: Path, tmp_path: Path) -> None:
    names = frozenset({"model.norm.weight", "model.layers.0.self_attn.q_proj.weight"})
    model = fine_tuned(base, names)
    found = extract_lora(base, model, tmp_path / "out", rank=32, max_rank=32, accept_residual=1)
    assert [one.name for one in found.unheld] == ["model.norm.weight"]
    assert found.residual >= found.unheld_share > 0
    with pytest.raises(InvalidAdapter, match=r"no LoRA holds: model\.norm\.weight") as caught:
        extract_lora(base, model, tmp_path / "strict", rank=32, max_rank=32, accept_residual=0.01)
    assert "--as model" in caught.value.remedy
    assert not (tmp_path / "strict").exists()


def test_weights_that_are_all_held_nowhere_are_refused(base: Path, tmp_path: Path) -> None:
    model = fine_tuned(base, frozenset({"model.norm.weight"}))
    with pytest.raises(InvalidAdapter, match=r"leaves out 1\.000"):
        extract_lora(base, model, tmp_path / "out", rank=8, max_rank=32, accept_residual=1)


def test_the_least_rank_within_the_accepted_residual_is_taken(base: Path, tmp_path: Path) -> None:
    model = fine_tuned(base, linear_weights(base))
    found = extract_lora(base, model, tmp_path / "auto", max_rank=32, accept_residual=0.5)
    below = extract_lora(base, model, tmp_path / "below", rank=found.rank - 1, max_rank=32, accept_residual=1)
    assert found.residual <= 0.5 < below.residual


def test_tensors_by_name_do_as_a_model_does(base: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_llama(base).state_dict()[name]
    changed = {name: weight + torch.ones(128, 1) @ torch.ones(1, 64)}
    found = extract_lora(base, changed, tmp_path / "out", max_rank=32)
    assert (found.rank, [one.module for one in found.modules]) == (1, [name.removesuffix(".weight")])
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == [name.removesuffix(".weight")]
    assert config["base_model_name_or_path"].startswith("sha256:")


def test_a_base_in_several_files_is_read_as_one(base: Path, tmp_path: Path) -> None:
    load_llama(base, "bfloat16").save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "shards" / name).write_bytes((base / name).read_bytes())
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    model = trained(base)
    whole = extract_lora(base, model, tmp_path / "whole", rank=4, max_rank=32)
    parts = extract_lora(tmp_path / "shards", model, tmp_path / "parts", rank=4, max_rank=32)
    assert whole.modules == parts.modules


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"modules_to_save": ["norm"]}, "model.norm.weight"),
        ({"lora_bias": True}, "model.layers.0.self_attn.q_proj.bias"),
    ],
)
def test_what_peft_saves_beside_a_lora_counts_as_left_out(
    base: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    model = trained(base, **options)
    found = extract_lora(base, model, tmp_path / "out", rank=4, max_rank=32, accept_residual=1)
    assert named in [one.name for one in found.unheld]
    assert found.residual == pytest.approx(found.unheld_share, rel=1e-3)


def test_trained_tokens_become_a_lora_of_the_embedding(base: Path, tmp_path: Path) -> None:
    model = trained(base, trainable_token_indices={"embed_tokens": [5, 6]})
    found = extract_lora(base, model, tmp_path / "out", rank=4, max_rank=32)
    assert "model.embed_tokens" in [one.module for one in found.modules]
    assert distance(converted(base, tmp_path / "out"), model) < 1e-3


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"model.layers.9.mlp.up_proj.weight": (128, 64)}, "is not a weight of the base"),
        ({"model.embed_tokens.weight": (258, 64)}, r"\[258, 64\]; the base's is \[256, 64\]"),
        ({"model.layers.0.mlp.up_proj.weight": (128, 64)}, "NaN"),
    ],
)
def test_weights_that_are_no_fine_tune_of_the_base_are_refused(
    base: Path, tmp_path: Path, changed: dict[str, tuple[int, int]], fact: str
) -> None:
    tensors = {name: torch.full(shape, torch.nan) for name, shape in changed.items()}
    with pytest.raises(InvalidAdapter, match=fact):
        extract_lora(base, tensors, tmp_path / "out", rank=4, max_rank=32)


def test_the_base_itself_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match="nothing was learnt"):
        extract_lora(base, load_llama(base), tmp_path / "out", max_rank=32)


def test_a_rank_over_the_limit_is_refused_before_any_work(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="64 is not within 1 to 32"):
        extract_lora(base, {}, tmp_path / "out", rank=64, max_rank=32)
