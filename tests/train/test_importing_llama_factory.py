"""LLaMA-Factory's configs of both versions say the same in ours; its lists of data sets are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from tests.train.imports import bring, changed, lost, same, written

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
SMALL = "model_name_or_path: a/b\nstage: sft\nfinetuning_type: lora\ndataset: mine\ncutoff_len: 512\n"
NEW = """
model: org/m
peft_config: {name: lora, r: 16, lora_alpha: 32, target_modules: all}
quant_config: {name: bnb, quantization_bit: 4}
train_dataset: rows.jsonl
micro_batch_size: 1
global_batch_size: 8
cutoff_len: 2048
learning_rate: 1.0e-4
max_steps: 10
dist_config: {name: fsdp2}
"""


def listed(folder: Path, **entries: Any) -> None:
    """Write a list of data sets, and an empty file for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    for entry in entries.values():
        if "file_name" in entry:
            (folder / entry["file_name"]).write_text("[]")


def test_llama_factorys_values_arrive_under_our_keys(tmp_path: Path) -> None:
    listed(tmp_path / "data", own_rows={"file_name": "own.json"}, other_rows={"hf_hub_url": "some-org/rows"})
    found = bring(tmp_path, FACTORY)
    config = written(tmp_path, found)
    assert found.trainer == "LLaMA-Factory, version 0"
    assert (config.name, config.method.type) == ("lora", "supervised")
    assert found.config["data"]["train"] == [
        {"path": "data/own.json", "limit": 500, "name": "own_rows"},
        {"path": "hf://some-org/rows", "split": "train", "limit": 500, "name": "other_rows"},
    ]
    assert found.config["data"]["eval"] == {"share": 0.1}
    assert (config.lora.rank, config.lora.alpha, config.lora.target_modules) == (16, 32, "all-linear")
    assert config.quantization is not None
    training = config.training
    assert (training.batch_size, training.accumulation, training.epochs) == (2, 8, 2)
    assert (training.learning_rate, training.max_length, training.warmup) == (1e-4, 1024, 0.1)
    assert (training.schedule, training.precision) == ("cosine", "bf16")
    assert config.checkpoints.every == 200
    assert set(lost(found)) == {"template"}
    assert {"model_name_or_path", "do_train", "logging_steps"} <= set(same(found))


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
def test_each_stage_is_a_method(tmp_path: Path, change: str, method: str) -> None:
    assert written(tmp_path, bring(tmp_path, SMALL.replace("stage: sft", change))).method.type == method


