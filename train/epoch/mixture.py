"""Several files into one order of items: tasks drawn by size and temperature, replay, limits.

Pure: a function of the items, the settings and the seed. Rows are drawn and ordered by a hash of seed,
file and row, so no random generator's version matters. Invariants: the same input gives the same order on
every machine; an epoch has as many rows as the sources together (after their limits), plus the replay;
every task gets a row at least.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated

from pydantic import Field

from train.epoch.items import ItemFile, TrainingItem
from train.settings.data import REPLAY, DataSettings, TrainingSource

Row = tuple[TrainingItem, ...]
"""The items of one row."""


@dataclass(frozen=True, slots=True)
class MixtureShare:
    """What one task gives to an epoch.

    `available` rows are in its file (`limited` after its limit, which no document tells); `rows` are drawn,
    each seen `passes` times on average. `tokens` and `learnt_tokens` are those of the drawn rows.
    """

    available: int
    limited: Annotated[int, Field(exclude=True)]
    rows: int
    passes: float
    tokens: int
    learnt_tokens: int


@dataclass(frozen=True, slots=True)
class Mixture:
    """One epoch: its items in order, and what each task gave to it by the label of its file."""

    items: tuple[TrainingItem, ...]
    shares: Mapping[str, MixtureShare]


def mix(files: Mapping[str, ItemFile[TrainingItem]], settings: DataSettings, seed: int) -> Mixture:
    """Return one epoch; `files` are by their labels, as `settings.files` names them.

    A single source without replay keeps the order of its file.
    """
    pools = {one.label: _limited(_rows(files[one.label].items), one, seed) for one in settings.train}
    counts = counts_of({label: len(pool) for label, pool in pools.items()}, settings)
    if settings.replay is not None:
        pools[REPLAY] = _rows(files[REPLAY].items)
        counts[REPLAY] = replay_rows(sum(counts.values()), settings.replay.share)
    drawn = {label: _drawn(label, pools[label], counts[label], seed) for label in pools}
    found = {label: [item for row in rows for item in row] for label, rows in drawn.items()}
    items = [((label, number), item) for label, mine in found.items() for number, item in enumerate(mine)]
    if len(drawn) > 1:
        items.sort(key=lambda one: _key(seed, "order", *one[0]))
    sizes = {label: len(_rows(files[label].items)) for label in drawn}
    shares = {label: _share(sizes[label], pools[label], rows) for label, rows in drawn.items()}
    return Mixture(tuple(item for _, item in items), shares)


def counts_of(sizes: Mapping[str, int], settings: DataSettings) -> dict[str, int]:
    """Return how many rows of each source an epoch has; they add up to the sum of `sizes`.

    In proportion to (rows × weight)^(1/temperature), by largest remainders, and never 0.
    """
    total = sum(sizes.values())
    weights = {
        one.label: (sizes[one.label] * one.weight) ** (1 / settings.temperature) for one in settings.train
    }
    scale = total / sum(weights.values())
    exact = {label: weight * scale for label, weight in weights.items()}
    counts = {label: int(value) for label, value in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (counts[label] - exact[label], label))
    for label in by_remainder[: total - sum(counts.values())]:
        counts[label] += 1
    for label in sorted(counts):
        if counts[label] == 0:
            counts[max(counts, key=lambda one: (counts[one], one))] -= 1
            counts[label] = 1
    return counts


def replay_rows(rows: int, share: float) -> int:
    """Return how many replayed rows join `rows` others so that they are `share` of all; 1 at least."""
    return max(1, round(rows * share / (1 - share)))


def _rows(items: Sequence[TrainingItem]) -> tuple[Row, ...]:
    """Return the items of each row together: a row may be several examples, and is drawn as one."""
    return tuple(tuple(found) for _, found in groupby(items, key=lambda item: item.row))


def _limited(rows: Sequence[Row], source: TrainingSource, seed: int) -> tuple[Row, ...]:
    if source.limit is None or source.limit >= len(rows):
        return tuple(rows)
    chosen = sorted(range(len(rows)), key=lambda place: _key(seed, "limit", source.label, place))
    return tuple(rows[place] for place in sorted(chosen[: source.limit]))


def _drawn(label: str, pool: Sequence[Row], count: int, seed: int) -> tuple[Row, ...]:
    """Return `count` rows: every one as often as the pool goes into it, and the rest drawn."""
    passes, rest = divmod(count, len(pool))
    chosen = sorted(range(len(pool)), key=lambda place: _key(seed, "rest", label, place))
    return tuple(pool) * passes + tuple(pool[place] for place in sorted(chosen[:rest]))


def _share(available: int, pool: Sequence[Row], drawn: Sequence[Row]) -> MixtureShare:
    return MixtureShare(
        available=available,
        limited=len(pool),
        rows=len(drawn),
        passes=len(drawn) / len(pool),
        tokens=sum(item.length for row in drawn for item in row),
        learnt_tokens=sum(item.learnt for row in drawn for item in row),
    )


def _key(seed: int, purpose: str, label: str, place: int) -> bytes:
    return hashlib.blake2b(f"{seed}|{purpose}|{label}|{place}".encode(), digest_size=16).digest()
