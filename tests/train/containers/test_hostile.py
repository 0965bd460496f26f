"""Files that were made to hang, to crash or to mislead a reader are refused by their row or by their name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from registry.errors import UsageError
from train.dataset.containers import columnar
from train.dataset.containers.values import Cursor
from train.dataset.records import Malformed
from train.dataset.sources import hash_source, read_lines, remarks, sample_lines

ROW = '{"prompt": "a", "completion": "b"}'


def faults(path: Path) -> list[str]:
    found = []
    for line in read_lines(path):
        try:
            line.parse()
        except Malformed as error:
            found.append(f"{line.number} {error.rule} {error}")
    return found


@pytest.mark.parametrize("written", ["{row}\n{long}\n{row}\n", "[{row}, {long}, {row}]"])
def test_a_number_that_python_does_not_read_is_the_fault_of_its_row(tmp_path: Path, written: str) -> None:
    path = tmp_path / "rows.jsonl"
    long = '{"prompt": "a", "completion": "b", "id": ' + "9" * 5000 + "}"
    path.write_text(written.replace("{row}", ROW).replace("{long}", long))
    assert faults(path) == ["2 D-JSON has a number of more than 4300 digits"]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for read in (read_lines, remarks, hash_source, lambda where: sample_lines(where, 9)):
        with pytest.raises(UsageError, match="a pipe or a device, and rows are read more than once"):
            list(read(tmp_path / "pipe.jsonl"))


def test_a_device_is_refused() -> None:
    with pytest.raises(UsageError, match="a pipe or a device"):
        list(read_lines(Path("/dev/null")))


def test_two_columns_of_one_name_are_an_error_not_the_last_of_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["prompt", "prompt", "completion"]), path)
    assert faults(path) == ["1 D-CELLS the schema names the column 'prompt' twice"]


def test_a_moment_beyond_the_calendar_is_the_fault_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    feather.write_feather(pa.table({"prompt": ["a"], "at": pa.array([2**60], pa.timestamp("s"))}), path)
    (fault,) = faults(path)
    assert fault.startswith("1 D-CONTAINER rows.arrow has a value from here on that Python cannot hold")


def test_a_record_that_is_too_long_is_refused_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "LONGEST_BYTES", 1000)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["x" * 1000, "b"], "completion": ["a", "c"]}), path)
    assert faults(path) == ["1 D-CONTAINER is longer than 64 MiB"]


def test_a_long_value_is_read_in_few_tries(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"text": "x" * 4_000_000}))
    reads: list[int] = []
    with path.open("rb") as file:

        class Counting:
            def read(self, size: int) -> bytes:
                reads.append(size)
                return file.read(size)

        assert len(Cursor(Counting()).value()) == 4_000_012  # type: ignore[arg-type]
    assert len(reads) < 12
