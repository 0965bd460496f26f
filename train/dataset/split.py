"""Parts for training, validation and test that share no content.

Owns the assignment of rows to parts. Rows that are equal, nearly equal, ask the same, or belong to one
group are one cluster, and a cluster is never split. Invariants: the same file, seed and settings give the
same bytes; every row of the file is in exactly one part.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import UsageError
from train.dataset.checks.clusters import Clusters
from train.dataset.checks.relations import relate
from train.dataset.checks.scan import answer_text, open_sketches, sketched_text
from train.dataset.checks.sketches import SIMILAR
from train.dataset.columns import FORMS, RowColumns, text_hash
from train.dataset.containers.place import name_of
from train.dataset.forms import canonical, read_sample
from train.dataset.forms.mapping import PLAIN, RowMapping, require_columns
from train.dataset.records import CheckWatcher, Malformed, Unwatched
from train.dataset.room import room
from train.dataset.sources import RawRow, Where, hash_source, read_lines, size_of
from train.epoch.rows import row_error

if TYPE_CHECKING:
    from pydantic import JsonValue

ANSWER = "answer"
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How to split: shares by part, the seed, and the keys whose values stay together or spread evenly.

    `stratify` may also be `answer`: the last answer. With `canonical` the rows are rewritten in the
    canonical form, else they stay as they are. `reading` says how the rows are read,
    `accepted` which findings a person has accepted.
    """

    shares: Mapping[str, float]
    seed: int = 0
    group: str | None = None
    stratify: str | None = None
    canonical: bool = False
    reading: RowMapping = PLAIN
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataSplit:
    """A finished split: files by name, rows by part, and the facts for the manifest."""

    files: dict[str, Path]
    rows: dict[str, int]
    clusters: int
    facts: dict[str, JsonValue]


@room()
def split_file(
    path: Where, settings: SplitSettings, folder: Path, progress: CheckWatcher | None = None
) -> DataSplit:
    """Write the parts of the file at `path` into `folder`, each with the source's row numbers beside it.

    Raises: UsageError: a row that cannot be read or lacks a key, or too few clusters for a part.
    """
    columns, clusters, strata = _read(path, settings, progress or Unwatched())
    parts = assign(clusters, strata, list(settings.shares.values()), settings.seed)
    counts = np.bincount(parts, minlength=len(settings.shares)).tolist()
    rows = dict(zip(settings.shares, counts, strict=True))
    found = int(np.unique(clusters).size)
    for name, count in rows.items():
        if count == 0:
            fact = f"its {len(columns)} rows form {found} clusters, which leaves none for {name}"
            raise UsageError(str(path), fact, "give fewer parts, or more rows that differ")
    files = _write(
        path, list(settings.shares), parts, folder, settings.reading if settings.canonical else None
    )
    return DataSplit(files, rows, found, _facts(path, settings, columns, rows, found))


@contextmanager
def new_folder(target: Path | None) -> Iterator[Path]:
    """Give a temporary folder, which becomes `target` (if given) when the block ends well."""
    if target is None:
        with tempfile.TemporaryDirectory(prefix="wardrobe-data-") as folder:
            yield Path(folder)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        parts = Path(folder) / "parts"
        parts.mkdir()
        yield parts
        parts.rename(target)


