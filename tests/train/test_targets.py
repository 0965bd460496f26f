"""An expression for modules means what it means in PEFT, and cannot run for ever."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.records import BaseModelInfo
from tests.fakes.base import base_record
from train.config import TrainConfig, parse_config
from train.model.shape import check_shape
from train.model.targets import target_names, targeted_modules
from train.settings.adapter import LoraSettings

NESTED = (
    "language_model.model.layers.0.self_attn.q_proj",
    "language_model.model.layers.0.mlp.up_proj",
    "language_model.model.layers.1.self_attn.v_proj",
    "vision_tower.encoder.layers.0.self_attn.q_proj",
)


@pytest.fixture
def base(tmp_path: Path) -> BaseModelInfo:
    return base_record(tmp_path)


def config(**lora: Any) -> TrainConfig:
    return parse_config({"name": "a", "data": {"train": "x"}, "lora": lora}, "config", Path())


def lora(pattern: Any, **more: Any) -> LoraSettings:
    return LoraSettings(target_modules=pattern, **more)


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.(q|v)_proj",
        r"model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj",
        r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|down_proj).*?)",
        r"model\.layers\.1\..*",
        r".*",
    ],
)
def test_an_expression_names_the_modules_that_it_matches_whole_as_in_peft(
    base: BaseModelInfo, pattern: str
) -> None:
    found = targeted_modules(lora(pattern), base.modules)
    assert found == {name for name in base.modules if re.fullmatch(pattern, name)}
    assert found


def test_an_expression_that_matches_the_end_of_a_name_only_names_nothing(base: BaseModelInfo) -> None:
    assert not targeted_modules(lora("q_proj"), base.modules)


def test_short_names_are_handed_on_where_they_say_the_same(base: BaseModelInfo) -> None:
    assert target_names(lora(r".*\.(q|v)_proj"), base.modules) == ("q_proj", "v_proj")


def test_whole_names_are_handed_on_where_short_ones_would_say_more(base: BaseModelInfo) -> None:
    found = target_names(lora(r".*layers\.1\.self_attn\.(q|v)_proj"), base.modules)
    assert found == ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj")


def test_layers_keep_an_expression_to_these_layers(base: BaseModelInfo) -> None:
    settings = lora(r".*q_proj", layers=[1])
    assert targeted_modules(settings, base.modules) == {"model.layers.1.self_attn.q_proj"}
    assert target_names(settings, base.modules) == ("q_proj",)


@pytest.mark.parametrize(
    "pattern",
    [
        r"model.language_model.layers.[\d]+.self_attn.(q|v)_proj",  # transformers' names
        r"language_model.model.layers.[\d]+.self_attn.(q|v)_proj",  # the checkpoint's names
    ],
)
def test_a_multimodal_models_language_model_is_found_by_either_nesting(pattern: str) -> None:
    found = targeted_modules(lora(pattern), NESTED)
    assert found == {name for name in NESTED if name.startswith("lang") and "self_attn" in name}
    handed = target_names(lora(pattern), NESTED)
    assert "model.language_model.layers.0.self_attn.q_proj" in handed
    assert not any("vision" in name for name in handed)


@pytest.mark.parametrize(
    ("pattern", "fact"),
    [
        ("q_proj", r"matches no module of the base as a whole name; write it as a list: \[q_proj\]"),
        ("q_proj, v_proj", r"write it as a list: \[q_proj, v_proj\]"),
        (r"transformer\.h\..*", r"whole names are like model\.layers\.0\."),
        ("(q_proj", "is not a regular expression"),
        ("x" * 5_000, "has 5000 characters; an expression may have 4096"),
    ],
)
def test_an_expression_that_names_nothing_is_refused_with_what_to_write(
    base: BaseModelInfo, pattern: str, fact: str
) -> None:
    with pytest.raises(UsageError, match=fact):
        check_shape(config(target_modules=pattern), base, 32)


def test_an_expression_that_runs_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.model.targets.PATTERN_SECONDS", 0.05)
    names = ["a" * 60 + "!"] * 1_000
    started = time.monotonic()
    with pytest.raises(ValueError, match="takes longer than"):
        targeted_modules(lora(r"((a|aa)+)+\d?[b-z]"), names)
    assert time.monotonic() - started < 5


def test_a_list_of_all_linear_alone_is_all_linear() -> None:
    assert lora(["all-linear"]).target_modules == "all-linear"


def test_layers_that_hold_none_of_the_named_modules_are_refused(base: BaseModelInfo) -> None:
    with pytest.raises(UsageError, match=r"lora.layers 0 hold none of lora.target_modules embed_tokens"):
        check_shape(config(target_modules=["embed_tokens"], layers=[0]), base, 32)


def test_an_expression_needs_a_base_whose_module_names_are_known(base: BaseModelInfo) -> None:
    packed = dataclasses.replace(base, modules={})
    with pytest.raises(UsageError, match=r"is an expression, and the module names .* are unknown"):
        check_shape(config(target_modules=".*q_proj"), packed, 32)
