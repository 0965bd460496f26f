"""Parts share no content, nothing is lost, and a version leads back to the row of its source."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue

from registry import Registry
from registry.cli.main import run as wardrobe
from registry.errors import UsageError
from tests.fakes.adapters import make_adapter
from tests.fakes.base import SMOLLM2, make_base
from tests.train.planted.corpus import chat, clean, sentence
from train.dataset.checks.check import check_files
from train.dataset.split import SplitSettings, assign, source_row, split_file
from train.epoch.rows import hash_file

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data(folder: Path) -> Path:
    """Write 100 rows: 60 alone, and 20 pairs of near duplicates."""
    rows = [chat(sentence(f"q{n}", 30), sentence(f"a{n}", 30)) for n in range(80)]
    rows += [chat(sentence(f"q{n}", 30) + " more", sentence(f"a{n}", 30)) for n in range(20)]
    return write(folder / "rows.jsonl", rows)


def test_every_row_is_in_exactly_one_part_and_nothing_leaks(tmp_path: Path) -> None:
    source = data(tmp_path)
    (tmp_path / "parts").mkdir()
    found = split_file(source, SplitSettings(SHARES), tmp_path / "parts")
    assert (found.rows, found.clusters) == ({"train": 80, "validation": 10, "test": 10}, 80)
    parts = [found.files[f"{name}.jsonl"] for name in SHARES]
    lines = [line for part in parts for line in part.read_bytes().splitlines()]
    assert Counter(lines) == Counter(source.read_bytes().splitlines())
    rules = {finding.rule.id for finding in check_files(parts).findings}
    assert "D-LEAK" not in rules
    assert "D-NEAR" in rules


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    source, hashes = data(tmp_path), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        found = split_file(source, SplitSettings(SHARES, seed=seed), tmp_path / name)
        hashes.append({file: hash_file(path) for file, path in found.files.items()})
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_the_row_numbers_beside_a_part_are_those_of_the_source(tmp_path: Path) -> None:
    source = data(tmp_path)
    (tmp_path / "parts").mkdir()
    found = split_file(source, SplitSettings(SHARES), tmp_path / "parts")
    originals = source.read_bytes().splitlines()
    for row, line in enumerate(found.files["test.jsonl"].read_bytes().splitlines(), start=1):
        number = source_row(found.files["test.rows.txt"], row)
        assert number is not None
        assert originals[number - 1] == line
    assert source_row(found.files["test.rows.txt"], 11) is None


def test_a_group_stays_together_and_a_key_that_is_missing_is_an_error(tmp_path: Path) -> None:
    rows = [{**clean(str(n)), "user": n // 5} for n in range(100)]
    source = write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "parts").mkdir()
    found = split_file(source, SplitSettings(SHARES, group="user"), tmp_path / "parts")
    seen = [
        {json.loads(line)["user"] for line in found.files[f"{name}.jsonl"].read_text().splitlines()}
        for name in SHARES
    ]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 20
    with pytest.raises(UsageError, match="row 1: has no author"):
        split_file(source, SplitSettings(SHARES, group="author"), tmp_path / "parts")


def test_strata_keep_their_shares_in_every_part() -> None:
    chance = np.random.default_rng(0)
    strata = chance.choice(np.array([1, 2, 3], dtype=np.uint64), size=10_000, p=[0.9, 0.09, 0.01])
    clusters = np.arange(10_000)
    parts = assign(clusters, strata, [0.8, 0.1, 0.1], seed=3)
    assert np.bincount(parts).tolist() == [8000, 1000, 1000]
    for stratum in (1, 2, 3):
        counts = np.bincount(parts[strata == stratum], minlength=3)
        assert abs(counts - np.array([0.8, 0.1, 0.1]) * counts.sum()).max() <= 1.5


def test_a_cluster_is_never_parted_even_if_a_share_is_missed() -> None:
    clusters = np.array([0] * 90 + list(range(90, 100)))
    parts = assign(clusters, np.zeros(100, dtype=np.uint64), [0.5, 0.5], seed=0)
    assert set(parts[:90].tolist()) == {0}
    assert set(parts[90:].tolist()) == {1}


def test_too_few_clusters_and_a_bad_row_are_refused(tmp_path: Path) -> None:
    same = write(tmp_path / "same.jsonl", [clean("1")] * 10)
    (tmp_path / "parts").mkdir()
    with pytest.raises(UsageError, match="10 rows form 1 clusters, which leaves none for validation"):
        split_file(same, SplitSettings(SHARES), tmp_path / "parts")
    bad = write(tmp_path / "bad.jsonl", [clean("1"), {"question": "?"}])
    with pytest.raises(UsageError, match=r"row 2: has the keys \['question'\]"):
        split_file(bad, SplitSettings(SHARES), tmp_path / "parts")


def test_a_version_leads_to_its_data_set_and_the_row_of_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry.init(tmp_path / "root", make_base(tmp_path / "base", SMOLLM2), name="base")
    root = ["--root", str(registry.root)]
    assert (
        wardrobe([*root, "data", "split", str(data(tmp_path)), "--out", str(tmp_path / "out"), "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    train = Path(document["out"]) / "train.jsonl"
    assert Path(document["dataset"]).name == document["digest"]
    adapter = make_adapter(tmp_path / "adapter", shape=SMOLLM2)
    lineage: dict[str, JsonValue] = {
        "data": {"train": {"sha256": hash_file(train)}, "eval": {"sha256": "0" * 64}}
    }
    registry.publish("support", adapter, who="test", lineage=lineage)
    assert wardrobe([*root, "data", "trace", "support@1", "--row", "3", "--json"]) == 0
    unknown, used = sorted(json.loads(capsys.readouterr().out), key=lambda one: one["use"])
    assert (used["use"], used["dataset"], used["part"]) == ("train", document["digest"], "train.jsonl")
    source = (tmp_path / used["source"]).read_bytes().splitlines()
    assert source[used["source_row"] - 1] == train.read_bytes().splitlines()[2]
    assert (unknown["use"], unknown["dataset"]) == ("eval", None)


def test_split_writes_canonical_rows_and_refuses_a_bad_share_or_an_existing_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": sentence(f"i{n}"), "output": sentence(f"o{n}")} for n in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=2))
    split = ["data", "split", "rows.json", "--parts", "train=0.5,test=0.5"]
    assert wardrobe([*split, "--out", "a"]) == 0
    assert json.loads((tmp_path / "a/train.jsonl").read_text().splitlines()[0]) in rows
    assert wardrobe([*split, "--out", "b", "--canonical"]) == 0
    assert set(json.loads((tmp_path / "b/train.jsonl").read_text().splitlines()[0])) == {"messages"}
    assert wardrobe([*split, "--out", "a"]) == 1
    assert wardrobe(split) == 2
    assert wardrobe([*split, "--out", "c", "--parts", "train=2"]) == 2
    assert "'train=2' is not a part" in capsys.readouterr().err
