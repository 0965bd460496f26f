"""Configs of other trainers say the same in ours, and whatever they say beyond that is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from registry.errors import UsageError
from train.config import load_config
from train.importing.cli import import_
from train.importing.run import Imported, import_config

QLORA = """
base_model: some-org/Some-8B
model_type: AutoModelForCausalLM
load_in_8bit: false
load_in_4bit: true
strict: false
datasets:
  - path: tickets.jsonl
    type: alpaca
  - path: some-org/chats
    type: chat_template
    field_messages: talk
dataset_prepared_path: prepared
val_set_size: 0.05
output_dir: ./outputs/Tickets QLoRA
adapter: qlora
sequence_len: 2048
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
wandb_project: tickets
wandb_entity:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
warmup_ratio: 0.1
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.01
special_tokens: {pad_token: "<pad>"}
made_up_key: 3
"""

NESTED = """
model:
  base_model: some-org/Some-7B
lora:
  r: 16
  alpha: 32
  dropout: 0.1
  target_modules: [q_proj, v_proj]
datasets:
  - path: data/train.jsonl
    type: sharegpt
training:
  num_epochs: 3
  batch_size: 4
  gradient_accumulation_steps: 8
  learning_rate: 2e-4
  warmup_steps: 100
  max_seq_length: 1024
  save_steps: 50
quantization:
  load_in_4bit: true
