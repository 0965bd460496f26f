"""What can be refused before the first step is refused there, without torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from registry.errors import Conflict, NotFound, UsageError
from registry.store import Registry
from tests.fakes.base import make_base
from train.config import TrainConfig
from train.runs.run import prepare


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    base = make_base(tmp_path / "base")
    del base
    return Registry.init(tmp_path / "root", tmp_path / "base", name="tiny")


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"name": "a", "data": {"train": "rows.jsonl"}, **changes})


def test_a_rank_over_the_roots_limit_names_the_limit(registry: Registry) -> None:
    with pytest.raises(UsageError, match="rank 64 exceeds this root's max_lora_rank 32"):
        prepare(config(lora={"rank": 64}), registry)


def test_an_unknown_target_module_names_those_that_the_base_has(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"names query.*it has .*q_proj") as caught:
        prepare(config(lora={"target_modules": ["query", "v_proj"]}), registry)
    assert "v_proj, which" not in str(caught.value)


def test_another_model_in_the_bases_folder_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "base" / "config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "num_hidden_layers": 99}))
    with pytest.raises(Conflict, match="holds another model"):
        prepare(config(), registry)


def test_a_base_folder_that_is_gone_is_named(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(NotFound, match="folder is gone"):
        prepare(config(), registry)
    assert dataclasses.is_dataclass(registry.base)


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_an_adapter_that_could_not_be_registered_is_not_trained(registry: Registry, name: str) -> None:
    with pytest.raises(Conflict, match="names the base model"):
        prepare(config(name=name), registry)
