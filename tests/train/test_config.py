"""A config says exactly what will be trained, or is refused with the key at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.errors import InvalidName, UsageError
from train.config import TrainConfig, known_keys, load_config

FULL = """
name: support
alias: candidate
note: first try
seed: 7
data: {train: rows.jsonl, eval: held-out.jsonl}
lora: {rank: 8, alpha: 32, dropout: 0.1, target_modules: [q_proj, v_proj]}
training:
  learning_rate: 5.0e-4
  epochs: 2
  steps: 40
  batch_size: 4
  max_length: 256
  schedule: cosine
  warmup: 0.1
  weight_decay: 0.01
  max_grad_norm: 0.5
"""


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_key_of_a_full_config_is_taken(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FULL))
    assert config.lora.rank == 8
    assert config.lora.scale_alpha == 32
    assert config.lora.target_modules == ("q_proj", "v_proj")
    assert config.training.schedule == "cosine"
    assert (config.training.steps, config.training.batch_size, config.seed) == (40, 4, 7)
    assert config.alias == "candidate"


def test_the_full_config_above_names_every_known_key() -> None:
    keys = known_keys()
    assert len(keys) == 19
    for key in keys:
        assert f"{key.rpartition('.')[2]}:" in FULL


def test_alpha_is_twice_the_rank_unless_given(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "name: a\ndata: {train: x}\nlora: {rank: 24}\n"))
    assert config.lora.scale_alpha == 48


def test_relative_data_paths_count_from_the_config_files_folder(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FULL))
    assert config.data.train == tmp_path / "rows.jsonl"
    assert config.data.eval == tmp_path / "held-out.jsonl"


@pytest.mark.parametrize("name", ["config.json", "config.toml", "config.yaml"])
def test_json_toml_and_yaml_mean_the_same(tmp_path: Path, name: str) -> None:
    text = {
        "config.json": json.dumps({"name": "a", "data": {"train": "x"}, "seed": 3}),
        "config.toml": 'name = "a"\nseed = 3\n[data]\ntrain = "x"\n',
        "config.yaml": "name: a\nseed: 3\ndata:\n  train: x\n",
    }[name]
    assert load_config(write(tmp_path, text, name)).seed == 3


@pytest.mark.parametrize(
    ("line", "key", "hint"),
    [
        ("lora: {rnak: 8}", "lora.rnak", "did you mean lora.rank?"),
        ("training: {learning_rte: 1}", "training.learning_rte", "did you mean training.learning_rate?"),
        ("learning_rate: 1", "learning_rate", "did you mean training.learning_rate?"),
        ("sed: 1", "sed", "did you mean seed?"),
        ("zzzzzz: 1", "zzzzzz", "known settings: alias,"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    tmp_path: Path, line: str, key: str, hint: str
) -> None:
    path = write(tmp_path, f"name: a\ndata: {{train: x}}\n{line}\n")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {key} is not a setting")
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("lora: {rank: 0}", "lora.rank"),
        ("lora: {dropout: 1.0}", "lora.dropout"),
        ("training: {learning_rate: 2}", "training.learning_rate"),
        ("training: {schedule: zigzag}", "training.schedule"),
        ("training: {warmup: 1}", "training.warmup"),
        ("seed: -1", "seed"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_key(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        load_config(write(tmp_path, f"name: a\ndata: {{train: x}}\n{line}\n"))


def test_an_impossible_adapter_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidName, match="not a name"):
        load_config(write(tmp_path, "name: Support Team\ndata: {train: x}\n"))


@pytest.mark.parametrize(
    ("text", "fact"),
    [("", "holds no settings"), ("[1, 2]", "holds no settings"), ("a: [", "cannot be parsed")],
)
def test_a_file_without_settings_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        load_config(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FULL))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    assert isinstance(config, TrainConfig)