def assign(clusters: Labels, strata: NDArray[np.uint64], shares: Sequence[float], seed: int) -> Labels:
    """Return the part (0 …) of every row, from its cluster and its stratum.

    Large clusters are placed first, each into the part that lacks most; what a stratum leaves over or
    short is carried to the next one, so that the whole keeps its shares.
    """
    names, first, sizes = np.unique(clusters, return_index=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(names.size)
    order = order[np.lexsort((-sizes[order], strata[first][order]))]
    goal = np.array(shares) / sum(shares)
    missing = np.zeros(goal.size)
    chosen = np.empty(names.size, dtype=np.int64)
    stratum_of, previous = strata[first], None
    totals = dict(zip(*_totals(stratum_of, sizes), strict=True))
    for cluster in order.tolist():
        stratum = int(stratum_of[cluster])
        if stratum != previous:
            missing, previous = missing + goal * totals[stratum], stratum
        part = int(missing.argmax())
        chosen[cluster] = part
        missing[part] -= sizes[cluster]
    return chosen[np.searchsorted(names, clusters)]


def _totals(strata: NDArray[np.uint64], sizes: Labels) -> tuple[list[int], list[int]]:
    values, inverse = np.unique(strata, return_inverse=True)
    return values.tolist(), np.bincount(inverse, weights=sizes).astype(int).tolist()


def _read(
    path: Where, settings: SplitSettings, progress: CheckWatcher
) -> tuple[RowColumns, Labels, NDArray[np.uint64]]:
    require_columns(path, settings.reading)
    progress.phase("splitting", size_of([path]), in_bytes=True)
    columns, groups, strata = RowColumns(), array("Q"), array("Q")
    with open_sketches([path], settings.reading) as sketches:
        for line in read_lines(path):
            row, sample = _parse(path, line, settings.reading)
            columns.add(line.number, sample, 0, 0)
            sketches.add(sketched_text(sample))
            if settings.group:
                groups.append(_value_hash(path, line, row, settings.group))
            if settings.stratify == ANSWER:
                strata.append(text_hash(answer_text(sample)))
            elif settings.stratify:
                strata.append(_value_hash(path, line, row, settings.stratify))
            progress.advance(line.size)
        if not len(columns):
            raise UsageError(str(path), "holds no rows", "write one JSON object per line")
        bound = Clusters.of(relate(columns, sketches, progress).bound)
    bound.join_equal(np.frombuffer(groups, dtype=np.uint64))
    flat = np.frombuffer(strata, dtype=np.uint64) if strata else np.zeros(len(columns), dtype=np.uint64)
    return columns, bound.labels(), flat


def _parse(path: Where, line: RawRow, reading: RowMapping) -> tuple[Any, Any]:
    try:
        row = line.parse()
        return row, read_sample(row, reading)
    except Malformed as error:
        raise row_error(path, line.number, error, "correct it; see `wardrobe data check`") from error


def _value_hash(path: Where, line: RawRow, row: Mapping[str, Any], key: str) -> int:
    if key not in row:
        raise row_error(path, line.number, f"has no {key}", "add it, or leave the option out")
    return text_hash(json.dumps(row[key], sort_keys=True))


def _write(
    path: Where, names: Sequence[str], parts: Labels, folder: Path, rewrite: RowMapping | None
) -> dict[str, Path]:
    files = {name: folder / name for part in names for name in (f"{part}.jsonl", f"{part}.rows.txt")}
    rows = [files[f"{part}.jsonl"].open("wb") for part in names]
    numbers = [files[f"{part}.rows.txt"].open("w") for part in names]
    try:
        for line, part in zip(read_lines(path), parts.tolist(), strict=True):
            rows[part].write(_written(line, rewrite) + b"\n")
            numbers[part].write(f"{line.number}\n")
    finally:
        for file in (*rows, *numbers):
            file.close()
    return files


def _written(line: RawRow, rewrite: RowMapping | None) -> bytes:
    if rewrite is not None:
        return _dumped(canonical(read_sample(line.parse(), rewrite)))
    # An item of an array may stand over several lines.
    return _dumped(line.parse()) if b"\n" in line.data else line.data


def _dumped(row: object) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(row).encode()


def _facts(
    path: Where, settings: SplitSettings, columns: RowColumns, rows: Mapping[str, int], clusters: int
) -> dict[str, JsonValue]:
    forms: Iterable[int] = np.unique(columns["form"]).tolist()
    return {
        "format": "wardrobe-dataset",
        "version": 1,
        "source": {
            "name": name_of(path),
            "sha256": hash_source(path),
            "size": size_of([path]),
            "rows": len(columns),
            "forms": [FORMS[form].value for form in forms],
        },
        "split": {
            "seed": settings.seed,
            "shares": dict(settings.shares),
            "group": settings.group,
            "stratify": settings.stratify,
            "canonical": settings.canonical,
            "columns": dict(settings.reading.columns),
            "accepted": list(settings.accepted),
            "clusters": clusters,
            "similarity": SIMILAR,
        },
        "parts": dict(rows),
    }


def source_row(numbers: Path, row: int) -> int | None:
    """Return the source's row of `row` of a part, from the part's `.rows.txt`; None past its end."""
    with numbers.open() as file:
        found = next(itertools.islice(file, row - 1, row), None)
    return None if found is None else int(found)
