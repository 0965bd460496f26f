"""Tensors that vLLM would refuse or ignore are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry.records import BaseModelInfo
from registry.validation.base import read_base
from tests.fakes.adapters import Tensors, make_adapter
from tests.fakes.base import make_base
from tests.fakes.safetensors import encode
from tests.registry.inspecting import LAYER, adding, check, refusal, renaming, tensor, without


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    return read_base(make_base(tmp_path_factory.mktemp("models") / "tiny"), "tiny")


@pytest.mark.parametrize(
    ("mutate", "reason", "words"),
    [
        (without("0.self_attn.q_proj.lora_B.weight"), "modules", ["q_proj has lora_A but no lora_B"]),
        (without("0.self_attn.q_proj.lora_A.weight"), "modules", ["q_proj has lora_B but no lora_A"]),
        (without("lora_B.weight"), "modules", ["no lora_B"]),
        (without("weight"), "modules", ["holds no LoRA tensor"]),
        (adding(base_model__model__model__norm__weight=tensor(64)), "modules", ["not a LoRA tensor"]),
        (adding(orphan=tensor(8, 64)), "modules", ["orphan"]),
        (
            adding(**{f"{LAYER}q_proj.lora_magnitude_vector": tensor(64)}),
            "modules",
            ["DoRA", "train merge DIR OUT --as lora"],
        ),
        (adding(**{f"{LAYER}q_proj.bias": tensor(64)}), "modules", ["bias"]),
        (adding(**{f"{LAYER}q_proj.ia3_l": tensor(64, 1)}), "modules", ["IA3"]),
        (adding(**{f"{LAYER}q_proj.lora_E": tensor(8, 1)}), "modules", ["AdaLoRA"]),
        (
            adding(
                base_model__model__model__embed_tokens__token_adapter__trainable_tokens_delta=tensor(1, 64)
            ),
            "modules",
            ["trained tokens"],
        ),
        (
            adding(base_model__model__lm_head__modules_to_save__weight=tensor(256, 64)),
            "modules",
            ["whole module"],
        ),
        (
            renaming(".lora_A.weight", ".lora_A.default.weight"),
            "modules",
            ["adapter's name", "save_pretrained"],
        ),
        (renaming(".lora_B.weight", ".lora_B.default.weight"), "modules", ["adapter's name"]),
        (
            adding(**{"model.layers.0.self_attn.q_proj.lora_A.weight": tensor(8, 64)}),
            "modules",
            ["two tensors"],
        ),
        (adding(**{f"{LAYER}q_proj.lora_B.weight": tensor(64, 4)}), "shape", ["do not share a rank"]),
        (adding(**{f"{LAYER}q_proj.lora_A.weight": tensor(8)}), "shape", ["[8]", "ZeRO-3"]),
        (adding(**{f"{LAYER}q_proj.lora_A.weight": tensor(8, 8, 8)}), "shape", ["[8, 8, 8]"]),
        (adding(**{f"{LAYER}q_proj.lora_A.weight": tensor(0, 64)}), "shape", ["[0, 64]"]),
        (
            adding(**{f"{LAYER}q_proj.lora_A.weight": tensor(8, 64, dtype="F64")}),
            "shape",
            ["F64", "BF16, F16, F32"],
        ),
        (adding(**{f"{LAYER}q_proj.lora_A.weight": tensor(8, 64, dtype="F8_E4M3")}), "shape", ["F8_E4M3"]),
        (adding(**{f"{LAYER}q_proj.lora_A.weight": tensor(8, 64, dtype="I8")}), "shape", ["I8"]),
        (
            adding(
                **{
                    f"{LAYER}q_proj.lora_A.weight": tensor(4, 64),
                    f"{LAYER}q_proj.lora_B.weight": tensor(64, 4),
                }
            ),
            "rank",
            ["rank 4", "config says 8"],
        ),
        (
            adding(**{f"{LAYER}q_proj.lora_A.weight": tensor(8, 32)}),
            "base_mismatch",
            ["32 features", "64 to 64"],
        ),
        (adding(**{f"{LAYER}q_proj.lora_B.weight": tensor(65, 8)}), "base_mismatch", ["to 65", "64 to 64"]),
        (
            renaming("layers.1.", "layers.2."),
            "modules",
            ["2 of 4 modules", "layers.2.self_attn.q_proj", "tiny"],
        ),
        (renaming("self_attn", "attention"), "modules", ["4 of 4 modules", "attention.q_proj"]),
        (
            renaming("base_model.model.model.layers", "base_model.model.layers"),
            "modules",
            ["layers.0.self_attn.q_proj", "is called model.layers.0.self_attn.q_proj"],
        ),
    ],
)
def test_tensors_that_vllm_would_refuse_or_ignore_are_refused(
    tmp_path: Path, base: BaseModelInfo, mutate: Callable[[Tensors], Tensors], reason: str, words: list[str]
) -> None:
    error = refusal(make_adapter(tmp_path / "a", mutate=mutate), base)
    assert error.reason == reason, str(error)
    assert all(word in str(error) for word in words), str(error)


def test_a_rank_over_the_limit_is_refused_with_both_numbers(tmp_path: Path, base: BaseModelInfo) -> None:
    error = refusal(make_adapter(tmp_path / "a", rank=64), base)
    assert str(error) == (
        "support: rank 64 exceeds this server's max_lora_rank 32; train again with r <= 32, "
        "or raise max_lora_rank under [limits] in the root's wardrobe.toml and restart the servers"
    )
    assert error.reason == "rank"


def test_a_rank_over_the_limit_in_a_pattern_or_a_tensor_is_refused(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    assert refusal(make_adapter(tmp_path / "a", ranks={"q_proj": 33}), base).reason == "rank"
    hidden = make_adapter(tmp_path / "b", ranks={"q_proj": 33}, config={"rank_pattern": {}})
    assert "33" in refusal(hidden, base).fact


def test_a_pattern_whose_order_decides_is_refused_where_sorting_changes_it(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    patterns = {"self_attn.q_proj": 4, "q_proj": 8}
    folder = make_adapter(tmp_path / "a", ranks={"q_proj": 4}, config={"rank_pattern": patterns})
    error = refusal(folder, base)
    assert (error.reason, "keys are sorted" in error.fact) == ("bad_config", True)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_with_the_tensor_named(
    tmp_path: Path, base: BaseModelInfo, dtype: str, poison: float
) -> None:
    error = refusal(make_adapter(tmp_path / "a", dtype=dtype, poison=poison), base)
    assert error.reason == "nan"
    assert "1 tensors hold NaN or infinity, base_model.model.model.layers.1" in error.fact


@pytest.mark.parametrize("changes", [{"zero_b": True}, {"alpha": 0}])
def test_an_adapter_that_changes_nothing_warns(
    tmp_path: Path, base: BaseModelInfo, changes: dict[str, object]
) -> None:
    (warning,) = check(make_adapter(tmp_path / "a", **changes), base).warnings
    assert "this adapter changes nothing" in warning


def test_one_module_with_a_zero_b_does_not_warn(tmp_path: Path, base: BaseModelInfo) -> None:
    zero = encode(np.zeros((64, 8), dtype=np.float32), "BF16")
    folder = make_adapter(tmp_path / "a", mutate=adding(**{f"{LAYER}q_proj.lora_B.weight": zero}))
    assert check(folder, base).warnings == ()
