"""Each kind of adapter is trained and becomes a plain LoRA that the real store takes.

On a real Llama of two layers with random weights, so that a training takes a second.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import InvalidAdapter, NotFound, Quarantined, UsageError
from registry.records import Version
from registry.store import Registry
from tests.train.tiny import make_tiny_base, tiny_config, train, write_rows
from train.config import TrainConfig
from train.model.loading import load_base, make_model, precision_of
from train.model.starting import find_start

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Registry:
    folder = tmp_path_factory.mktemp("modelling")
    write_rows(folder)
    return Registry.init(folder / "root", make_tiny_base(folder / "base", tokenizer), name="tiny-base")


@pytest.fixture(scope="module")
def first(registry: Registry) -> tuple[Version, Any]:
    """A version to go on from, with its lineage."""
    return trained(registry, name="first")


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Registry:
    """A root whose base can be quantised: bitsandbytes' kernels for the CPU want 64 features at least."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("quantised")
    write_rows(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return Registry.init(folder / "root", folder / "base", name="wider")


def config(registry: Registry, **changes: Any) -> TrainConfig:
    steps = {"steps": 4, **changes.pop("training", {})}
    return tiny_config(registry.root.parent, training=steps, checkpoints={"every": None}, **changes)


def trained(registry: Registry, **changes: Any) -> tuple[Version, Any]:
    """Train and return the version with its lineage."""
    found = train(registry, config(registry, **changes)).published
    assert found is not None
    entries = registry.attestations(found.version.adapter, found.version.number, "lineage")
    return found.version, entries[-1].body


def adapter_config(version: Version) -> Any:
    return json.loads((version.path / "adapter_config.json").read_text())


def tensors(version: Version) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(version.path / "adapter_model.safetensors")
    return found


def test_ranks_and_scales_by_module_reach_the_adapter_and_its_layers_alone(registry: Registry) -> None:
    version, _ = trained(
        registry,
        name="shaped",
        lora={
            "rank": 4,
            "rslora": True,
            "layers": [1],
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"mlp.up_proj": 3},
        },
    )
    told = adapter_config(version)
    assert (told["use_rslora"], told["layers_to_transform"]) == (True, [1])
    found = tensors(version)
    assert all(".layers.1." in name for name in found)
    ranks = {name.split(".")[-3]: len(found[name]) for name in found if "lora_A" in name}
    assert ranks.pop("q_proj") == 2
    assert set(ranks.values()) == {4}
    assert {str(tensor.dtype) for tensor in found.values()} == {"torch.float32"}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_base_has_the_precision_of_the_settings_and_the_adapter_fp32(
    registry: Registry, precision: str
) -> None:
    from peft import get_peft_model

    base, shape = make_model(config(registry, training={"precision": precision}), registry.base.path)
    adapted = get_peft_model(base, shape)
    kinds = {parameter.requires_grad: str(parameter.dtype) for parameter in adapted.parameters()}
    wanted = {"bf16": "torch.bfloat16", "fp32": "torch.float32"}[precision]
    assert kinds == {True: "torch.float32", False: wanted}


@pytest.mark.parametrize("kind", ["dora", "pissa", "full"])
def test_what_is_no_plain_lora_is_converted_and_the_loss_told_before_and_after(
    registry: Registry, kind: str
) -> None:
    lora = {"kind": kind, "rank": 4, "convert_rank": 32}
    if kind == "full":
        lora["dropout"] = 0.0
    version, body = trained(registry, name=kind, lora=lora)
    told = adapter_config(version)
    assert (told["r"], told["use_dora"], told["init_lora_weights"]) == (32, False, True)
    outcome = body["outcome"]
    assert outcome["conversion"]["from"] == kind
    assert outcome["conversion"]["residual"] < 0.02
    assert len(outcome["conversion"]["modules"]) == 14
    assert outcome["measured_on"] == "held-out"
    assert outcome["served_loss"] == pytest.approx(outcome["trained_loss"], rel=1e-2)
    assert outcome["trained_loss"] == pytest.approx(body["losses"]["eval"], rel=1e-3)


def test_a_conversion_that_loses_more_than_is_accepted_leaves_nothing(registry: Registry) -> None:
    lora = {"kind": "full", "rank": 1, "accept_residual": 0.01, "dropout": 0.0}
    with pytest.raises(InvalidAdapter, match="leaves out 0"):
        trained(registry, name="refused", lora=lora)
    assert "refused" not in registry.adapters()


