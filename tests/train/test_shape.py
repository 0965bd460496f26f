"""An adapter that base, root or server has no place for is refused before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.records import BaseModelInfo
from tests.fakes.base import base_record
from train.config import TrainConfig, parse_config
from train.model.shape import ServerLimits, check_server, check_shape
from train.model.targets import target_names, targeted_modules


@pytest.fixture
def base(tmp_path: Path) -> BaseModelInfo:
    return base_record(tmp_path)


def config(**lora: Any) -> TrainConfig:
    return parse_config({"name": "a", "data": {"train": "rows.jsonl"}, "lora": lora}, "config", Path())


@pytest.mark.parametrize(
    ("lora", "fact"),
    [
        ({"rank": 64}, "lora.rank 64 exceeds this root's max_lora_rank 32; .* max_lora_rank to 64"),
        ({"rank": 8, "rank_pattern": {"q_proj": 40}}, "lora.rank_pattern 40 exceeds"),
        ({"kind": "dora", "rank": 8, "convert_rank": 48}, "lora.convert_rank 48 exceeds"),
        ({"layers": [0, 2]}, "lora.layers names 2, .* the layers 0 to 1"),
        ({"target_modules": ["q_proj", "query"]}, "names query, which"),
        ({"rank_pattern": {"query": 4}}, "rank_pattern names query, which matches no module"),
        ({"layers": [0], "rank_pattern": {"layers.1.mlp.up_proj": 4}}, "matches no module that is trained"),
        ({"alpha_pattern": {"(a+)+$": 4}}, "lora.alpha_pattern"),
        ({"alpha_pattern": {"self_attn.q_proj": 4, "q_proj": 8}}, "when its keys are sorted"),
    ],
)
def test_what_does_not_fit_is_named(base: BaseModelInfo, lora: dict[str, Any], fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        check_shape(config(**lora), base, 32)


def test_a_high_rank_that_is_converted_to_a_low_one_fits(base: BaseModelInfo) -> None:
    check_shape(config(kind="dora", rank=64, convert_rank=32), base, 32)


def test_all_linear_is_every_module_but_the_embeddings(base: BaseModelInfo) -> None:
    found = targeted_modules(config().lora, base.modules)
    assert len(found) == 14
    assert not any("embed" in name for name in found)
    assert target_names(config().lora, base.modules) == (
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    )  # fmt: skip


def test_layers_keep_to_these_layers(base: BaseModelInfo) -> None:
    found = targeted_modules(config(layers=[1], target_modules=["q_proj"]).lora, base.modules)
    assert found == {"model.layers.1.self_attn.q_proj"}


def test_a_running_server_says_what_it_can_serve(base: BaseModelInfo) -> None:
    check_server(config(rank=16), base, ServerLimits("http://server", base.fingerprint, 16))
    with pytest.raises(UsageError, match="rank 16 exceeds the server's max_lora_rank 8"):
        check_server(config(rank=16), base, ServerLimits("http://server", base.fingerprint, 8))
    with pytest.raises(UsageError, match="http://server: serves another base"):
        check_server(config(rank=16), base, ServerLimits("http://server", "sha256:" + "c" * 64, 64))


@pytest.mark.parametrize(
    ("document", "fact"),
    [
        ({"lora": {"convert_rank": 8}}, "convert_rank is for dora, pissa and full"),
        ({"lora": {"kind": "full", "alpha": 8}}, "alpha has no meaning with kind full"),
        ({"lora": {"kind": "pissa"}, "quantization": {}}, "quantization does not go with lora.kind pissa"),
        ({"lora": {"layers": []}}, "layers"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(document: dict[str, Any], fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        parse_config({"name": "a", "data": {"train": "x"}, **document}, "config", Path())
