"""A file in, a repaired file and its report out.

Owns the passes. Each reads the file once to mend and compare the rows, and once to write them; they go on
until a pass changes nothing, so a repaired file is not changed by repairing it again. Memory and disk are
those of `data check`. Invariant: the result appears whole, after its report, or not at all.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from registry.errors import Conflict, UsageError
from registry.storage import files
from train.dataset.checks import pairs, relations
from train.dataset.checks.findings import CATALOGUE, FindingLedger
from train.dataset.checks.relations import Related
from train.dataset.checks.scan import open_sketches, sketched_text
from train.dataset.columns import RowColumns
from train.dataset.containers.place import place_of
from train.dataset.forms.mapping import require_columns
from train.dataset.records import CheckWatcher, Unwatched
from train.dataset.repair.rows import RepairAction, mend_row
from train.dataset.repair.rules import LISTED, RepairSettings
from train.dataset.room import held, room
from train.dataset.sources import Where, read_lines, remarks, size_of

_PASSES = 8
REPORT = ".report.jsonl"


@dataclass(frozen=True, slots=True)
class Repaired:
    """A finished repair: rows before and after, and how often each rule did what, the most frequent first."""

    out: Path
    report: Path
    rows: int
    kept: int
    done: tuple[tuple[str, str, int], ...]


def repair_file(
    path: Where, out: Path, settings: RepairSettings, progress: CheckWatcher | None = None
) -> Repaired:
    """Write the rows of the file at `path`, repaired, to `out`, and what was done to OUT.report.jsonl.

    Raises: UsageError: the file cannot be read, holds no row, or no row is left; Conflict: `out` exists, or
        another process repairs to it; StorageFailed: the disk has no room.
    """
    if out.suffix != ".jsonl":
        raise UsageError(str(out), "would hold JSON Lines", "give it a name in .jsonl", param="out")
    report = out.with_name(out.name.removesuffix(".jsonl") + REPORT)
    for target in (out, report):
        if target.exists() and not settings.overwrite:
            raise Conflict(str(target), "exists", "name a new file, or allow --overwrite", param="out")
    if out.exists() and out.resolve() == place_of(path).path.resolve():
        raise Conflict(str(out), "is the file to be repaired", "name another one", param="out")
    require_columns(path, settings.reading)
    work = out.with_name(f".{out.name}.repair")
    files.make_directory(work)
    with room(out.parent), held(work, str(out)):
        try:
            return _repair(path, (out, report), work, settings, progress or Unwatched())
        finally:
            files.remove_tree(work)


def _repair(
    path: Where, targets: tuple[Path, Path], work: Path, settings: RepairSettings, progress: CheckWatcher
) -> Repaired:
    counts: Counter[tuple[str, str]] = Counter()
    numbers: array[int] | None = None
    source: Where = path
    rows = 0
    with (work / "report").open("w", encoding="utf-8") as report:
        if "D-BOM" in settings.rules:
            marks = (fact for rule, fact in remarks(path) if rule == "D-BOM")
            for fact in marks:
                _note(report, counts, RepairAction(1, "D-BOM", "changed", fact))
        for number in range(_PASSES):
            done = _Pass(source, work / f"rows-{number}.jsonl", settings)
            for change in done.run(progress):
                if number == 0 or change.action in {"changed", "dropped"}:
                    _note(report, counts, change if numbers is None else change.renumbered(numbers))
            rows = rows or done.rows
            numbers = done.kept if numbers is None else array("Q", (numbers[n - 1] for n in done.kept))
            source = done.target
            if not done.changed:
                break
    if not rows:
        raise UsageError(str(path), "holds no rows", "write one JSON object per line")
    if not numbers:
        raise UsageError(str(path), f"none of its {rows} rows is left", "apply fewer rules: --rules")
    (work / "report").replace(targets[1])
    done.target.replace(targets[0])
    often = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return Repaired(*targets, rows, len(numbers), tuple((*key, count) for key, count in often))


class _Pass:
    """One reading to mend and compare the rows, and one to write those that stay."""

    def __init__(self, source: Where, target: Path, settings: RepairSettings) -> None:
        self.target = target
        self.kept: array[int] = array("Q")
        self.rows = 0
        self.changed = False
        self._source, self._settings = source, settings

    def run(self, progress: CheckWatcher) -> Iterator[RepairAction]:
        """Yield what is done, row by row, while the rows are written."""
        columns, ledger = RowColumns(), FindingLedger([str(self._source)])
        progress.phase("comparing", size_of([self._source]), in_bytes=True)
        with open_sketches([self._source], self._settings.reading) as sketches:
            for line in read_lines(self._source):
                self.rows += 1
                found = mend_row(line, self._settings)
                if found.sample is not None:
                    columns.add(line.number, found.sample, 0, 0)
                    sketches.add(sketched_text(found.sample))
                progress.advance(line.size)
            related = relations.relate(columns, sketches, progress)
        relations.find_repeats(columns, related, ledger)
        relations.find_conflicts(columns, ledger)
        pairs.find_pair_faults(columns, ledger)
        pairs.find_rating_faults(columns, ledger)
        yield from self._write(_Decided(columns, related, ledger, self._settings.rules), progress)

    def _write(self, decided: _Decided, progress: CheckWatcher) -> Iterator[RepairAction]:
        progress.phase("writing", size_of([self._source]), in_bytes=True)
        with self.target.open("wb") as out:
            for line in read_lines(self._source):
                found = mend_row(line, self._settings)
                changes = (*found.changes, *decided.of(line.number))
                self.changed |= any(change.action in {"changed", "dropped"} for change in changes)
                if not any(change.action == "dropped" for change in changes):
                    out.write(found.data + b"\n")
                    self.kept.append(line.number)
                yield from changes
                progress.advance(line.size)


class _Decided:
    """Which rows go because another one says the same, and which contradict another; holds no texts."""

    def __init__(
        self, columns: RowColumns, related: Related, ledger: FindingLedger, rules: frozenset[str]
    ) -> None:
        places = columns["place"].copy()
        found = {one.rule.id: np.array(one.places, dtype=np.uint64) for one in ledger.findings}
        self._listed = {rule: frozenset(found[rule].tolist()) for rule in LISTED if rule in found}
        disputed = frozenset().union(*self._listed.values())
        self._origin: dict[str, dict[int, int]] = {}
        for rule, lead in (("D-DUPLICATE", related.first), ("D-NEAR", related.same)):
            if rule in rules and rule in found:
                rows = np.searchsorted(places, found[rule])
                origins = zip(found[rule].tolist(), places[lead[rows]].tolist(), strict=True)
                # Which of two answers to one question is right, a person says.
                self._origin[rule] = {
                    row: origin for row, origin in origins if rule == "D-DUPLICATE" or row not in disputed
                }

    def of(self, row: int) -> Iterator[RepairAction]:
        """Yield what is done about `row`."""
        for rule, origin in self._origin.items():
            if row in origin:
                yield RepairAction(row, rule, "dropped", of=origin[row])
        for rule, rows in self._listed.items():
            if row in rows:
                yield RepairAction(row, rule, "listed", CATALOGUE[rule].title)


def _note(report: TextIO, counts: Counter[tuple[str, str]], change: RepairAction) -> None:
    counts[change.rule, change.action] += 1
    told = {key: value for key, value in asdict(change).items() if value not in ("", 0)}
    report.write(json.dumps(told, ensure_ascii=False) + "\n")
