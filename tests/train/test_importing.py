"""Axolotl's configs say the same in ours, and whatever they say beyond that is named with its weight."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import UsageError
from tests.train.imports import bring, changed, lost, noted, same, written

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
early_stopping_patience: 3
weight_decay: 0.01
special_tokens: {pad_token: "<pad>"}
made_up_key: 3
"""
SMALL = "datasets: [{path: rows.jsonl, type: chat_template}]\nadapter: lora\nlora_r: 8\nlearning_rate: 1e-4\n"


def test_axolotls_values_arrive_under_our_keys(tmp_path: Path) -> None:
    found = bring(tmp_path, QLORA)
    config = written(tmp_path, found)
    assert found.trainer == "Axolotl"
    assert config.name == "tickets-qlora"
    assert (config.method.type, config.method.packing) == ("supervised", True)
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


def test_what_is_measured_and_kept_in_parts_of_an_epoch_stays_that(tmp_path: Path) -> None:
    found = bring(tmp_path, QLORA)
    assert found.config["data"]["eval"] == {"share": 0.05}
    assert found.config["evaluation"] == {"every": {"per_epoch": 4}}
    assert found.config["checkpoints"] == {"every": {"per_epoch": 1}, "best_by": "eval_loss"}
    assert found.config["early_stopping"] == {"patience": 3}


def test_every_key_without_a_counterpart_is_named_by_what_it_means_for_the_result(tmp_path: Path) -> None:
    found = bring(tmp_path, QLORA)
    assert set(changed(found)) == {"datasets[0].type"}
    assert set(lost(found)) == {"datasets[0].path", "made_up_key"}
    assert set(same(found)) == {
        "base_model",
        "model_type",
        "dataset_prepared_path",
        "flash_attention",
        "special_tokens",
    }
    assert "wardrobe init" in same(found)["base_model"]
    assert "that we know of" in lost(found)["made_up_key"]
    assert "no such file" in lost(found)["datasets[0].path"]


def test_a_data_set_on_a_hub_keeps_its_name_and_part(tmp_path: Path) -> None:
    train = bring(tmp_path, QLORA).config["data"]["train"]
    assert train[1] == {"path": "hf://some-org/chats", "split": "train", "columns": {"messages": "talk"}}


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ("rl: dpo\nrl_beta: 0.2", "dpo"),
        ("rl: ipo", "dpo"),
        ("rl: kto", "kto"),
        ("rl: orpo", "orpo"),
        ("reward_model: true\nnum_labels: 1\ncenter_rewards_coefficient: 0.01", "reward"),
    ],
)
def test_each_method_of_axolotl_that_is_here_is_a_method(tmp_path: Path, change: str, method: str) -> None:
    assert written(tmp_path, bring(tmp_path, SMALL + change)).method.type == method


def test_kto_gets_two_rows_at_once_where_theirs_has_one(tmp_path: Path) -> None:
    found = bring(tmp_path, SMALL + "rl: kto\nmicro_batch_size: 1\ngradient_accumulation_steps: 8\n")
    assert (found.config["training"]["batch_size"], found.config["training"]["accumulation"]) == (2, 4)
    assert "compares the rows" in changed(found)["batch size"]


def test_axolotls_plain_text_becomes_pre_training(tmp_path: Path) -> None:
    text = "datasets: [{path: books.txt, type: completion}]\nadapter: lora\nlearning_rate: 1e-4\n"
    found = bring(tmp_path, text)
    assert (found.config["method"]["type"], found.config["training"]["max_length"]) == ("pretrain", 512)
    assert {"lora_r", "sequence_len"} <= set(changed(found))


def test_all_weights_without_an_adapter_are_trained_and_that_is_said(tmp_path: Path) -> None:
    found = bring(tmp_path, "datasets: [{path: rows.jsonl, type: alpaca}]\nlearning_rate: 1e-5\nlora_r: 8\n")
    assert written(tmp_path, found).lora.kind == "full"
    assert "becomes a LoRA" in changed(found)["adapter"]
    assert "lora_r" in lost(found)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("alpaca_chat.load_qa", {"prompt": "question", "completion": "answer"}),
        ("context_qa.load_v2", {"prompt": "question", "completion": "answer"}),
        ("alpaca", None),
        ("chat_template", None),
        ("{field_instruction: frage, field_output: antwort, system_prompt: Kurz.}",
         {"instruction": "frage", "output": "antwort", "system": "=Kurz."}),
    ],
)  # fmt: skip
def test_a_prompt_format_becomes_the_columns_that_it_reads(
    tmp_path: Path, kind: str, columns: dict[str, str] | None
) -> None:
    found = bring(tmp_path, SMALL.replace("chat_template", kind))
    assert found.config["data"]["train"][0].get("columns") == columns


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        ("rl: dpo", ("chatml.intel", {"prompt": "question"})),
        ("rl: dpo", ("llama3.icr", {"prompt": "input"})),
        ("rl: kto", ("chatml.argilla", {"prompt": "instruction"})),
        ("rl: dpo", ("{field_prompt: a, field_chosen: b, field_rejected: c}",
                     {"prompt": "a", "chosen": "b", "rejected": "c"})),
        ("rl: kto", ("{field_prompt: a, field_completion: b, field_label: c}",
                     {"prompt": "a", "completion": "b", "label": "c"})),
        ("reward_model: true", ("bradley_terry.chat_template", {"prompt": "input"})),
    ],
)  # fmt: skip
def test_formats_of_preferences_become_columns_too(
    tmp_path: Path, change: str, columns: tuple[str, dict[str, str]]
) -> None:
    found = bring(tmp_path, SMALL.replace("chat_template", columns[0]) + change)
    assert found.config["data"]["train"][0]["columns"] == columns[1]


