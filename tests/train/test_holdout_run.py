"""A run from a table and a data set folder with a held-out share: trained, recorded and traced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.cli.main import run as wardrobe
from registry.store import Registry
from tests.train.planted.corpus import sentence
from tests.train.tiny import make_tiny_base, tiny_config, train
from train.dataset.containers.place import DataPath
from train.dataset.sources import hash_source

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]
ROWS = [{"prompt": f"{sentence(f'q{n}', 6)}?", "completion": sentence(f"a{n}", 6)} for n in range(30)]


def test_a_share_is_held_out_measured_and_told_in_the_lineage(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(f"{row['prompt']},{row['completion']}\n" for row in ROWS[:15])
    (tmp_path / "rows.csv").write_text(f"prompt,completion\n{lines}")
    (tmp_path / "chat").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[15:]), tmp_path / "chat" / "train.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:2]), tmp_path / "chat" / "test.parquet")
    registry = Registry.init(
        tmp_path / "root", make_tiny_base(tmp_path / "base", tokenizer), name="tiny-base"
    )
    sources = ["rows.csv", {"path": "chat", "split": "train"}]
    data = {"train": sources, "eval": {"share": 0.2}}
    finished = train(registry, tiny_config(tmp_path, data=data, training={"steps": 2, "max_length": 96}))
    assert finished.result.eval_loss is not None
    found: Any = registry.attestations("tiny", 1, "lineage")[0].body["data"]
    held = {label: found[label]["held_out"]["rows"] for label in ("rows", "chat-train")}
    assert sum(held.values()) == found["eval"]["rows"] == 6
    assert found["eval"]["share"] == 0.2
    assert {label: found[label]["rows"] + count for label, count in held.items()} == dict.fromkeys(held, 15)
    assert found["chat-train"]["sha256"] == hash_source(DataPath(tmp_path / "chat", "train"))
    assert wardrobe(["--root", str(tmp_path / "root"), "data", "trace", "tiny@1", "--json"]) == 0
    assert {one["use"] for one in json.loads(capsys.readouterr().out)} == {"rows", "chat-train"}


def test_data_split_of_a_folder_stores_rows_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name, half in (("part-1", ROWS[:15]), ("part-2", ROWS[15:])):
        pq.write_table(pa.Table.from_pylist(half), tmp_path / "in" / f"{name}.parquet")
    out = tmp_path / "out"
    options = ["--parts", "train=0.8,test=0.2", "--out", str(out)]
    assert wardrobe(["data", "split", str(tmp_path / "in"), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"train": 24, "test": 6}
    found = {name: (out / f"{name}.jsonl").read_text().splitlines() for name in ("train", "test")}
    numbers = {name: (out / f"{name}.rows.txt").read_text().split() for name in found}
    for name, rows in found.items():
        assert [json.loads(row) for row in rows] == [ROWS[int(number) - 1] for number in numbers[name]]
    assert wardrobe(["data", "check", str(out), "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 24
