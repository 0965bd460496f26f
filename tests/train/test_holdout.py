"""A share of the rows is held out by clusters, the same one at every run, and told in the lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.records import BaseModelInfo
from tests.train.planted.corpus import chat, sentence
from train.config import parse_config
from train.dataset.split import SplitSettings, split_file
from train.epoch.holdout import hold_out, read_files
from train.jobs.plan import make_plan
from train.methods import method_of
from train.settings.data import DataSettings


def rows(count: int, seed: str = "") -> list[dict[str, Any]]:
    """Return `count` rows that differ."""
    return [chat(sentence(f"{seed}q{number}"), sentence(f"{seed}a{number}")) for number in range(count)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(*train: Any, share: float = 0.1) -> DataSettings:
    """Return the settings of a share held out of `train`."""
    return DataSettings.model_validate({"train": [str(one) for one in train], "eval": {"share": share}})


def test_the_rows_are_those_that_data_split_would_take(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", rows(60))
    held = hold_out(settings(path), 0.1, seed=3)
    (tmp_path / "parts").mkdir()
    found = split_file(path, SplitSettings({"train": 0.9, "eval": 0.1}, seed=3), tmp_path / "parts")
    numbers = found.files["eval.rows.txt"].read_text().split()
    assert [str(row) for row in held.numbers["rows"]] == numbers
    assert (held.count, held.of) == (6, 60)


def test_rows_that_are_alike_stay_together_also_across_sources(tmp_path: Path) -> None:
    first, other = rows(40, "x"), rows(40, "y")
    first_path = write(tmp_path / "first.jsonl", [*first, *first[:20]])
    other_path = write(tmp_path / "other.jsonl", [*other, *first[20:]])
    held = hold_out(settings(first_path, other_path, share=0.2), 0.2, seed=0)
    texts: dict[bool, set[str]] = {True: set(), False: set()}
    for path in (first_path, other_path):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            texts[number in held.numbers[path.stem]].add(line)
    assert texts[True] & texts[False] == set()
    assert all(0 < len(found) < 30 for found in held.numbers.values())


def test_the_same_seed_holds_out_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    data = settings(write(tmp_path / "rows.jsonl", rows(80)))
    first = hold_out(data, 0.1, seed=1)
    assert first == hold_out(data, 0.1, seed=1)
    assert first.sha256() == hold_out(data, 0.1, seed=1).sha256()
    assert first.numbers != hold_out(data, 0.1, seed=2).numbers


def test_every_row_is_trained_on_or_held_out_and_the_numbers_are_told(tmp_path: Path, tokenizer: Any) -> None:
    write(tmp_path / "a.jsonl", rows(30, "a"))
    write(tmp_path / "b.jsonl", rows(30, "b"))
    value = {"name": "x", "data": {"train": ["a.jsonl", "b.jsonl"], "eval": {"share": 0.2}}}
    config = parse_config(value, "test", tmp_path)
    files, held = read_files(config, method_of(config).read, tokenizer)
    assert held is not None
    assert held.count == files["eval"].report.rows == 12
    for label in ("a", "b"):
        trained = {item.row for item in files[label].items}
        assert trained.isdisjoint(held.numbers[label])
        assert trained | set(held.numbers[label]) == set(range(1, 31))
        assert held.facts(label)["held_out"]["rows"] == len(held.numbers[label])  # type: ignore[index, call-overload]
    assert held.facts("eval") == {"share": 0.2, "of": 60, "clusters": 60}


@pytest.mark.parametrize(
    ("method", "made"),
    [
        (
            {"type": "dpo"},
            lambda n: {"prompt": sentence(f"q{n}"), "chosen": sentence(f"c{n}"), "rejected": "no"},
        ),
        (
            {"type": "kto"},
            lambda n: {"prompt": sentence(f"q{n}"), "completion": sentence(f"c{n}"), "label": n > 9},
        ),
        ({"type": "pretrain"}, lambda n: {"text": sentence(f"t{n}")}),
        (
            {
                "type": "grpo",
                "max_answer_tokens": 8,
                "reward": {"graders": [{"type": "regex", "pattern": "x"}]},
            },
            lambda n: {"prompt": sentence(f"p{n}")},
        ),
    ],
    ids=["dpo", "kto", "pretrain", "grpo"],
)
def test_every_method_can_hold_out_a_share(method: Any, made: Any, tmp_path: Path, tokenizer: Any) -> None:
    write(tmp_path / "rows.jsonl", [made(number) for number in range(20)])
    value = {"name": "x", "method": method, "data": {"train": "rows.jsonl", "eval": {"share": 0.25}}}
    config = parse_config(value, "test", tmp_path)
    files, held = read_files(config, method_of(config).read, tokenizer)
    assert held is not None
    assert files["train"].report.rows + files["eval"].report.rows == 20
    assert held.count == 5


def test_rows_that_are_all_alike_cannot_be_held_out(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", rows(1) * 30)
    with pytest.raises(UsageError, match="holds out 0 of 30 rows, which form 1 clusters"):
        hold_out(settings(path), 0.1, seed=0)


@pytest.mark.parametrize(
    "held", [{"share": 0.1, "path": "x"}, {}, {"share": 0.1, "split": "test"}, {"share": 1}]
)
def test_eval_is_a_path_or_a_share(held: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        parse_config({"name": "x", "data": {"train": "a.jsonl", "eval": held}}, "test", tmp_path)


def test_sources_may_be_parts_of_one_data_set_and_held_out_rows_another(tmp_path: Path) -> None:
    train = [{"path": "chat", "split": "train"}, {"path": "chat", "split": "more"}, {"path": "hf://org/name"}]
    value = {"name": "x", "data": {"train": train, "eval": {"path": "chat", "split": "test"}}}
    found = parse_config(value, "test", tmp_path).data.files
    assert {label: str(place) for label, place in found.items()} == {
        "chat-train": f"{tmp_path / 'chat'} (train)",
        "chat-more": f"{tmp_path / 'chat'} (more)",
        "name": "hf://org/name",
        "eval": f"{tmp_path / 'chat'} (test)",
    }
    value["data"]["train"] = [train[0], train[0]]  # type: ignore[index]
    with pytest.raises(UsageError, match="names two sources 'chat-train'"):
        parse_config(value, "test", tmp_path)


def test_a_share_is_part_of_the_plan_and_a_held_out_path_is_not(tmp_path: Path) -> None:
    def plan(held: Any) -> dict[str, Any]:
        config = parse_config({"name": "x", "data": {"train": "a", "eval": held}}, "test", tmp_path)
        return dict(make_plan(config, BaseModelInfo("tiny", tmp_path, "sha256:0", None, {}), {}).settings)

    assert plan("one.jsonl") == plan("two.jsonl")
    assert plan({"share": 0.1}) != plan({"share": 0.2})
