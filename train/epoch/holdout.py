"""Held-out rows that are a share of the training rows.

Owns which rows those are. They are chosen as `wardrobe data split` chooses a part: rows that are equal,
nearly equal or ask the same, in whichever source, are never parted. Invariants: the same sources, share and
seed hold out the same rows; no row, and no row like it, is both trained on and held out.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import UsageError
from train.config import TrainConfig
from train.dataset.checks.clusters import Clusters
from train.dataset.checks.findings import pack, unpack
from train.dataset.checks.relations import relate
from train.dataset.checks.scan import sketched_text
from train.dataset.checks.sketches import Sketches, common_shingles
from train.dataset.columns import RowColumns
from train.dataset.containers.place import Where
from train.dataset.forms import read_prompt
from train.dataset.forms.mapping import RowMapping
from train.dataset.records import CanonicalRow, Malformed, Unwatched
from train.dataset.sources import RawRow, read_lines, sample_lines
from train.dataset.split import assign
from train.epoch.encoding import Example, Tokenizer
from train.epoch.items import ItemFile, TrainingItem
from train.epoch.rows import row_error
from train.rendering.examples import shared
from train.settings.data import EVAL, DataSettings, TrainingSource

if TYPE_CHECKING:
    from pydantic import JsonValue


RowReader = Callable[[Where, Tokenizer, TrainConfig, RowMapping], ItemFile[TrainingItem]]
"""What a method makes of a file's rows."""

_SAMPLED_LINES = 4096


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The rows that are held out: their numbers, by the label of their source.

    `clusters` are the sets that were kept whole; `of` counts all rows of the sources.
    """

    share: float
    numbers: Mapping[str, tuple[int, ...]]
    clusters: int
    of: int

    @property
    def count(self) -> int:
        """Return how many rows are held out."""
        return sum(map(len, self.numbers.values()))

    def sha256(self) -> str:
        """Return the SHA-256 (hex) of the held-out rows: a line for each, label and number, by label."""
        return _sha256(f"{label} {row}" for label in sorted(self.numbers) for row in self.numbers[label])

    def facts(self, label: str) -> dict[str, JsonValue]:
        """Return what the lineage says of a data file: which of its rows were held out, or what share."""
        if label == EVAL:
            return {"share": self.share, "of": self.of, "clusters": self.clusters}
        rows = self.numbers.get(label)
        return {} if rows is None else {"held_out": {"rows": len(rows), "sha256": _sha256(map(str, rows))}}


def read_files(
    config: TrainConfig, read: RowReader, tokenizer: Tokenizer
) -> tuple[dict[str, ItemFile[TrainingItem]], HeldOut | None]:
    """Return the items of every data file by its label, `eval` among them, and what was held out by share.

    Raises: UsageError: naming file and row; too few rows that differ for the share.
    """
    settings, readings = config.data, config.data.readings
    files = {
        label: read(place, tokenizer, config, readings[label]) for label, place in settings.files.items()
    }
    if settings.eval is None or settings.eval.share is None:
        return files, None
    held = hold_out(settings, settings.eval.share, config.seed)
    parted = {label: _parted(files[label], held.numbers[label]) for label in held.numbers}
    held_out = _joined([inside for _, inside in parted.values()])
    if not held_out.items:
        fact = f"all {held.count} held-out rows are longer than max_length and would be dropped"
        raise UsageError(config.name, fact, "raise training.max_length", param="data.eval")
    for label, (kept, inside) in parted.items():
        if not kept.items:
            fact = f"keeps no row to train on: {len(inside.items)} are held out"
            raise UsageError(str(settings.files[label]), fact, "give another share, or more rows that differ")
    files |= {label: kept for label, (kept, _) in parted.items()}
    return {**files, EVAL: held_out}, held


def hold_out(settings: DataSettings, share: float, seed: int) -> HeldOut:
    """Return which rows of the sources are held out: about `share` of each.

    Raises: UsageError: naming file and row; too few rows that differ.
    """
    sources = settings.train
    columns, strata = RowColumns(), array("Q")
    with Sketches(common_shingles(_sampled(sources))) as sketches:
        for at, source in enumerate(sources):
            for line in read_lines(source.place):
                sample = _sample(source, line)
                columns.add(pack(at, line.number), sample, 0, 0)
                sketches.add(sketched_text(sample))
                strata.append(at)
        labels = Clusters.of(relate(columns, sketches, Unwatched()).bound).labels()
    parts = assign(labels, np.frombuffer(strata, dtype=np.uint64), [1 - share, share], seed)
    clusters = int(np.unique(labels).size)
    chosen: dict[str, list[int]] = {source.label: [] for source in sources}
    for place in columns["place"][parts == 1].tolist():
        at, row = unpack(place)
        chosen[sources[at].label].append(row)
    rows = {label: tuple(found) for label, found in chosen.items()}
    held = HeldOut(share, rows, clusters, len(columns))
    if not 0 < held.count < len(columns):
        fact = f"holds out {held.count} of {len(columns)} rows, which form {clusters} clusters"
        remedy = "give another share, or more rows that differ"
        raise UsageError(f"data.eval share {share:g}", fact, remedy, param="data.eval")
    return held


def _parted(
    file: ItemFile[TrainingItem], rows: Sequence[int]
) -> tuple[ItemFile[TrainingItem], ItemFile[TrainingItem]]:
    """Return the items that are trained on, and those of `rows`."""
    inside = frozenset(rows)
    both = []
    for wanted in (False, True):
        items = tuple(item for item in file.items if (item.row in inside) is wanted)
        dropped = tuple(row for row in file.dropped if (row in inside) is wanted)
        both.append(ItemFile(items, dropped, _repeated(items) if file.repeated else 0))
    return both[0], both[1]


def _repeated(items: Sequence[TrainingItem]) -> int:
    """Return the tokens that items of one row have in common with the item before them."""
    pairs = ((one, other) for one, other in pairwise(items) if one.row == other.row)
    return sum(
        shared(one.input_ids, other.input_ids)
        for one, other in pairs
        if isinstance(one, Example) and isinstance(other, Example)
    )


def _joined(files: Sequence[ItemFile[TrainingItem]]) -> ItemFile[TrainingItem]:
    """Return the items of all files as one, their rows counted on."""
    items: list[TrainingItem] = []
    dropped: list[int] = []
    offset = 0
    for file in files:
        items += [_moved(item, offset) for item in file.items]
        dropped += [row + offset for row in file.dropped]
        offset = max((offset, *(item.row for item in items), *dropped))
    return ItemFile(tuple(items), tuple(dropped), sum(file.repeated for file in files))


def _moved(item: Any, offset: int) -> Any:
    return replace(item, row=item.row + offset) if offset else item


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _sample(source: TrainingSource, line: RawRow) -> CanonicalRow:
    try:
        return read_prompt(line.parse(), source.reading)[0]
    except Malformed as error:
        raise row_error(source.place, line.number, error, "correct it; see `wardrobe data check`") from error


def _sampled(sources: Sequence[TrainingSource]) -> Iterator[str]:
    for source in sources:
        for line in sample_lines(source.place, _SAMPLED_LINES // len(sources)):
            try:
                yield sketched_text(read_prompt(line.parse(), source.reading)[0])
            except Malformed:
                continue
