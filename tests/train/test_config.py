"""A config says exactly what will be trained, or is refused with the key at fault."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from registry.errors import InvalidName, UsageError
from registry.settings.yaml_text import parse_yaml
from train.config import TrainConfig, known_keys, load_config, parse_config
from train.settings.method_names import _SAID_ELSEWHERE, _SAME
from train.settings.methods import LEARNING_RATES
from train.settings.steps import PerEpoch

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


def test_every_known_key_is_listed_once_dotted_by_the_name_that_a_file_uses() -> None:
    keys = known_keys()
    assert len(set(keys)) == len(keys)
    assert {"name", "from", "lora.rank", "method.beta", "data.replay.share", "goal.suite"} <= set(keys)
    assert not {"start", "lora", "training"} & set(keys)


def test_a_method_may_be_named_alone(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "name: a\nmethod: dpo\ndata: {train: x}\n"))
    assert (config.method.type, config.learning_rate) == ("dpo", LEARNING_RATES["dpo"])


@pytest.mark.parametrize("kind", ["prefix", "prompt_tuning", "houlsby", "ia3"])
def test_a_kind_of_adapter_that_cannot_be_swapped_is_refused_with_the_reason(
    tmp_path: Path, kind: str
) -> None:
    with pytest.raises(UsageError, match=f"kind {kind} cannot be served: .*use kind: lora"):
        load_config(write(tmp_path, f"name: a\ndata: {{train: x}}\nlora: {{kind: {kind}}}\n"))


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two sources 'x'"):
        load_config(write(tmp_path, "name: a\ndata: {train: [a/x.jsonl, b/x.jsonl]}\n"))


def test_a_preset_fills_in_only_what_the_file_does_not_give(tmp_path: Path) -> None:
    text = "name: a\npreset: few-shot\ndata: {train: x, eval: y}\nlora: {rank: 4}\n"
    config = load_config(write(tmp_path, text))
    assert (config.lora.rank, config.lora.dropout, config.training.epochs) == (4, 0.05, 10)
    assert config.early_stopping is not None
    assert config.checkpoints.best_by == "eval_loss"


def test_the_configs_digest_names_what_decides_and_not_the_note(tmp_path: Path) -> None:
    first = load_config(write(tmp_path, FULL))
    same = first.model_copy(update={"note": "another", "name": "other", "alias": None})
    assert first.sha256 == same.sha256
    assert first.sha256 != first.model_copy(update={"seed": 8}).sha256


def test_alpha_is_twice_the_rank_unless_given(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "name: a\ndata: {train: x}\nlora: {rank: 24}\n"))
    assert config.lora.scale_alpha == 48


def test_relative_data_paths_count_from_the_config_files_folder(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FULL))
    paths = {label: place.path for label, place in config.data.files.items()}
    assert paths == {"train": tmp_path / "rows.jsonl", "eval": tmp_path / "held-out.jsonl"}


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
        ("method: {type: dpo, betta: 1}", "method.betta", "did you mean method.beta?"),
        (
            "method: {type: grpo, reward: {grader: []}}",
            "method.reward.grader",
            "mean method.reward.graders?",
        ),
        ("learning_rate: 1", "learning_rate", "did you mean training.learning_rate?"),
        ("sed: 1", "sed", "did you mean seed?"),
        ("zzzzzz: 1", "zzzzzz", "known here: alias,"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    tmp_path: Path, line: str, key: str, hint: str
) -> None:
    path = write(tmp_path, f"name: a\ndata: {{train: x}}\n{line}\n")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:3: unknown setting {key}; ")
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("lora: {rank: 0}", "lora.rank"),
        ("lora: {dropout: 1.0}", "lora.dropout"),
        ("training: {learning_rate: 2}", "training.learning_rate"),
        ("training: {schedule: zigzag}", "training.schedule"),
        (
            "training: {warmup: 10.5}",
            "training.warmup: must be a share of all steps (0.05) or a whole number",
        ),
        ("training: {warmup: -1}", "training.warmup"),
        ("training: {warmup: true}", "training.warmup"),
        ("training: {warmup: .nan}", "training.warmup"),
        ("checkpoints: {every: 0}", "checkpoints.every: must be a number of steps (500) or {per_epoch: 4}"),
        ("checkpoints: {every: {epoch: 1}}", "checkpoints.every: must be a number of steps"),
        ("evaluation: {every: {per_epoch: 0}}", "evaluation.every: per_epoch must be between 1 and"),
        ("lora: {target_modules: []}", "lora.target_modules: must be all-linear, a list"),
        ("lora: {target_modules: 5}", "lora.target_modules: must be all-linear, a list"),
        ("lora: {kind: qlora}", "lora: kind qlora is said in another way"),
        ("lora: {kind: loha}", "lora: kind loha cannot be served"),
        ("seed: -1", "seed"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_key(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(UsageError, match=re.escape(key)):
        load_config(write(tmp_path, f"name: a\ndata: {{train: x}}\n{line}\n"))


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("sft", "did you mean supervised?"),
        ("{type: sft}", "did you mean supervised?"),
        ("DPO", "did you mean dpo?"),
        ("reward_model", "did you mean reward?"),
        ("pt", "did you mean pretrain?"),
        ("{type: ppo}", "use rloo or grpo"),
        ("simpo", "use orpo"),
        ("cpo", "use orpo"),
        ("ipo", "write method: {type: dpo, loss: ipo}"),
        ("bco", "use kto"),
        ("dapo", "use grpo"),
        ("online_dpo", "use rloo or grpo"),
        ("qlora", "leave method out: the kind of adapter is lora.kind"),
        ("superviesd", "did you mean supervised?"),
        ("{type: 3}", "use one of supervised, pretrain"),
        ("zzzzzz", "use one of supervised, pretrain"),
    ],
)
def test_a_method_that_is_not_ours_is_answered_with_the_one_to_use(
    tmp_path: Path, method: str, remedy: str
) -> None:
    with pytest.raises(UsageError, match=f"is not a method; {re.escape(remedy)}"):
        load_config(write(tmp_path, f"name: a\ndata: {{train: x}}\nmethod: {method}\n"))


def test_every_advised_method_is_one_that_a_config_may_name() -> None:
    assert set(_SAME) <= set(LEARNING_RATES)
    for line in _SAID_ELSEWHERE:
        said = parse_yaml(f"name: a\ndata: {{train: x}}\n{line}")
        assert isinstance(said, dict)
        assert parse_config(said, "advice", Path()).method.type == "dpo"


def test_a_warm_up_is_a_share_below_1_and_whole_steps_from_1_on(tmp_path: Path) -> None:
    found = [
        load_config(write(tmp_path, f"name: a\ndata: {{train: x}}\ntraining: {{warmup: {one}}}\n"))
        for one in ("0", "0.25", "1", "100", "100.0")
    ]
    assert [config.training.warmup for config in found] == [0, 0.25, 1, 100, 100]
    assert [type(config.training.warmup) for config in found] == [float, float, int, int, int]


def test_checkpoints_and_evaluations_count_steps_or_times_in_each_epoch(tmp_path: Path) -> None:
    text = "name: a\ndata: {train: x}\ncheckpoints: {every: 500}\nevaluation: {every: {per_epoch: 4}}\n"
    config = load_config(write(tmp_path, text))
    assert (config.checkpoints.every, config.evaluation.every) == (500, PerEpoch(per_epoch=4))
    assert {"checkpoints.every", "evaluation.every.per_epoch"} <= set(known_keys())


def test_an_impossible_adapter_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidName, match="not a name"):
        load_config(write(tmp_path, "name: Support Team\ndata: {train: x}\n"))


@pytest.mark.parametrize(
    ("text", "fact"),
    [("", "holds no settings"), ("[1, 2]", "holds no settings"), ("a: [", "is not valid YAML")],
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


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "epochs", float("inf")),
        ("training", "steps", 10**30),
        ("training", "batch_size", 10**30),
        ("training", "accumulation", 10**30),
        ("training", "max_length", 10**30),
    ],
)
def test_a_number_that_no_run_has_is_refused(section: str, key: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{section}.{key}"):
        parse_config({"name": "a", "data": {"train": "r.jsonl"}, section: {key: value}}, "c", Path())


def test_a_weight_without_end_is_refused() -> None:
    train = [{"path": "r.jsonl", "weight": float("inf")}]
    with pytest.raises(UsageError, match="weight"):
        parse_config({"name": "a", "data": {"train": train}}, "c", Path())


def test_a_path_with_a_nul_character_is_refused() -> None:
    with pytest.raises(UsageError, match="holds a NUL character"):
        parse_config({"name": "a", "data": {"train": "a\0b"}}, "c", Path())
