"""An adapter fits its base by whole names, dimensions and ranks, or is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from registry.records import BaseModelInfo
from registry.validation.base import read_base
from tests.fakes.adapters import Tensors, make_adapter
from tests.fakes.base import TINY, make_base
from tests.registry.inspecting import LAYER, adding, check, refusal, tensor, without


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    return read_base(make_base(tmp_path_factory.mktemp("models") / "tiny"), "tiny")


def test_an_adapter_of_another_base_is_refused_by_its_dimensions(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a", shape=replace(TINY, hidden=128))
    error = refusal(folder, base)
    assert error.reason == "base_mismatch"
    assert "maps 128 features to 128; the base tiny's maps 64 to 64" in error.fact


def test_an_adapter_that_names_another_fingerprint_is_refused(tmp_path: Path, base: BaseModelInfo) -> None:
    other = "sha256:" + "e" * 64
    error = refusal(make_adapter(tmp_path / "a", config={"base_model_name_or_path": other}), base)
    assert (error.reason, "eeee" in error.fact) == ("base_mismatch", True)
    same = make_adapter(tmp_path / "b", config={"base_model_name_or_path": base.fingerprint})
    assert check(same, base).warnings == ()


def test_another_name_of_the_base_only_warns(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a", config={"base_model_name_or_path": "org/other-model"})
    assert "'org/other-model'" in check(folder, base).warnings[0]
    same = make_adapter(tmp_path / "b", config={"base_model_name_or_path": "org/tiny"})
    assert check(same, base).warnings == ()


@pytest.mark.parametrize(
    "more",
    [
        ["query_key_value", "c_attn", "W_pack", "dense"],
        ["model.layers.99.self_attn.q_proj"],
        ["lm_head"],
        ["embed_tokens", "c_attn"],
    ],
)
def test_targets_that_the_base_does_not_have_are_passed_over_with_a_warning(
    tmp_path: Path, base: BaseModelInfo, more: list[str]
) -> None:
    without_head = replace(base, modules={k: v for k, v in base.modules.items() if "embed" not in k})
    without_head.modules.pop("lm_head", None)
    folder = make_adapter(tmp_path / "a", config={"target_modules": ["q_proj", "v_proj", *more]})
    (warning,) = check(folder, without_head).warnings
    assert min(more) in warning
    assert "passed over, as PEFT and vLLM do" in warning


def test_what_a_config_says_of_layers_and_ranks_that_are_not_there_is_passed_over(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    config = {
        "layers_to_transform": [0, 1, 40],
        "rank_pattern": {"h.0.attn.c_attn": 4},
        "alpha_pattern": {"c_attn": 4},
        "exclude_modules": ["c_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj"],
    }
    found = check(make_adapter(tmp_path / "a", config=config), base)
    assert (found.warnings, found.rank) == ((), 8)


@pytest.mark.parametrize("targets", [["nothing"], ["proj"], ["c_attn", "query_key_value"]])
def test_targets_none_of_which_the_base_has_are_refused(
    tmp_path: Path, base: BaseModelInfo, targets: list[str]
) -> None:
    error = refusal(make_adapter(tmp_path / "a", config={"target_modules": targets}), base)
    assert (error.reason, targets[-1] in error.fact) == ("modules", True)
    assert "q_proj" in error.remedy


def test_a_target_without_a_tensor_warns(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a", config={"target_modules": ["q_proj", "v_proj", "k_proj"]})
    assert "k_proj, but the file holds no tensor" in check(folder, base).warnings[0]


def test_a_base_of_unknown_shapes_takes_any_dimensions_and_warns(tmp_path: Path, base: BaseModelInfo) -> None:
    packed = replace(base, modules={})
    found = check(make_adapter(tmp_path / "a", shape=replace(TINY, hidden=128)), packed)
    assert "dimensions were not checked" in found.warnings[0]
    assert refusal(make_adapter(tmp_path / "b", rank=64), packed).reason == "rank"
    lonely = make_adapter(tmp_path / "c", mutate=without("q_proj.lora_B.weight"))
    assert refusal(lonely, packed).reason == "modules"


def test_a_transposed_base_layer_fits_where_the_config_says_so(tmp_path: Path, base: BaseModelInfo) -> None:
    swapped = replace(base, modules={name: dims[::-1] for name, dims in base.modules.items()})
    assert refusal(make_adapter(tmp_path / "a"), swapped).reason == "base_mismatch"
    conv = make_adapter(tmp_path / "b", config={"fan_in_fan_out": True})
    assert check(conv, swapped).warnings == ()


EMBED = "base_model.model.model.embed_tokens"
EMBED_LORA = {f"{EMBED}.lora_embedding_A": tensor(8, 256), f"{EMBED}.lora_embedding_B": tensor(64, 8)}
HEAD_LORA = {
    "base_model.model.lm_head.lora_A.weight": tensor(8, 64),
    "base_model.model.lm_head.lora_B.weight": tensor(256, 8),
}


@pytest.mark.parametrize(("extra", "leaf"), [(EMBED_LORA, "embed_tokens"), (HEAD_LORA, "lm_head")])
def test_embeddings_are_taken_where_vllm_adapts_them(
    tmp_path: Path, base: BaseModelInfo, extra: Tensors, leaf: str
) -> None:
    targets = {"target_modules": ["q_proj", "v_proj", leaf]}
    folder = make_adapter(tmp_path / "a", config=targets, mutate=adding(**extra))
    assert leaf in check(folder, base).target_modules
    qwen = make_base(tmp_path / "qwen", config={"architectures": ["Qwen2ForCausalLM"]})
    error = refusal(folder, read_base(qwen, "tiny"))
    assert (error.reason, leaf in error.fact) == ("modules", True)
    unnamed = make_adapter(tmp_path / "b", mutate=adding(**extra))
    error = refusal(unnamed, read_base(qwen, "tiny"))
    assert (error.reason, "some architectures only" in error.remedy) == ("modules", True)


def test_an_embedding_lora_of_a_larger_vocabulary_is_refused(tmp_path: Path, base: BaseModelInfo) -> None:
    grown = {**EMBED_LORA, f"{EMBED}.lora_embedding_A": tensor(8, 257)}
    assert refusal(make_adapter(tmp_path / "a", mutate=adding(**grown)), base).reason == "base_mismatch"


@pytest.mark.parametrize(
    "extra",
    [
        {f"{EMBED}.lora_A.weight": tensor(8, 64), f"{EMBED}.lora_B.weight": tensor(256, 8)},
        {f"{LAYER}q_proj.lora_embedding_A": tensor(8, 64), f"{LAYER}q_proj.lora_embedding_B": tensor(64, 8)},
    ],
)
def test_the_wrong_layout_for_a_module_is_refused(
    tmp_path: Path, base: BaseModelInfo, extra: Tensors
) -> None:
    def swap(given: Tensors) -> Tensors:
        return {**{k: v for k, v in given.items() if "0.self_attn.q_proj" not in k}, **extra}

    error = refusal(make_adapter(tmp_path / "a", mutate=swap), base)
    assert (error.reason, "vLLM reads" in error.fact) == ("modules", True)


def test_the_whole_embedding_that_peft_saves_beside_is_known_and_said(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    copy = {**EMBED_LORA, f"{EMBED}.base_layer.weight": tensor(256, 64)}
    found = check(make_adapter(tmp_path / "a", mutate=adding(**copy)), base)
    assert "1 whole embeddings, which vLLM skips" in found.warnings[0]
    grown = {**EMBED_LORA, f"{EMBED}.base_layer.weight": tensor(300, 64)}
    error = refusal(make_adapter(tmp_path / "b", mutate=adding(**grown)), base)
    assert (error.reason, "resized vocabulary" in error.fact) == ("base_mismatch", True)


def test_a_multimodal_base_is_matched_through_its_nesting(tmp_path: Path) -> None:
    base = read_base(make_base(tmp_path / "m", prefix="model.language_model."), "tiny")
    exact = make_adapter(tmp_path / "a", prefix="base_model.model.model.language_model.")
    assert check(exact, base).warnings == ()
    older = make_adapter(tmp_path / "b", prefix="base_model.model.language_model.model.")
    assert "named otherwise" in check(older, base).warnings[0]


def test_a_checkpoint_of_the_inner_model_is_matched_by_the_names_end(tmp_path: Path) -> None:
    base = read_base(make_base(tmp_path / "m", prefix=""), "tiny")
    assert "layers.0.self_attn.q_proj" in base.modules
    assert "named otherwise" in check(make_adapter(tmp_path / "a"), base).warnings[0]


def test_a_tower_is_said_to_be_ignored(tmp_path: Path, base: BaseModelInfo) -> None:
    modules = {**base.modules, "visual.blocks.0.attn.proj": (64, 64)}
    tower = {"base_model.model.visual.blocks.0.attn.proj.lora_A.weight": tensor(8, 64),
             "base_model.model.visual.blocks.0.attn.proj.lora_B.weight": tensor(64, 8)}  # fmt: skip
    found = check(make_adapter(tmp_path / "a", mutate=adding(**tower)), replace(base, modules=modules))
    assert "enable_tower_connector_lora" in found.warnings[0]


def test_experts_are_checked_one_by_one_or_taken_fused_with_a_warning(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    expert = "model.layers.0.mlp.experts.0.gate_proj"
    moe = replace(base, modules={**base.modules, expert: (128, 64)})
    single = {f"base_model.model.{expert}.lora_A.weight": tensor(8, 64),
              f"base_model.model.{expert}.lora_B.weight": tensor(128, 8)}  # fmt: skip
    assert check(make_adapter(tmp_path / "a", mutate=adding(**single)), moe).warnings == ()
    fused = "base_model.model.model.layers.0.mlp.experts"
    both = {f"{fused}.lora_A.weight": tensor(32, 128), f"{fused}.lora_B.weight": tensor(64, 32),
            f"{fused}.base_layer.lora_A.weight": tensor(32, 64),
            f"{fused}.base_layer.lora_B.weight": tensor(256, 32)}  # fmt: skip
    found = check(make_adapter(tmp_path / "b", mutate=adding(**both)), moe)
    assert "fused experts" in found.warnings[0]
    assert found.rank == 8
    odd = {f"{fused}.lora_A.weight": tensor(31, 128), f"{fused}.lora_B.weight": tensor(64, 31)}
    assert refusal(make_adapter(tmp_path / "c", mutate=adding(**odd)), moe).reason == "rank"
    elsewhere = {name.replace("layers.0", "layers.7"): value for name, value in both.items()}
    assert refusal(make_adapter(tmp_path / "d", mutate=adding(**elsewhere)), moe).reason == "modules"