def test_a_conversion_that_loses_much_is_a_warning_of_the_run(registry: Registry) -> None:
    lora = {"kind": "full", "rank": 1, "dropout": 0.0}
    found = train(registry, config(registry, name="warned", lora=lora))
    assert any("leaves out" in warning for warning in found.result.warnings)


def test_full_fine_tuning_trains_the_target_modules_and_nothing_else(registry: Registry) -> None:
    lora = {"kind": "full", "target_modules": ["q_proj", "v_proj"], "layers": [0], "dropout": 0.0}
    settings = config(registry, lora=lora)
    model, shape = make_model(settings, registry.base.path)
    assert shape is None
    assert precision_of(settings) == "fp32"
    free = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert free == {f"model.layers.0.self_attn.{name}.weight" for name in ("q_proj", "v_proj")}


def test_a_base_in_four_bits_is_told_in_the_lineage_with_the_loss_on_the_real_base(wider: Registry) -> None:
    version, body = trained(wider, name="quantised", quantization={"type": "nf4"})
    outcome = body["outcome"]
    assert outcome["base_precision"] == "nf4 (double), bf16 products"
    assert outcome["served_loss"] > 0
    assert outcome["measured_rows"] == 6
    assert {str(tensor.dtype) for tensor in tensors(version).values()} == {"torch.float32"}


def test_a_plain_lora_is_what_was_trained_so_nothing_is_compared(registry: Registry) -> None:
    _, body = trained(registry, name="plain")
    assert body["outcome"] == {"base_precision": "bf16"}


def test_a_run_goes_on_from_a_version_and_gives_one_adapter(
    registry: Registry, first: tuple[Version, Any]
) -> None:
    start, before = first
    version, body = trained(registry, **{"name": "second", "from": "first@1", "lora": {"rank": 4}})
    assert body["parent"] == {"version": "first@1", "digest": start.digest}
    assert body["losses"]["steps"][0] < before["losses"]["steps"][0] - 0.1
    assert adapter_config(version) == adapter_config(start)
    assert set(tensors(version)) == set(tensors(start))
    assert version.digest != start.digest


def test_a_version_in_four_bits_goes_on_from_the_weights_as_they_are(wider: Registry) -> None:
    import torch
    from peft import get_peft_model_state_dict

    settings = {"training": {"steps": 1, "warmup": 0}, "quantization": {"type": "nf4"}}
    version, _ = trained(wider, name="start", **settings)
    model, _ = make_model(config(wider, **settings), wider.base.path, version.path)
    own = get_peft_model_state_dict(model)
    assert all(torch.equal(own[name], tensor) for name, tensor in tensors(version).items())


@pytest.mark.parametrize(
    ("lora", "fact"),
    [
        ({"rank": 8}, "lora.rank is 8; first@1, on which it goes on, has 4"),
        ({"rank": 4, "target_modules": ["q_proj"]}, "lora.target_modules is q_proj; first@1"),
        ({"rank": 4, "kind": "dora"}, "kind dora cannot go on from a version"),
    ],
)
def test_a_version_cannot_change_its_shape(
    registry: Registry, first: tuple[Version, Any], lora: dict[str, Any], fact: str
) -> None:
    assert first[0].name == "first@1"
    settings = config(registry, **{"name": "second", "from": "first@1", "lora": lora})
    with pytest.raises(UsageError, match=fact):
        find_start(settings, registry)


def test_a_version_that_is_gone_or_quarantined_is_refused(
    registry: Registry, first: tuple[Version, Any], tmp_path: Path
) -> None:
    registry.export("first", first[0].number, tmp_path / "copy")
    registry.publish("banned", tmp_path / "copy", who="tester")
    registry.quarantine("banned", 1, "killed two engines", who="tester")
    with pytest.raises(Quarantined, match="killed two engines"):
        find_start(config(registry, **{"from": "banned@1"}), registry)
    with pytest.raises(NotFound, match="banned@7"):
        find_start(config(registry, **{"from": "banned@7"}), registry)


def test_the_base_is_loaded_in_half_precision_where_asked(registry: Registry) -> None:
    assert str(load_base(registry.base.path, "fp16").dtype) == "torch.float16"
