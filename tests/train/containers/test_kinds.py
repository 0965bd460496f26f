"""Every container gives the same rows, whatever the file is called."""

from __future__ import annotations

import bz2
import csv
import datetime as dt
import gzip
import io
import json
import lzma
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.train.containers.samples import LINES, ROWS, arrow_table, fault, outcomes, read_all, written
from train.dataset.containers.place import DataPath
from train.dataset.containers.streams import open_stream
from train.dataset.sources import read_lines, remarks, size_of


def table(delimiter: str) -> bytes:
    """Return `ROWS` as delimited text, as Python's csv writes it."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def parquet() -> bytes:
    """Return `ROWS` as Parquet, in groups of two rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(arrow_table(), sink, row_group_size=2)
    return bytes(sink.getvalue())


def arrow(writer: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    """Return `ROWS` as an Arrow file or stream."""
    sink = pa.BufferOutputStream()
    with writer(sink, arrow_table().schema) as opened:
        opened.write_table(arrow_table())
    return bytes(sink.getvalue())


def zstd(data: bytes) -> bytes:
    """Return `data` in one frame of zstd."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as opened:
        opened.write(data)
    return bytes(sink.getvalue())


CONTAINERS: dict[str, bytes] = {
    "rows.jsonl": LINES.encode(),
    "crlf.jsonl": LINES.replace("\n", "\r\n").encode(),
    "cr.jsonl": LINES.replace("\n", "\r").encode(),
    "bom.jsonl": LINES.encode("utf-8-sig"),
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16be.jsonl": LINES.encode("utf-16-be"),
    "utf32.jsonl": LINES.encode("utf-32"),
    "array.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
    "objects.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "objects.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "data.json": json.dumps({"version": "1", "data": ROWS, "note": "x"}, indent=2).encode(),
    "oneline.json": json.dumps({"info": {"a": [1]}, "rows": ROWS}).encode(),
    "own-key.json": json.dumps({"fragen": ROWS}).encode(),
    "rows.csv": table(","),
    "semicolon.csv": table(";"),
    "rows.tsv": table("\t"),
    "table.jsonl": table(","),
    "lines.csv": LINES.encode(),
    "utf16.csv": table(",").decode().encode("utf-16"),
    "rows.parquet": parquet(),
    "rows.arrow": arrow(pa.ipc.new_file),
    "stream.arrow": arrow(pa.ipc.new_stream),
    "rows.jsonl.gz": gzip.compress(LINES.encode()),
    "two-members.jsonl.gz": gzip.compress(LINES[:40].encode()) + gzip.compress(LINES[40:].encode()),
    "rows.jsonl.bz2": bz2.compress(LINES.encode()),
    "rows.jsonl.xz": lzma.compress(LINES.encode()),
    "rows.jsonl.zst": zstd(LINES.encode()),
    "rows.csv.gz": gzip.compress(table(",")),
    "rows.json.gz": gzip.compress(json.dumps(ROWS, indent=1).encode()),
    "utf16.jsonl.gz": gzip.compress(LINES.encode("utf-16")),
    "stream.arrow.zst": zstd(arrow(pa.ipc.new_stream)),
    "no-suffix": gzip.compress(LINES.encode()),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows_numbered_from_one(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, CONTAINERS[name])
    assert [line.number for line in read_lines(path)] == [1, 2, 3, 4, 5]
    assert read_all(path) == ROWS


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("utf16.jsonl", "UTF-16-LE with a byte order mark"),
        ("utf16be.jsonl", "UTF-16-BE without a byte order mark"),
        ("cr.jsonl", "CR alone"),
        ("table.jsonl", "holds CSV, its cells parted by commas, under the name .jsonl"),
        ("lines.csv", "holds JSON Lines under the name .csv"),
        ("objects.jsonl", "holds JSON objects over several lines"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_told_once(name: str, told: str, tmp_path: Path) -> None:
    ((rule, fact),) = remarks(written(tmp_path, name, CONTAINERS[name]))
    assert rule == "D-READ-AS"
    assert told in fact


@pytest.mark.parametrize(
    "name",
    ["rows.jsonl", "crlf.jsonl", "array.json", "data.json", "rows.csv", "rows.parquet", "rows.jsonl.gz"],
)
def test_of_an_ordinary_file_nothing_is_told(name: str, tmp_path: Path) -> None:
    assert list(remarks(written(tmp_path, name, CONTAINERS[name]))) == []


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "array.json", "rows.csv", "stream.arrow"])
def test_the_sizes_of_the_rows_are_the_bytes_of_the_file(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, CONTAINERS[name])
    assert 0.9 * size_of([path]) <= sum(line.size for line in read_lines(path)) <= size_of([path])


def test_one_object_is_one_row_pretty_or_not(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for indent in (None, 2):
        path = written(tmp_path, "row.json", json.dumps(chat, indent=indent))
        assert read_all(path) == [chat]
        assert list(remarks(path)) == []


@pytest.mark.parametrize(
    "row",
    [
        {"question": "a", "answers": [{"text": "b"}]},
        {"tools": [{"type": "function"}], "messages": [{"role": "user", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "a"}]},
        {"documents": [{"text": "a"}], "prompt": "b", "completion": "c"},
    ],
)
def test_a_row_with_a_list_of_objects_is_not_taken_for_a_list_of_rows(
    row: dict[str, object], tmp_path: Path
) -> None:
    assert read_all(written(tmp_path, "row.json", json.dumps(row, indent=1))) == [row]


def test_of_several_lists_in_one_object_split_names_the_one_to_read(tmp_path: Path) -> None:
    path = written(tmp_path, "both.json", json.dumps({"train": ROWS[:3], "test": ROWS[3:]}, indent=1))
    assert "holds the lists train, test" in str(fault(path))
    assert read_all(DataPath(path, "test")) == ROWS[3:]


def test_a_second_list_far_behind_the_first_is_no_silent_loss(tmp_path: Path) -> None:
    rows = [{"prompt": "q" * 2000, "completion": str(number)} for number in range(600)]
    path = written(tmp_path, "both.json", json.dumps({"data": rows, "more": ROWS}))
    found = outcomes(path)
    assert found[:-1] == [(number, "ok") for number in range(1, 601)]
    assert found[-1] == (601, "D-CONTAINER")
    assert "'more'" in str(fault(path))


def test_a_bad_first_row_does_not_make_another_container_of_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", '{"messages": [{"role":\n' + LINES)
    assert outcomes(path) == [(1, "D-TORN"), *((number, "ok") for number in range(2, 7))]


def test_the_separator_that_a_spreadsheet_writes_above_the_header_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", "sep=;\r\nprompt;completion\r\na, b;c\r\n")
    assert read_all(path) == [{"prompt": "a, b", "completion": "c"}]


def test_a_first_row_longer_than_what_is_looked_at_leaves_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", json.dumps({"prompt": "x" * (2 << 20)}) + "\nbad\n" + LINES)
    assert outcomes(path)[:3] == [(1, "ok"), (2, "D-JSON"), (3, "ok")]


def test_unnamed_columns_and_empty_cells_of_optional_keys_say_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", ",prompt,completion,system\n0,a,b,\n,c,,be brief\n")
    assert read_all(path) == [
        {"column 1": "0", "prompt": "a", "completion": "b"},
        {"prompt": "c", "completion": "", "system": "be brief"},
    ]


def test_json_in_the_cells_of_a_conversation_and_a_rating_are_values(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": '[{"x": 1}]'}]
    file = io.StringIO()
    csv.writer(file).writerows([["messages", "label"], [json.dumps(turns), "False"]])
    assert read_all(written(tmp_path, "rows.csv", file.getvalue())) == [{"messages": turns, "label": False}]
    answers = 'prompt,completion\na,"[{""x"": 1}]"\n'
    assert read_all(written(tmp_path, "answers.csv", answers)) == [
        {"prompt": "a", "completion": '[{"x": 1}]'}
    ]


def test_the_values_of_arrow_become_plain_json_and_null_is_as_if_absent(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "messages": [{"role": "user", "content": "a", "weight": None, "calls": [{"x": None, "y": 1}]}],
            "tools": None,
            "when": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            "price": Decimal("1.50"),
            "raw": b"caf\xc3\xa9",
            "binary": b"\xff",
            "score": float("nan"),
            "map": [("k", 1), ("l", None)],
            "kind": "b",
        },
        {"tools": "x", "kind": "a"},
    ]
    schema = pa.schema(
        [
            *pa.Table.from_pylist(
                [{k: v for k, v in rows[0].items() if k not in {"map", "tools", "kind"}}]
            ).schema,
            pa.field("map", pa.map_(pa.string(), pa.int64())),
            pa.field("tools", pa.string()),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
        ]
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    assert read_all(path) == [
        {
            "messages": [{"role": "user", "content": "a", "calls": [{"y": 1}]}],
            "when": "2026-01-02T03:04:05+00:00",
            "price": 1.5,
            "raw": "café",
            "binary": "/w==",
            "score": None,
            "map": {"k": 1, "l": None},
            "kind": "b",
        },
        {"tools": "x", "kind": "a"},
    ]


def test_json_columns_of_arrow_are_values(tmp_path: Path) -> None:
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": [1]}', None]))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"arguments": column, "n": [1, 2]}), path)
    assert read_all(path) == [{"arguments": {"a": [1]}, "n": 1}, {"n": 2}]


@pytest.mark.parametrize("magic", [b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff"])
def test_bytes_of_a_binary_container_are_not_taken_for_line_ends_or_letters(
    magic: bytes, tmp_path: Path
) -> None:
    for rest in (b"\r and no LF", "wide".encode("utf-16-le") * 50):
        path = tmp_path / "rows.bin"
        path.write_bytes(magic + rest)
        with path.open("rb") as file:
            stream = open_stream(path, file)
            assert (stream.file.read(), stream.remarks) == (magic + rest, ())