def test_a_column_that_the_file_already_calls_as_ours_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Say hi", "chosen": "Hi!", "rejected": "No"}\n')
    text = SMALL.replace("chat_template", "bradley_terry.chat_template") + "reward_model: true\n"
    found = bring(tmp_path, text)
    assert found.config["data"]["train"] == [{"path": "rows.jsonl"}]
    assert written(tmp_path, found).method.type == "reward"


def test_the_wording_of_a_prompt_that_is_lost_is_said(tmp_path: Path) -> None:
    kind = "{field_instruction: frage, field_output: antwort, format: 'Q: {instruction}'}"
    found = bring(tmp_path, SMALL.replace("chat_template", kind))
    assert "chat template" in lost(found)["datasets[0].type.format"]
    assert (
        "chat template"
        in changed(bring(tmp_path, SMALL.replace("chat_template", "alpaca")))["datasets[0].type"]
    )


def test_messages_with_other_names_are_named(tmp_path: Path) -> None:
    entry = "{path: rows.jsonl, type: chat_template, field_messages: talk, "
    entry += "message_property_mappings: {role: speaker, content: said}, roles: {assistant: [bot]}}"
    found = bring(tmp_path, SMALL.replace("{path: rows.jsonl, type: chat_template}", entry))
    assert {key.rpartition(".")[2] for key in lost(found)} >= {"role", "content", "roles"}


def test_sharegpts_turns_are_read_as_conversations(tmp_path: Path) -> None:
    entry = "{path: rows.jsonl, type: chat_template, field_messages: talk, "
    entry += "message_property_mappings: {role: from, content: value}}"
    found = bring(tmp_path, SMALL.replace("{path: rows.jsonl, type: chat_template}", entry))
    assert found.config["data"]["train"][0]["columns"] == {"conversations": "talk"}
    assert set(lost(found)) == {"datasets[0].path"}


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        (
            r"'model.layers.[\d]+.(mlp|self_attn).(up|q)_proj'",
            r"model.layers.[\d]+.(mlp|self_attn).(up|q)_proj",
        ),
        ("'q_proj, v_proj'", ["q_proj", "v_proj"]),
        ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
        (r"['.*\.q_proj']", r".*\.q_proj"),
        (r"[v_proj, '.*\.q_proj']", r"(?:(?:.*\.)?v_proj)|(?:.*\.q_proj)"),
        ("all-linear", "all-linear"),
    ],
)
def test_modules_are_names_or_one_pattern(tmp_path: Path, value: str, ours: object) -> None:
    found = bring(tmp_path, SMALL + f"lora_target_modules: {value}\n")
    assert found.config["lora"]["target_modules"] == ours
    assert written(tmp_path, found).lora.rank == 8


def test_two_parts_of_one_data_set_that_make_it_whole_are_one_source(tmp_path: Path) -> None:
    entries = "[{path: org/data, split: 'train[:50%]'}, {path: org/data, split: 'train[50%:]'}]"
    found = bring(tmp_path, SMALL.replace("[{path: rows.jsonl, type: chat_template}]", entries))
    assert found.config["data"]["train"] == [{"path": "hf://org/data", "split": "train"}]
    assert changed(found)["datasets[0].path.split"] == "they are one source here, with all its rows"


def test_a_data_set_that_is_named_twice_is_two_sources_with_names_of_their_own(tmp_path: Path) -> None:
    entries = "[{path: org/data, split: train}, {path: org/data, split: test}, {path: org/data}]"
    found = bring(tmp_path, SMALL.replace("[{path: rows.jsonl, type: chat_template}]", entries))
    train = written(tmp_path, found).data.train
    assert len({source.label for source in train}) == 3


def test_the_first_rows_of_a_part_become_so_many_rows(tmp_path: Path) -> None:
    found = bring(tmp_path, SMALL.replace("rows.jsonl", "org/data, split: 'train[:500]'"))
    assert found.config["data"]["train"][0]["limit"] == 500