@pytest.mark.parametrize("place", ["data", "repo/data", "repo/examples/data"])
def test_the_list_of_data_sets_is_found_beside_above_and_where_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    listed(tmp_path / place, mine={"file_name": "mine.json"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    found = bring(tmp_path, SMALL, "repo/examples/sft.yaml")
    assert found.config["data"]["train"][0]["path"] == f"{place}/mine.json"
    assert not lost(found)


def test_columns_of_a_list_are_the_columns_of_the_source(tmp_path: Path) -> None:
    listed(
        tmp_path / "data",
        mine={"file_name": "mine.json", "columns": {"prompt": "frage", "response": "antwort"}},
    )
    found = bring(tmp_path, SMALL)
    assert found.config["data"]["train"][0]["columns"] == {"instruction": "frage", "output": "antwort"}


@pytest.mark.parametrize(
    ("stage", "entry", "columns"),
    [
        ("sft", {"formatting": "sharegpt", "columns": {"messages": "talk"}}, {"conversations": "talk"}),
        ("sft", {"formatting": "sharegpt", "columns": {"messages": "talk"},
                 "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                          "assistant_tag": "assistant"}}, {"messages": "talk"}),
        ("dpo", {"ranking": True, "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}},
         {"instruction": "q", "chosen": "good", "rejected": "bad"}),
        ("kto", {"columns": {"prompt": "q", "response": "a", "kto_tag": "ok"}},
         {"instruction": "q", "output": "a", "label": "ok"}),
        ("pt", {"columns": {"prompt": "body"}}, {"text": "body"}),
    ],
)  # fmt: skip
def test_formats_pairs_and_tags_of_a_list_are_read(
    tmp_path: Path, stage: str, entry: dict[str, Any], columns: dict[str, str]
) -> None:
    listed(tmp_path / "data", mine={"file_name": "mine.json", **entry})
    found = bring(tmp_path, SMALL.replace("stage: sft", f"stage: {stage}"))
    assert found.config["data"]["train"][0]["columns"] == columns
    assert not lost(found)


def test_what_a_list_says_that_has_no_counterpart_is_named(tmp_path: Path) -> None:
    entry = {
        "file_name": "mine.json",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "images": "pictures"},
        "tags": {"role_tag": "speaker", "assistant_tag": "bot"},
        "ranking": True,
    }
    listed(tmp_path / "data", mine=entry)
    named = {key.rpartition(".")[2] for key in lost(bring(tmp_path, SMALL))}
    assert named >= {"images", "role_tag", "assistant_tag", "ranking"}


def test_part_subset_and_number_of_a_data_set_on_a_hub_stay(tmp_path: Path) -> None:
    entry = {"hf_hub_url": "org/rows", "subset": "english", "split": "test", "num_samples": 40}
    listed(tmp_path / "data", mine=entry)
    train = bring(tmp_path, SMALL + "max_samples: 100\n").config["data"]["train"]
    assert train == [{"path": "hf://org/rows", "split": "english/test", "limit": 40, "name": "mine"}]


def test_a_data_set_that_no_list_has_is_said(tmp_path: Path) -> None:
    found = bring(tmp_path, SMALL)
    assert "which is not here" in lost(found)["dataset"]
    listed(tmp_path / "data", other={"file_name": "other.json"})
    assert "does not have it" in lost(bring(tmp_path, SMALL))["dataset"]


def test_names_of_a_hub_stand_alone_where_the_folder_is_the_hub(tmp_path: Path) -> None:
    text = SMALL.replace("mine", "org/rows") + "dataset_dir: ONLINE\n"
    assert bring(tmp_path, text).config["data"]["train"] == [{"path": "hf://org/rows", "split": "train"}]


def test_last_answers_alone_are_learnt_where_theirs_masks_the_history(tmp_path: Path) -> None:
    assert bring(tmp_path, SMALL + "mask_history: true\n").config["data"]["answers"] == "last"


def test_frozen_layers_are_the_trained_ones_of_the_roots_base(tmp_path: Path) -> None:
    text = SMALL.replace("finetuning_type: lora", "finetuning_type: freeze\nfreeze_trainable_layers: 2")
    lora = bring(tmp_path, text, layers=lambda: 8).config["lora"]
    assert (lora["kind"], lora["layers"]) == ("full", [6, 7])
    pro = bring(tmp_path, text + "use_llama_pro: true\n", layers=lambda: 8).config["lora"]
    assert pro["layers"] == [3, 7]
    with pytest.raises(UsageError, match="how many layers"):
        bring(tmp_path, text)


def test_another_adapter_that_vllm_cannot_swap_becomes_a_lora_and_that_is_said(tmp_path: Path) -> None:
    found = bring(tmp_path, SMALL.replace("finetuning_type: lora", "finetuning_type: oft"))
    assert (found.config["lora"]["kind"], found.config["lora"]["rank"]) == ("lora", 8)
    assert "LoRA of rank 8" in changed(found)["finetuning_type"]


def test_version_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    found = bring(tmp_path, NEW)
    config = written(tmp_path, found)
    assert found.trainer == "LLaMA-Factory, version 1"
    assert (config.lora.rank, config.lora.alpha, config.lora.target_modules) == (16, 32, "all-linear")
    assert config.quantization is not None
    training = config.training
    assert (training.batch_size, training.accumulation, training.steps) == (1, 8, 10)
    assert (training.max_length, training.learning_rate) == (2048, 1e-4)
    assert found.config["data"]["train"] == [{"path": "rows.jsonl"}]
    assert not changed(found)
    assert not lost(found)


def test_a_list_of_version_1_gives_a_source_for_each_entry(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "list.yaml").write_text(
        "pairs: {path: org/pairs, split: train_prefs, converter: pair}\n"
        "own: {path: data/own.jsonl, source: local, size: 50, converter: pair}\n"
    )
    (tmp_path / "data" / "own.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    found = bring(tmp_path, NEW.replace("rows.jsonl", "data/list.yaml"))
    assert found.config["method"]["type"] == "dpo"
    assert found.config["data"]["train"] == [
        {"path": "hf://org/pairs", "split": "train_prefs"},
        {"path": "data/own.jsonl", "limit": 50},
    ]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (SMALL.replace("stage: sft", "stage: ppo"), "stage: ppo cannot be imported; train a reward model"),
        (SMALL.replace("stage: sft", "stage: dpo\npref_loss: simpo"), "pref_loss: simpo cannot"),
        (SMALL.replace("finetuning_type: lora", "finetuning_type: galore"), "galore cannot be imported"),
        (SMALL.replace("dataset: mine", "template: qwen"), "nothing here says what to train on"),
        (NEW.replace("name: lora", "name: prompt"), "prompt cannot be imported"),
        (NEW.replace("train_dataset: rows.jsonl", "eval_dataset: rows.jsonl"), "train_dataset"),
    ],
)
def test_what_no_config_of_ours_can_say_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        bring(tmp_path, text)
