"""`wardrobe train import`: YAML on stdout, what matters on stderr, a whole file or none, and a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.fakes.base import make_base
from train.config import load_config
from train.importing.cli import import_

AXOLOTL = """
base_model: some/base
datasets:
  - path: rows.jsonl
    type: chat_template
adapter: lora
lora_r: 8
lora_target_modules: [q_proj, v_proj]
micro_batch_size: 2
num_epochs: 1
sequence_len: 64
learning_rate: 2e-4
logging_steps: 1
flash_attention: true
special_tokens: {eos_token: "<end>"}
"""
ROW = (
    '{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello hello"}]}\n'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "theirs.yaml").write_text(AXOLOTL)
    (tmp_path / "rows.jsonl").write_text(ROW * 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    """Run the command as a shell does; an error of ours is left in the result."""
    return CliRunner().invoke(import_, list(arguments))


def make_root(folder: Path) -> str:
    """Make a root for a tiny base and return its path."""
    from registry.store import Registry

    Registry.init(folder / "root", make_base(folder / "base"), name="tiny")
    return str(folder / "root")


def test_without_out_the_config_is_printed_as_yaml_and_nothing_else(folder: Path) -> None:
    done = call("theirs.yaml")
    (folder / "ours.yaml").write_text(done.stdout)
    assert done.stdout.count("\n") > 20
    assert load_config(folder / "ours.yaml").lora.rank == 8
    assert yaml.safe_load(done.stdout)["data"]["train"] == [{"path": "rows.jsonl"}]


def test_what_changes_the_result_is_a_warning_each_and_the_rest_one_line(folder: Path) -> None:
    lines = call("theirs.yaml").stderr.splitlines()
    assert lines[0].startswith("warning: lost: special_tokens: ")
    assert lines[1] == "nothing that is learnt depends on base_model, flash_attention, logging_steps"
    assert len(lines) == 2


def test_paths_count_from_the_folder_of_out(folder: Path) -> None:
    (folder / "configs").mkdir()
    done = call("theirs.yaml", "-o", "configs/ours.yaml")
    assert done.stdout == "configs/ours.yaml\n"
    found = load_config(folder / "configs" / "ours.yaml")
    assert found.data.train[0].path.resolve() == folder / "rows.jsonl"


def test_the_file_is_new_and_whole_and_never_an_old_one(folder: Path) -> None:
    done = call("theirs.yaml", "-o", "ours.yaml", "--json")
    told = json.loads(done.stdout)
    assert (told["trainer"], told["out"]) == ("Axolotl", "ours.yaml")
    assert {"key": "lora_r", "value": 8, "ours": "lora.rank"} in told["taken"]
    assert [one["key"] for one in told["lost"]] == ["special_tokens"]
    assert {"key", "value", "reason"} == set(told["unneeded"][0])
    before = (folder / "ours.yaml").read_text()
    assert yaml.safe_load(before) == told["config"]
    again = call("theirs.yaml", "-o", "ours.yaml")
    assert "exists" in str(again.exception)
    assert (folder / "ours.yaml").read_text() == before


def test_a_refused_config_leaves_no_file(folder: Path) -> None:
    (folder / "theirs.yaml").write_text(AXOLOTL + "rl: ebft\n")
    done = call("theirs.yaml", "-o", "ours.yaml")
    assert done.exit_code != 0
    assert sorted(path.name for path in folder.iterdir()) == ["rows.jsonl", "theirs.yaml"]


def test_check_ends_with_a_table_of_what_is_taken_over_changed_and_lost(folder: Path) -> None:
    done = call("theirs.yaml", "-o", "ours.yaml", "--check", "--root", make_root(folder))
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["Axolotl:"]
    assert ["taken", "over", "lora_r", "8", "lora.rank"] in rows
    assert any(row[:2] == ["lost", "special_tokens"] for row in rows)
    assert "nothing that is learnt depends on base_model" in done.stdout
    assert "train check: fine, 3 rows on tiny" in done.stderr
    assert done.stdout.endswith("ours.yaml\n")


def test_check_leaves_the_printed_config_alone(folder: Path) -> None:
    done = call("theirs.yaml", "--check", "--root", make_root(folder))
    assert yaml.safe_load(done.stdout)["lora"]["rank"] == 8
    assert "taken over" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("[q_proj, v_proj]", "[c_attn]", "which the base does not have"),
        ("rows.jsonl", "missing.jsonl", "missing.jsonl"),
        ("lora_r: 8", "lora_r: 64", "exceeds this root's max_lora_rank"),
    ],
)
def test_check_fails_as_train_check_would_and_writes_nothing(
    folder: Path, old: str, new: str, fact: str
) -> None:
    (folder / "theirs.yaml").write_text(AXOLOTL.replace(old, new))
    done = call("theirs.yaml", "-o", "ours.yaml", "--check", "--root", make_root(folder))
    assert done.exit_code != 0
    assert fact in str(done.exception)
    assert "taken over" in done.stdout
    assert not (folder / "ours.yaml").exists()
