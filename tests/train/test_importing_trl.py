"""TRL's configs, with alignment-handbook's mixtures, and torchtune's say the same in ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import UsageError
from tests.train.imports import bring, changed, lost, same, written

TRL = """
model_name_or_path: org/model
dataset_name: org/data
use_peft: true
lora_r: 16
lora_alpha: 32
lora_target_modules: [q_proj, v_proj]
load_in_4bit: true
learning_rate: 2.0e-5
num_train_epochs: 1
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
max_length: 2048
lr_scheduler_type: cosine
warmup_ratio: 0.1
eval_strategy: steps
eval_steps: 100
save_strategy: "no"
report_to: [wandb]
bf16: true
logging_steps: 5
push_to_hub: true
"""
HANDBOOK = """
model_name_or_path: org/model
dataset_mixture:
  datasets:
    - {id: org/one, config: default, split: train_prefs, columns: [chosen, rejected], weight: 1.0}
    - {id: org/two, split: train, weight: 0.5}
  test_split_size: 1000
  seed: 0
beta: 0.01
loss_type: sigmoid
learning_rate: 5.0e-7
num_train_epochs: 1
eval_strategy: steps
eval_steps: 100
"""
TUNE = """
output_dir: /tmp/torchtune/lora
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, path: /tmp/t.model, max_seq_len: 1024}
model:
  _component_: torchtune.models.llama3_1.qlora_llama3_1_8b
  lora_attn_modules: [q_proj, v_proj, output_proj]
  apply_lora_to_mlp: true
  apply_lora_to_output: false
  lora_rank: 64
  lora_alpha: 128
  lora_dropout: 0.0
checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer, output_dir: "${output_dir}"}
dataset: {_component_: torchtune.datasets.alpaca_cleaned_dataset, packed: true, split: "train[:95%]"}
dataset_val: {_component_: torchtune.datasets.alpaca_cleaned_dataset, split: "train[95%:]"}
run_val_every_n_steps: 50
batch_size: 2
batch_size_val: ${batch_size}
optimizer: {_component_: torch.optim.AdamW, fused: true, lr: 3e-4, weight_decay: 0.02}
lr_scheduler:
  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
  num_warmup_steps: 100
loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}
epochs: 1
gradient_accumulation_steps: 8
clip_grad_norm: 1.0
dtype: bf16
metric_logger: {_component_: torchtune.training.metric_logging.WandBLogger, project: tune}
"""


def test_trls_values_arrive_under_our_keys(tmp_path: Path) -> None:
    found = bring(tmp_path, TRL)
    config = written(tmp_path, found)
    assert found.trainer == "TRL"
    assert config.method.type == "supervised"
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (16, 32, 0.05)
    assert (config.lora.target_modules, config.quantization.double) == (("q_proj", "v_proj"), False)
    training = config.training
    assert (training.batch_size, training.accumulation, training.epochs) == (4, 2, 1)
    assert (training.learning_rate, training.max_length, training.warmup) == (2e-5, 2048, 0.1)
    assert (training.schedule, training.precision) == ("cosine", "bf16")
    assert found.config["data"]["train"] == [{"path": "hf://org/data", "split": "train"}]
    assert found.config["data"]["eval"] == {"path": "hf://org/data", "split": "test"}
    assert (found.config["evaluation"], "checkpoints" in found.config) == ({"every": 100}, False)
    assert config.tracking.to == ("wandb",)
    assert set(changed(found)) == {"trainer", "assistant_only_loss"}
    assert {"model_name_or_path", "logging_steps", "push_to_hub"} == set(same(found))


@pytest.mark.parametrize(
    ("line", "name", "options", "method"),
    [
        ("loss_type: ipo", "x.yaml", {}, "dpo"),
        ("desirable_weight: 0.5", "x.yaml", {}, "kto"),
        ("center_rewards_coefficient: 0.01", "x.yaml", {}, "reward"),
        ("packing: true", "x.yaml", {}, "supervised"),
        ("beta: 0.1", "orpo/config.yaml", {}, "orpo"),
        ("beta: 0.1", "config_dpo.yaml", {}, "dpo"),
        ("beta: 0.1", "x.yaml", {"method": "kto"}, "kto"),
    ],
)
def test_which_of_trls_trainers_it_is_for_is_known_by_keys_folder_or_word(
    tmp_path: Path, line: str, name: str, options: dict[str, str], method: str
) -> None:
    found = bring(tmp_path, f"{TRL}{line}\n", name, **options)
    assert written(tmp_path, found).method.type == method
    assert "trainer" not in changed(found)


def test_a_mixture_as_in_the_alignment_handbook_is_several_sources(tmp_path: Path) -> None:
    found = bring(tmp_path, HANDBOOK)
    assert found.trainer == "TRL, with a mixture as in alignment-handbook"
    assert (found.config["method"]["type"], found.config["method"]["beta"]) == ("dpo", 0.01)
    assert found.config["data"]["train"] == [
        {"path": "hf://org/one", "split": "train_prefs"},
        {"path": "hf://org/two", "split": "train", "weight": 0.5},
    ]
    assert found.config["data"]["eval"] == {"share": 0.05}
    assert found.config["lora"] == {"kind": "full"}
    assert {"use_peft", "datasets[1].weight", "test_split_size"} <= set(changed(found))


def test_a_mixer_names_data_sets_and_their_parts(tmp_path: Path) -> None:
    text = TRL.replace(
        "dataset_name: org/data", "dataset_mixer: {org/a: 1.0}\ndataset_splits: [train_x, test_x]"
    )
    data = bring(tmp_path, text, "sft/c.yaml").config["data"]
    assert data["train"] == [{"path": "hf://org/a", "split": "train_x"}]
    assert data["eval"] == {"path": "hf://org/a", "split": "test_x"}


def test_torchtunes_components_arrive_under_our_keys(tmp_path: Path) -> None:
    found = bring(tmp_path, TUNE)
    config = written(tmp_path, found)
    assert found.trainer == "torchtune"
    assert (config.name, config.method.type, config.method.packing) == ("lora", "supervised", True)
    assert (config.lora.rank, config.lora.alpha) == (64, 128)
    modules = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (config.lora.target_modules, config.quantization.type) == (modules, "nf4")
    assert found.config["data"]["train"] == [{"path": "hf://yahma/alpaca-cleaned", "split": "train"}]
    assert found.config["data"]["eval"] == {"share": 0.05}
    training = config.training
    assert (training.batch_size, training.accumulation, training.epochs) == (2, 8, 1)
    assert (training.learning_rate, training.weight_decay, training.max_length) == (3e-4, 0.02, 1024)
    assert (training.schedule, training.warmup, training.precision) == ("cosine", 100, "bf16")
    assert (config.evaluation.every, config.tracking.project) == (50, "tune")
    assert set(changed(found)) == {"dataset._component_", "dataset_val._component_"}
    assert set(lost(found)) == {"dataset.train_on_input", "dataset_val.train_on_input"}


def test_torchtunes_loss_says_the_method(tmp_path: Path) -> None:
    text = TUNE.replace(
        "torchtune.modules.loss.LinearCrossEntropyLoss", "torchtune.rlhf.loss.DPOLoss, beta: 0.2"
    )
    text = text.replace("alpaca_cleaned_dataset", "stack_exchange_paired_dataset")
    found = bring(tmp_path, text)
    assert found.config["method"] == {"type": "dpo", "beta": 0.2}
    columns = {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}
    assert found.config["data"]["train"][0]["columns"] == columns


def test_torchtunes_own_files_and_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("frage,antwort\n1+1?,2\n")
    dataset = "torchtune.datasets.instruct_dataset, source: csv, data_files: rows.csv, "
    dataset += "column_map: {input: frage, output: antwort}, new_system_prompt: Kurz."
    text = TUNE.replace(
        'torchtune.datasets.alpaca_cleaned_dataset, packed: true, split: "train[:95%]"', dataset
    )
    columns = {"prompt": "frage", "completion": "antwort", "system": "=Kurz."}
    assert bring(tmp_path, text).config["data"]["train"] == [{"path": "rows.csv", "columns": columns}]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (TRL + "reward_funcs: [accuracy]\n", "rewards are Python functions"),
        (TRL + "loss_type: apo_zero\n", "loss_type: apo_zero cannot be imported"),
        (TRL + "beta: 0.1\n", "say which with --method"),
        (TRL.replace("dataset_name: org/data", "max_steps: 5"), "nothing here says what to train on"),
        (
            TUNE + "teacher_model: {_component_: torchtune.models.llama3.llama3_8b}\n",
            "distillation is not here",
        ),
        (TUNE + "ppo_epochs: 1\n", "PPO is not here"),
        (TUNE.replace("dataset:", "other:").replace("dataset_val:", "more:"), "dataset: "),
        (TUNE.replace("torchtune.datasets.alpaca_cleaned_dataset, p", "own.rows, p"), "no source of rows"),
        (TUNE.replace("lr: 3e-4, ", ""), "optimizer.lr"),
    ],
)
def test_what_no_config_of_ours_can_say_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        bring(tmp_path, text)