"""

FACTORY = """
model_name_or_path: some-org/Some-8B-Instruct
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_target: all
dataset: own_rows,other_rows
dataset_dir: data
template: llama3
cutoff_len: 1024
max_samples: 500
preprocessing_num_workers: 4
output_dir: saves/own/lora
logging_steps: 10
save_steps: 200
plot_loss: true
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
quantization_bit: 4
report_to: none
val_size: 0.1
"""


def bring(folder: Path, text: str) -> Imported:
    path = folder / "theirs.yaml"
    path.write_text(text)
    return import_config(path)


def left(found: Imported) -> dict[str, str]:
    return {one.key: one.reason for one in found.left}


def written(folder: Path, found: Imported) -> Any:
    """Return the config as `train run` would read it."""
    path = folder / "ours.yaml"
    path.write_text(found.text())
    return load_config(path)


def test_axolotls_values_arrive_under_our_keys(tmp_path: Path) -> None:
    found = bring(tmp_path, QLORA)
    config = written(tmp_path, found)
    assert found.trainer == "axolotl"
    assert config.name == "tickets-qlora"
    assert (config.method.type, config.method.packing) == ("supervised", True)
    assert [source.path.name for source in config.data.train] == ["tickets.jsonl", "chats.jsonl"]
    assert config.data.overflow == "drop"
    lora = config.lora
    assert (lora.kind, lora.rank, lora.alpha, lora.dropout) == ("lora", 32, 16, 0.05)
    assert (lora.target_modules, config.quantization.type) == ("all-linear", "nf4")
    training = config.training
    assert (training.batch_size, training.accumulation, training.epochs) == (2, 4, 4)
    assert (training.max_length, training.learning_rate, training.warmup) == (2048, 2e-4, 0.1)
    assert (training.optimiser, training.schedule) == ("adamw_8bit", "cosine")
    assert (training.weight_decay, training.gradient_checkpointing) == (0.01, True)
    assert (config.tracking.to, config.tracking.project) == (("wandb",), "tickets")


def test_every_key_without_a_counterpart_is_named_with_a_reason(tmp_path: Path) -> None:
    named = left(bring(tmp_path, QLORA))
    assert set(named) == {
        "base_model",
        "model_type",
        "datasets[1].path",
        "datasets[1].field_messages",
        "dataset_prepared_path",
        "val_set_size",
        "flash_attention",
        "evals_per_epoch",
        "saves_per_epoch",
        "special_tokens",
        "made_up_key",
    }
    assert "wardrobe init" in named["base_model"]
    assert "wardrobe data split" in named["val_set_size"]
    assert "that we know of" in named["made_up_key"]
    assert "put its rows into chats.jsonl" in named["datasets[1].path"]


def test_the_nested_form_of_guides_is_read_like_the_flat_one(tmp_path: Path) -> None:
    found = bring(tmp_path, NESTED)
    config = written(tmp_path, found)
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (16, 32, 0.1)
    assert config.lora.target_modules == ("q_proj", "v_proj")
    training = config.training
    assert (training.batch_size, training.accumulation, training.max_length) == (4, 8, 1024)
    assert (training.epochs, training.learning_rate) == (3, 2e-4)
    assert config.checkpoints.every == 50
    assert config.quantization is not None
    assert set(left(found)) == {"base_model", "warmup_steps"}


def test_llama_factorys_values_arrive_under_our_keys(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    info = {"own_rows": {"file_name": "own.json"}, "other_rows": {"hf_hub_url": "some-org/rows"}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    found = bring(tmp_path, FACTORY)
    config = written(tmp_path, found)
    assert found.trainer == "llama-factory"
    assert (config.name, config.method.type) == ("lora", "supervised")
    assert [source.path.name for source in config.data.train] == ["own.json", "other_rows.jsonl"]
    assert [source.limit for source in config.data.train] == [500, 500]
    assert (config.lora.rank, config.lora.alpha, config.lora.target_modules) == (16, 32, "all-linear")
    assert config.quantization is not None
    training = config.training
    assert (training.batch_size, training.accumulation, training.epochs) == (2, 8, 2)
    assert (training.learning_rate, training.max_length, training.warmup) == (1e-4, 1024, 0.1)
    assert (training.schedule, training.precision) == ("cosine", "bf16")
    assert config.checkpoints.every == 200
    assert {"model_name_or_path", "template", "dataset", "val_size", "do_train"} <= set(left(found))


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ("stage: pt", "pretrain"),
        ("stage: dpo\npref_beta: 0.2", "dpo"),
        ("stage: dpo\npref_loss: orpo", "orpo"),
        ("stage: kto", "kto"),
        ("stage: rm", "reward"),
    ],
)
def test_each_stage_of_llama_factory_is_a_method(tmp_path: Path, change: str, method: str) -> None:
    text = FACTORY.replace("stage: sft", change)
    assert written(tmp_path, bring(tmp_path, text)).method.type == method


@pytest.mark.parametrize(
    ("change", "method"),
    [("rl: dpo\nrl_beta: 0.2", "dpo"), ("rl: ipo", "dpo"), ("rl: kto", "kto"), ("rl: orpo", "orpo")],
)
def test_each_kind_of_preference_training_of_axolotl_is_a_method(
    tmp_path: Path, change: str, method: str
) -> None:
    config = written(tmp_path, bring(tmp_path, QLORA + change))
    assert config.method.type == method


def test_axolotls_plain_text_becomes_pre_training(tmp_path: Path) -> None:
    text = "datasets: [{path: books.txt, type: completion}]\nadapter: lora\nlearning_rate: 1e-4\n"
    config = written(tmp_path, bring(tmp_path, text))
    assert (config.method.type, config.training.max_length) == ("pretrain", 512)


def test_all_weights_without_an_adapter_are_trained_and_converted(tmp_path: Path) -> None:
    text = "datasets: [{path: rows.jsonl, type: alpaca}]\nlearning_rate: 1e-5\nlora_r: 8\n"
    found = bring(tmp_path, text)
    assert written(tmp_path, found).lora.kind == "full"
    assert set(left(found)) == {"lora_r"}


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (QLORA.replace("adapter: qlora", "adapter: llama-adapter"), "adapter: llama-adapter cannot be"),
        (QLORA + "rl: simpo\n", "rl: simpo cannot be imported"),
        (FACTORY.replace("stage: sft", "stage: ppo"), "stage: ppo cannot be imported; train a reward model"),
        (FACTORY.replace("finetuning_type: lora", "finetuning_type: oft"), "oft cannot be imported"),
        (QLORA.replace("num_epochs: 4", "num_epochs: many"), "is not a number"),
        ("- 1\n", "holds no settings"),
        (QLORA.replace("lora_r: 32", "lora_r: 4096"), "lora.rank"),
    ],
)
def test_what_no_config_of_ours_can_say_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        bring(tmp_path, text)


def test_the_command_writes_a_file_that_loads_and_never_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(QLORA)
    out = tmp_path / "ours.yaml"
    arguments = [str(tmp_path / "theirs.yaml"), "-o", str(out), "--json"]
    done = CliRunner().invoke(import_, arguments, catch_exceptions=False)
    told = json.loads(done.stdout)
    assert (told["trainer"], told["out"]) == ("axolotl", str(out))
    assert {"key", "value", "reason"} == set(told["left"][0])
    assert yaml.safe_load(out.read_text()) == told["config"]
    assert load_config(out).name == told["config"]["name"]
    before = out.read_text()
    again = CliRunner().invoke(import_, arguments)
    assert "exists" in str(again.exception)
    assert out.read_text() == before