@pytest.mark.parametrize(
    ("line", "key", "ours"),
    [
        ("warmup_steps: 100", "training.warmup", 100),
        ("warmup_steps: 0.1", "training.warmup", 0.1),
        ("warmup_ratio: 0.03", "training.warmup", 0.03),
        ("warmup_steps: 10\nwarmup_ratio: 0.1", "training.warmup", 10),
        ("save_steps: 50", "checkpoints.every", 50),
        ("save_steps: 0.25\nnum_epochs: 1", "checkpoints.every", {"per_epoch": 4}),
        ("save_steps: 0.25\nmax_steps: 40", "checkpoints.every", 10),
        ("save_strategy: epoch", "checkpoints.every", {"per_epoch": 1}),
        ("save_strategy: 'no'\nsave_steps: 50", "checkpoints", None),
        ("save_total_limit: 3", "checkpoints.keep", 3),
        ("val_set_size: 0.1\neval_strategy: epoch", "evaluation.every", {"per_epoch": 1}),
        ("val_set_size: 0.1\nload_best_model_at_end: true", "checkpoints.best_by", "eval_loss"),
        ("val_set_size: 0", "data.eval", None),
        ("val_set_size: 0.1", "data.eval", {"share": 0.1}),
        ("max_steps: 10", "training.steps", 10),
        ("batch_size: 8\nmicro_batch_size: 2", "training.accumulation", 4),
    ],
)
def test_what_is_counted_in_steps_shares_and_epochs_becomes_what_it_means(
    tmp_path: Path, line: str, key: str, ours: object
) -> None:
    found = bring(tmp_path, f"{SMALL}{line}\n")
    place: object = found.config
    for part in key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    assert place == ours
    assert written(tmp_path, found).name


def test_a_number_of_held_out_rows_is_a_share_of_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 200)
    assert bring(tmp_path, SMALL + "val_set_size: 20\n").config["data"]["eval"] == {"share": 0.1}
    unknown = bring(tmp_path, SMALL.replace("rows.jsonl", "org/data") + "val_set_size: 20\n")
    assert unknown.config["data"]["eval"] == {"share": 0.05}
    assert "not known" in changed(unknown)["val_set_size"]


def test_what_is_measured_without_held_out_rows_is_kept_and_said(tmp_path: Path) -> None:
    found = bring(tmp_path, SMALL + "eval_steps: 500\nearly_stopping_patience: 3\n")
    assert found.config["evaluation"] == {"every": 500}
    assert {"eval_steps", "early_stopping_patience"} <= set(lost(found))


def test_a_config_for_pictures_is_named_first_of_all(tmp_path: Path) -> None:
    found = bring(tmp_path, SMALL + "processor_type: AutoProcessor\nlogging_steps: 1\n")
    assert "pictures" in lost(found)["processor_type"]
    assert "logging_steps" in same(found)


def test_a_folder_with_files_of_its_own_gives_a_source_for_each(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "d" / name).write_text('{"prompt": "a", "completion": "b"}\n')
    found = bring(tmp_path, SMALL.replace("rows.jsonl", "d, data_files: [a.jsonl, b.jsonl]"))
    assert [one["path"] for one in found.config["data"]["train"]] == ["d/a.jsonl", "d/b.jsonl"]
    found = bring(tmp_path, SMALL.replace("rows.jsonl", "json, data_files: d/a.jsonl"))
    assert [one["path"] for one in found.config["data"]["train"]] == ["d/a.jsonl"]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (QLORA.replace("adapter: qlora", "adapter: llama-adapter"), "adapter: llama-adapter cannot be"),
        (QLORA + "rl: simpo\n", "rl: simpo cannot be imported"),
        (QLORA + "rl: grpo\n", "rewards are Python functions"),
        (QLORA + "rl: ebft\n", "rl: ebft cannot be imported"),
        (QLORA + "process_reward_model: true\n", "single steps"),
        (QLORA + "diffusion: {noise_schedule: cosine}\n", "diffusion language model"),
        (QLORA.replace("num_epochs: 4", "num_epochs: many"), "is not a number"),
        (QLORA.replace("lora_r: 32", "lora_r: 4096"), "lora.rank"),
        (SMALL.replace("chat_template", "input_output"), "segments"),
        (
            SMALL.replace("datasets: [{path: rows.jsonl, type: chat_template}]", "base_model: a/b"),
            "datasets: ",
        ),
        (SMALL.replace("rows.jsonl", "'${NOWHERE}/rows.jsonl'"), "variable NOWHERE, which is not set"),
    ],
)
def test_what_no_config_of_ours_can_say_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        bring(tmp_path, text)


def test_a_variable_of_the_environment_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "somewhere")
    found = bring(tmp_path, SMALL.replace("rows.jsonl", "'${WHERE}/rows.jsonl'"))
    assert found.config["data"]["train"][0]["path"] == "somewhere/rows.jsonl"


def test_nothing_is_noted_twice(tmp_path: Path) -> None:
    keys = noted(bring(tmp_path, QLORA))
    assert len(keys) == len(set(keys))
