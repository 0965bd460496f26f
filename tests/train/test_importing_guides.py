"""The configs that guides print, in sections and with names of their own, keep all of their meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from registry.errors import UsageError
from tests.train.imports import bring, changed, lost, same, written

# As a guide prints it: sections, a data set by path and type, modules in one text.
GUIDE = """
model:
  base_model: meta-llama/Meta-Llama-3-8B-Instruct
adapter: qlora
quant: 4bit
double_quant: true
load_in_4bit: true
lora_config:
  lora_r: 32
  lora_alpha: 64
  lora_dropout: 0.05
  target_modules: q_proj, k_proj, v_proj, o_proj
  bias: none
  task_type: CAUSAL_LM
dataset:
  path: ./data/training.jsonl
  type: chat
  chat_template: llama3
training:
  output_dir: ./output/model
  batch_size: 8
  gradient_accumulation_steps: 4
  epochs: 3
  learning_rate: 0.0002
  warmup_steps: 100
  logging_steps: 10
  save_steps: 500
  eval_steps: 500
  optim: adamw_8bit
  lr_scheduler: cosine
  weight_decay: 0.01
  fp16: false
  bf16: true
saving:
  save_safetensors: true
logging:
  wandb:
    project: fine-tuning
    entity: your-team
    name: llama3-8b-domain-adaptation
"""
OTHER_GUIDE = """
model:
  name: some-org/Some-7B
  quantization: {load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: false}
peft:
  method: lora
  r: 16
  alpha: 32
  dropout: 0.1
  target_modules: [q_proj, v_proj]
data:
  train_file: data/train.jsonl
  validation_file: data/valid.jsonl
  max_length: 1024
training:
  num_train_epochs: 3
  per_device_train_batch_size: 4
  lr: 2e-4
  scheduler: linear
  evaluation: {eval_steps: 50}
saving:
  save_steps: 50
  save_total_limit: 2
logging:
  report_to: [wandb, tensorboard]
"""


def everything(folder: Path, text: str) -> None:
    """Hold the result of the guide's config against all that it says."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "training.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    found = bring(folder, text)
    config = written(folder, found)
    lora = config.lora
    assert (lora.kind, lora.rank, lora.alpha, lora.dropout) == ("lora", 32, 64, 0.05)
    assert lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (config.quantization.type, config.quantization.double) == ("nf4", True)
    assert found.config["data"] == {"train": [{"path": "data/training.jsonl"}]}
    training = config.training
    assert (training.batch_size, training.accumulation, training.epochs) == (8, 4, 3)
    assert (training.learning_rate, training.weight_decay) == (2e-4, 0.01)
    assert (training.schedule, training.warmup) == ("cosine", 100)
    assert (training.optimiser, training.precision) == ("adamw_8bit", "bf16")
    assert (config.evaluation.every, config.checkpoints.every) == (500, 500)
    assert (config.tracking.to, config.tracking.project) == (("wandb",), "fine-tuning")
    assert set(changed(found)) == {"sequence_len"}
    assert set(lost(found)) == {"datasets[0].chat_template", "eval_steps"}
    assert {"base_model", "wandb_entity", "task_type", "logging_steps"} <= set(same(found))


def test_the_guides_config_keeps_all_of_its_meaning(tmp_path: Path) -> None:
    everything(tmp_path, GUIDE)


def test_a_config_whose_indentation_got_lost_is_put_together_again(tmp_path: Path) -> None:
    everything(tmp_path, re.sub(r"^ +", "", GUIDE, flags=re.MULTILINE))


def test_the_trainer_may_be_named_by_hand(tmp_path: Path) -> None:
    assert bring(tmp_path, GUIDE, trainer="axolotl").config == bring(tmp_path, GUIDE).config


def test_other_sections_and_names_of_guides_mean_the_same(tmp_path: Path) -> None:
    found = bring(tmp_path, OTHER_GUIDE)
    config = written(tmp_path, found)
    assert found.trainer == "Axolotl, in sections"
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (16, 32, 0.1)
    assert config.lora.target_modules == ("q_proj", "v_proj")
    assert (config.quantization.type, config.quantization.double) == ("nf4", False)
    assert found.config["data"]["train"] == [{"path": "data/train.jsonl", "name": "train"}] or found.config[
        "data"
    ]["train"] == [{"path": "data/train.jsonl"}]
    assert found.config["data"]["eval"] == "data/valid.jsonl"
    training = config.training
    assert (training.batch_size, training.epochs, training.max_length) == (4, 3, 1024)
    assert (training.learning_rate, training.schedule) == (2e-4, "linear")
    assert (config.evaluation.every, config.checkpoints.every, config.checkpoints.keep) == (50, 50, 2)
    assert config.tracking.to == ("wandb", "tensorboard")


@pytest.mark.parametrize("section", ["lora", "lora_config", "peft", "adapter", "qlora"])
def test_the_lora_may_stand_in_any_of_the_usual_sections(tmp_path: Path, section: str) -> None:
    text = f"{section}: {{r: 8, alpha: 16}}\ndatasets: [{{path: a.jsonl}}]\nbase_model: a/b\n"
    found = bring(tmp_path, text)
    assert (found.config["lora"]["rank"], found.config["lora"]["kind"]) == (8, "lora")
    assert ("quantization" in found.config) == (section == "qlora")


@pytest.mark.parametrize(
    "data", ["data.jsonl", "{train: data.jsonl}", "[data.jsonl]", "[{path: data.jsonl}]"]
)
def test_the_data_may_be_said_in_any_of_the_usual_ways(tmp_path: Path, data: str) -> None:
    text = f"model: {{base_model: a/b}}\nlora: {{r: 8}}\ndataset: {data}\n"
    assert bring(tmp_path, text).config["data"]["train"] == [{"path": "data.jsonl"}]


def test_sections_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing here says what to train on"):
        bring(tmp_path, "model: {base_model: a/b}\nlora: {r: 8}\ntraining: {epochs: 1}\n")
