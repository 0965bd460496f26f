"""What is damaged, foreign or wrongly encoded is named with its row, and what lies before it is read."""

from __future__ import annotations

import gzip
import json
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.errors import UsageError
from tests.train.containers.samples import LINES, ROWS, arrow_table, fault, outcomes, written
from train.dataset.containers import line as line_module
from train.dataset.records import Malformed
from train.dataset.sources import read_lines
from train.epoch.rows import read_rows

MANY = "".join(
    json.dumps({"prompt": f"q {number}", "completion": f"{number * 7919 % 10007}"}) + "\n"
    for number in range(9000)
)


def zstd(data: bytes) -> bytes:
    """Return `data` in one frame of zstd."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as opened:
        opened.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(("name", "packed"), [("rows.jsonl.gz", gzip.compress), ("rows.jsonl.zst", zstd)])
def test_of_a_torn_stream_the_rows_before_the_end_are_read(name: str, packed: object, tmp_path: Path) -> None:
    assert callable(packed)
    path = written(tmp_path, name, packed(MANY.encode())[:-2000])
    found = outcomes(path)
    assert len(found) > 1000 or name.endswith(".zst")
    assert {rule for _, rule in found[:-1]} <= {"ok"}
    assert found[-1] == (len(found), "D-TORN")
    assert f"stream of {name} ends in the middle" in str(fault(path))


def test_flipped_bytes_in_a_gzip_file_are_told(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(MANY.encode()))
    data[-6] ^= 0xFF
    assert "is damaged (CRC check failed" in str(fault(written(tmp_path, "rows.jsonl.gz", bytes(data))))


def parquet(tmp_path: Path) -> bytes:
    """Return the bytes of a Parquet file."""
    pq.write_table(arrow_table(), tmp_path / "whole.parquet")
    return (tmp_path / "whole.parquet").read_bytes()


def test_a_damaged_parquet_file_is_an_error_in_words(tmp_path: Path) -> None:
    data = parquet(tmp_path)
    spoilt = data[:80] + bytes(60) + data[140:]
    for name, found in (
        ("torn.parquet", data[:-20]),
        ("spoilt.parquet", spoilt),
        ("short.parquet", data[:6]),
    ):
        error = fault(written(tmp_path, name, found))
        assert (error.rule, error.remedy) == ("D-CONTAINER", "copy or download it again")
        assert f"{name} is damaged" in str(error)


def test_a_torn_arrow_stream_is_an_error_in_words(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, arrow_table().schema) as opened:
        opened.write_table(arrow_table())
    path = written(tmp_path, "rows.arrow", bytes(sink.getvalue())[:-120])
    assert "rows.arrow is damaged" in str(fault(path))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PK\x03\x04rest", "ZIP archive or an Excel workbook"),
        (b"\x80\x04\x95rest", "a pickle"),
        (b"SQLite format 3\0", "SQLite"),
        (b"%PDF-1.7", "a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"name" + bytes(253) + b"ustar", "a tar archive"),
        (bytes(range(64)) * 4, "is binary"),
    ],
)
def test_what_is_no_container_of_rows_is_named_once(data: bytes, told: str, tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", data)
    assert outcomes(path) == [(1, "D-CONTAINER")]
    assert told in str(fault(path))
    assert fault(path).remedy


def test_training_names_file_row_and_remedy_of_a_container(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", "prompt,completion\na,b\na,b,c\n")
    with pytest.raises(UsageError, match=r"rows\.csv row 2: has 3 cells, and the header has 2; quote a cell"):
        read_rows(path)


@pytest.mark.parametrize(
    ("text", "row", "told"),
    [
        ("prompt,completion\na,b\na\nc,d\n", 2, "has 1 cells, and the header has 2"),
        ('prompt,completion\na,b\n"c,d\ne,f\n', 2, "opens a quote that nothing closes"),
        ("prompt,prompt\na,b\n", 1, "names the column 'prompt' twice"),
        ('prompt,completion\na,"b" c\n', 1, "is not a record of CSV"),
    ],
)
def test_a_record_that_does_not_fit_its_table_is_a_fault_of_that_row(
    text: str, row: int, told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "rows.csv", text)
    faults = {line.number: str(line.fault) for line in read_lines(path) if line.fault}
    assert list(faults) == [row]
    assert told in faults[row]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json"])
def test_latin_1_is_named_with_the_command_that_converts_it(name: str, tmp_path: Path) -> None:
    texts = {
        "rows.jsonl": LINES,
        "rows.json": json.dumps(ROWS, ensure_ascii=False),
        "rows.csv": "prompt,completion\nOù est le café?,là\n",
    }
    line = next(read_lines(written(tmp_path, name, texts[name].encode("cp1252"))))
    with pytest.raises(Malformed, match=r"as Windows-1252 \(Latin-1\) it would read '.*Où") as caught:
        line.parse()
    assert caught.value.rule == "D-ENCODING"
    assert caught.value.remedy == "convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"


def test_the_notation_of_python_is_recognised(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", "{'prompt': 'a', 'completion': 'b'}\n")
    assert "json.dumps" in fault(path).remedy


def test_an_encoding_that_a_row_does_not_tell_is_not_guessed_at(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "Это вопрос, ответьте на него", "completion": "Ответ"}, ensure_ascii=False)
    error = fault(written(tmp_path, "rows.jsonl", row.encode("cp1251")))
    assert str(error) == "is not UTF-8: byte 0xdd at position 13"
    assert "file -i" in error.remedy


def test_utf_16_that_breaks_off_is_told_at_the_row_where_it_does(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", LINES.encode("utf-16")[:-1])
    assert outcomes(path)[-1][1] == "D-ENCODING"


@pytest.mark.parametrize(
    ("text", "rule", "told"),
    [
        (json.dumps(ROWS, indent=2)[:-30], "D-TORN", "the file ends there"),
        (json.dumps(ROWS, indent=2).replace('"prompt"', "prompt"), "D-JSON", "in line 2 of the row, near"),
        (json.dumps({"data": ROWS}, indent=1)[:-9], "D-TORN", "the file ends there"),
        (json.dumps({"data": ROWS}, indent=1)[:-1], "D-TORN", "does not end"),
        (json.dumps(ROWS) + "x", "D-JSON", "something follows"),
    ],
)
def test_a_fault_in_json_over_several_lines_is_told_once(
    text: str, rule: str, told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "rows.json", text)
    assert [one for _, one in outcomes(path) if one != "ok"] == [rule]
    assert told in str(fault(path))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_a_row_without_end_is_refused_and_never_held_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("line", "paragraphs", "tables", "values"):
        monkeypatch.setattr(f"train.dataset.containers.{module}.LONGEST_BYTES", 1 << 20)
    monkeypatch.setattr("train.dataset.sources.LONGEST_BYTES", 1 << 20)
    starts = {
        "rows.json": '[{"prompt": "',
        "rows.jsonl": '{"prompt": "',
        "rows.csv": 'text,x\n"',
        "rows.txt": "",
    }
    packed = gzip.compress(starts[name].encode() + b"a" * (200 << 20), compresslevel=1)
    path = written(tmp_path, f"{name}.gz", packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = outcomes(path)
    assert [rule for _, rule in found] in (["D-CONTAINER"], ["D-CELLS"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10
    assert line_module.LONGEST_BYTES == 1 << 20
