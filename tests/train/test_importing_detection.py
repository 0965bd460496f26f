"""What is not a config that is read is refused with what it is; nothing becomes a config by guessing."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import UsageError
from tests.train.imports import bring, lost

UNSLOTH = """
model: unsloth/Qwen2.5-0.5B
data: {dataset: tatsu-lab/alpaca, format_type: auto}
training: {training_type: lora, max_seq_length: 2048, num_epochs: 1, learning_rate: 0.0002, random_seed: 3407}
lora: {lora_r: 64, lora_alpha: 16, finetune_mlp_modules: true}
"""
AUTOTRAIN = """
task: llm-sft
base_model: org/model
project_name: mine
data: {path: org/rows, train_split: train}
params: {lr: 3e-5, epochs: 3, batch_size: 2, peft: true}
"""
AXOLOTL = "base_model: a/b\ndatasets: [{path: rows.jsonl}]\nadapter: lora\nlora_r: 8\n"


@pytest.mark.parametrize(
    ("text", "whose", "carried"),
    [
        (UNSLOTH, "Unsloth", "lora.rank 64, lora.alpha 16, training.learning_rate 0.0002"),
        (AUTOTRAIN, "AutoTrain", "data.train org/rows, training.learning_rate 3e-5"),
        ("checkpoint_dir: c\nlora_r: 8\ntrain: {epochs: 2}\n", "LitGPT", "lora.rank 8"),
        ("model: m\ndata: d\niters: 1000\nlora_parameters: {rank: 8}\n", "mlx-lm", "training.steps 1000"),
        ("train_type: lora\nlora_rank: 8\n", "ms-swift", "lora.rank 8"),
        ("input_features: []\noutput_features: []\nmodel_type: llm\n", "Ludwig", "nothing that is known"),
        ("actor_rollout_ref: {}\n", "verl", "nothing that is known"),
        ("worker: {}\nalgorithm: {}\ntrainer: {}\n", "verl (EasyR1)", "nothing that is known"),
        (
            "model_name_or_path: m\ndataset_mixer: {a/b: 1}\nwith_tracking: true\nlora_rank: 64\n",
            "open-instruct",
            "lora.rank 64",
        ),
        (
            "ablation: {use_ablate: false}\nmodel: {hf_model_ckpt: m}\nlora: {r: 32}\n",
            "LLM-Finetuning-Toolkit",
            "lora.rank 32",
        ),
    ],
)
def test_another_trainers_config_is_recognised_with_what_would_carry_over(
    tmp_path: Path, text: str, whose: str, carried: str
) -> None:
    with pytest.raises(UsageError) as raised:
        bring(tmp_path, text)
    assert f"is {whose}'s config, which is not read" in str(raised.value)
    assert carried in str(raised.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("on: [push]\njobs: {test: {runs-on: ubuntu-latest}}\n", "is a workflow"),
        ("name: ci\n'on': push\njobs: {}\n", "is a workflow"),
        ("compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\n", "is a config of accelerate's"),
        ("zero_optimization: {stage: 3}\n", "is a config of DeepSpeed's"),
        ("apiVersion: v1\nkind: Pod\n", "is a Kubernetes manifest"),
        ("services: {db: {image: postgres}}\n", "is a Docker Compose file"),
        ("repos: []\nx: 1\n", "is settings of pre-commit"),
        ("gpu: h100\nsecrets: [TOKEN]\n", "for a cloud"),
        ("model_name_or_path: a/b\ntemplate: qwen\ninfer_backend: vllm\n", "for inference"),
        ("model_name_or_path: a/b\ntemplate: qwen\nexport_dir: out\n", "for merging"),
        ("site_name: Docs\ntheme: material\n", r"is known here \(its keys: site_name"),
        ("learning_rate: 1e-4\nlora_r: 8\n", "is not a config of a trainer that is known here"),
        ("base_model: a/b\n", "is not a config of a trainer that is known here"),
        ("dataset: {made_up: true}\nbatch: 3\n", "is not a config of a trainer that is known here"),
        ("name: x\ndata: {train: r.jsonl}\nlora: {rank: 8}\ntraining: {epochs: 1}\n", "is not a config"),
    ],
)  # fmt: skip
def test_what_is_no_training_config_is_said_to_be_what_it_is(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        bring(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("- 1\n", "holds no settings but a list"),
        ("", "holds no settings but nothing"),
        ("just words\n", "holds no settings but one text"),
        (f"{AXOLOTL}---\n{AXOLOTL}", "holds several YAML documents"),
        (f"{AXOLOTL}lora_r: 16\n", "yaml:5: the key 'lora_r' occurs twice"),
        ("datasets: [{path: a.jsonl, path: b.jsonl}]\n", "the key 'path' occurs twice"),
        ("base_model: {{ model }}\nlora_r: {{ rank }}\n", "is a template"),
        ("{% for x in y %}\na: b\n{% endfor %}\n", "is a template"),
        (f"{AXOLOTL}1: x\n", "a key that YAML does not read as text: 1"),
        ("datasets: [{path: a\n", "is not valid YAML"),
        (f"{AXOLOTL}lora_alpha: [1, 2]\n", "is not a number"),
        (AXOLOTL.replace("[{path: rows.jsonl}]", "[3]"), "datasets: 3 cannot be imported"),
        (AXOLOTL.replace("lora_r: 8", "lora_r: yes"), "is not a number"),
    ],
)
def test_a_file_that_cannot_be_read_as_one_config_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        bring(tmp_path, text)


def test_anchors_and_merges_are_what_they_stand_for(tmp_path: Path) -> None:
    text = "base_model: a/b\n_usual: &usual {type: chat_template, path: b.jsonl}\n"
    text += "datasets: [{<<: *usual, path: a.jsonl}, *usual]\nadapter: lora\nlora_r: 8\n"
    train = bring(tmp_path, text).config["data"]["train"]
    assert [one["path"] for one in train] == ["a.jsonl", "b.jsonl"]


def test_a_config_that_only_shares_some_names_with_a_trainers_is_refused(tmp_path: Path) -> None:
    mine = "".join(f"my_own_{number}: {number}\n" for number in range(3))
    with pytest.raises(UsageError, match="3 of its 7 keys are none of it: my_own_0, my_own_1, my_own_2"):
        bring(tmp_path, AXOLOTL + mine)
    found = bring(tmp_path, AXOLOTL + mine, trainer="axolotl")
    assert [note.key for note in found.grave][-3:] == ["my_own_0", "my_own_1", "my_own_2"]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (AXOLOTL + "num_epochs: 1" + "0" * 400, "num_epochs|is not a number"),
        (AXOLOTL + 'output_dir: "a\\0b"\n', "holds a NUL character"),
        (AXOLOTL + "x: " + "{a: " * 400 + "1" + "}" * 400, "nested too deep"),
        (AXOLOTL + "x: &x [*x]\n", "an anchor contains itself"),
    ],
)
def test_hostile_values_are_refused_in_a_sentence(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        bring(tmp_path, text)


def test_json_with_tabs_is_read(tmp_path: Path) -> None:
    text = (
        '{\n\t"base_model": "m",\n\t"datasets": [{"path": "d.jsonl"}],\n\t"adapter": "lora", "lora_r": 8\n}'
    )
    assert bring(tmp_path, text).config["lora"]["rank"] == 8


def test_a_wrong_from_is_an_error_that_names_the_right_trainer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is Axolotl's by its keys, not trl's; leave --from out"):
        bring(tmp_path, AXOLOTL, trainer="trl")


def test_a_misspelt_key_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    found = bring(tmp_path, f"{AXOLOTL}lora_alhpa: 99\n")
    assert lost(found)["lora_alhpa"].endswith("(Axolotl); did you mean lora_alpha?")


def test_what_training_does_anyway_is_not_called_lost(tmp_path: Path) -> None:
    ours = 'roles_to_train: ["assistant"]\ntrain_on_eos: turn\nspecial_tokens: {pad_token: "<pad>"}\n'
    assert lost(bring(tmp_path, AXOLOTL + ours)) == lost(bring(tmp_path, AXOLOTL))
    other = lost(bring(tmp_path, AXOLOTL + 'roles_to_train: ["user"]\ntrain_on_eos: all\n'))
    assert {"roles_to_train", "train_on_eos"} <= set(other)
