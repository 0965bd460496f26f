"""A folder, a pattern or a data set is one source of rows; its parts are never mixed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from registry.errors import UsageError
from tests.train.containers.samples import LINES, ROWS, arrow_table, read_all, written
from train.dataset.checks.check import check_files
from train.dataset.containers.folders import find_parts, places_in
from train.dataset.containers.hub import fetch_snapshot
from train.dataset.containers.place import DataPath, label_of
from train.dataset.sources import hash_source, name_row, read_lines

FILES = [json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS]


def shards(folder: Path, *names: str) -> Path:
    """Write one row of `ROWS` into each file of `folder`."""
    for name, line in zip(names, FILES, strict=False):
        written(folder, name, line)
    return folder


def test_the_files_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    shards(tmp_path, "part-1.jsonl", "part-2.jsonl", "part-10.jsonl")
    written(tmp_path, "README.md", "# about")
    written(tmp_path, ".hidden.jsonl", "x")
    assert read_all(tmp_path) == ROWS[:3]
    assert [line.number for line in read_lines(tmp_path)] == [1, 2, 3]


def test_a_row_of_a_folder_is_named_with_its_file_and_counted_there(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", LINES + "\n")
    written(tmp_path, "b.jsonl", '{"prompt": "x", "completion": "y"}\nbad\n')
    assert name_row(tmp_path, 7) == f"{tmp_path / 'b.jsonl'} row 2"
    checked = check_files([tmp_path])
    (found,) = [one for one in checked.findings if one.rule.id == "D-JSON"]
    assert checked.ledger.locate(found.places[0]) == (str(tmp_path / "b.jsonl"), 2)
    assert checked.ledger.named(found.places[0]) == f"{tmp_path / 'b.jsonl'} row 2"


def test_a_pattern_means_its_files_in_order(tmp_path: Path) -> None:
    shards(tmp_path / "data", "b.jsonl", "a.jsonl", "deep/c.jsonl", "d.csv")
    assert read_all(tmp_path / "data" / "*.jsonl") == [ROWS[1], ROWS[0]]
    assert len(read_all(tmp_path / "**" / "*.jsonl")) == 3
    with pytest.raises(UsageError, match="matches no file"):
        read_all(tmp_path / "*.parquet")


def test_a_folder_whose_names_tell_parts_wants_one_named(tmp_path: Path) -> None:
    shards(tmp_path, "train.jsonl", "dev.jsonl", "test.jsonl")
    with pytest.raises(UsageError, match="has the parts test, train, validation; name one: split"):
        read_all(tmp_path)
    assert read_all(DataPath(tmp_path, "train")) == ROWS[:1]
    assert read_all(DataPath(tmp_path, "dev")) == read_all(DataPath(tmp_path, "validation")) == ROWS[1:2]
    with pytest.raises(UsageError, match="has no part 'extra'; its parts are test, train, validation"):
        read_all(DataPath(tmp_path, "extra"))
    assert [str(one) for one in places_in(tmp_path)] == [
        f"{tmp_path} ({part})" for part in ("test", "train", "validation")
    ]


def test_a_file_of_no_part_beside_parts_is_not_left_out_in_silence(tmp_path: Path) -> None:
    shards(tmp_path, "train.jsonl", "test.jsonl", "more.jsonl")
    with pytest.raises(UsageError, match=r"has files of the parts test, train, and of none: more\.jsonl"):
        read_all(DataPath(tmp_path, "train"))


def test_shards_of_the_hub_are_parts_by_their_names(tmp_path: Path) -> None:
    names = ("train_sft-00000-of-00002", "train_sft-00001-of-00002", "test_sft-00000-of-00001")
    shards(tmp_path, *(f"data/{name}.jsonl" for name in names))
    assert read_all(DataPath(tmp_path, "train_sft")) == ROWS[:2]


def test_the_configs_of_a_readme_say_which_files_are_which_part(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, rows in (("train-0", slice(0, 2)), ("train-1", slice(2, 3)), ("held", slice(3, 5))):
        pq.write_table(
            arrow_table().slice(rows.start, rows.stop - rows.start), tmp_path / f"data/{name}.parquet"
        )
    written(
        tmp_path,
        "README.md",
        "---\nlicense: mit\nconfigs:\n"
        "- config_name: main\n  default: true\n  data_files:\n"
        "  - {split: train, path: data/train-*}\n  - {split: test, path: [data/held.parquet]}\n"
        "- config_name: small\n  data_files: data/held.parquet\n---\n# x\n",
    )
    assert set(find_parts(tmp_path)) == {"train", "test", "small/train"}
    assert read_all(DataPath(tmp_path, "train")) == ROWS[:3]
    assert read_all(DataPath(tmp_path, "small/train")) == read_all(DataPath(tmp_path, "test")) == ROWS[3:]


@pytest.mark.parametrize("pattern", ["../x.jsonl", "/etc/passwd", "https://example.org/x.jsonl"])
def test_a_readme_leads_to_no_file_outside_of_its_folder(pattern: str, tmp_path: Path) -> None:
    written(tmp_path, "README.md", f"---\nconfigs:\n- config_name: a\n  data_files: '{pattern}'\n---\n")
    with pytest.raises(UsageError, match="which is not below the folder"):
        read_all(tmp_path)


def test_what_save_to_disk_writes_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one", num_shards=2)
    assert read_all(tmp_path / "one") == ROWS
    both = DatasetDict(train=Dataset.from_list(ROWS[:3]), test=Dataset.from_list(ROWS[3:]))
    both.save_to_disk(tmp_path / "both")
    assert read_all(DataPath(tmp_path / "both", "test")) == ROWS[3:]
    with pytest.raises(UsageError, match="has the parts train, test; name one: split: train"):
        read_all(tmp_path / "both")


def hub_cache(folder: Path) -> Path:
    """Return a cache of the hub that holds org/name at one revision, as its library lays it out."""
    home = folder / "datasets--org--name"
    for name in ("main", "v1"):
        written(home, f"refs/{name}", "0123abc")
    written(home, "snapshots/0123abc/train.jsonl", LINES)
    return folder


def test_a_data_set_of_the_hub_is_read_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache(tmp_path)))
    fetch_snapshot.cache_clear()
    assert read_all(Path("hf://org/name")) == ROWS
    assert read_all(DataPath(Path("hf://datasets/org/name@v1"), "train")) == ROWS
    assert read_all(tmp_path / "datasets--org--name") == ROWS
    with pytest.raises(
        UsageError, match=r"hf://org/other: is not in the hub's cache, and HF_HUB_OFFLINE"
    ) as caught:
        read_all(Path("hf://org/other"))
    assert "hf download" in str(caught.value)
    fetch_snapshot.cache_clear()


def test_one_file_has_the_hash_of_its_bytes_and_several_have_one_over_theirs(tmp_path: Path) -> None:
    shards(tmp_path, "a.jsonl", "b.jsonl")
    single = hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert hash_source(tmp_path / "a.jsonl") == single
    both = hash_source(tmp_path)
    assert both == hash_source(tmp_path / "*.jsonl") != single
    (tmp_path / "b.jsonl").rename(tmp_path / "0.jsonl")
    assert hash_source(tmp_path) != both


@pytest.mark.parametrize(
    ("path", "split", "label"),
    [
        ("rows.jsonl.gz", None, "rows"),
        ("chat", "train", "chat-train"),
        ("chat/*.parquet", None, "chat"),
        ("hf://org/name", "main/test", "name-main-test"),
    ],
)
def test_a_place_has_a_short_name_for_reports(path: str, split: str | None, label: str) -> None:
    assert label_of(DataPath(Path(path), split)) == label


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        read_all(tmp_path / "rows.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no data file"):
        read_all(tmp_path / "empty")
    path = written(tmp_path, "rows.jsonl", LINES)
    with pytest.raises(UsageError, match="has no part 'train'; leave split out"):
        read_all(DataPath(path, "train"))
