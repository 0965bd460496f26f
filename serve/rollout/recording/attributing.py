"""Whose part of the evidence is how large, and the evidence without one source. Pure functions of segments.

A source is a group where several gave evidence, else a key. Invariant: what is taken out is at most what the
source gave, so what is left is the others' own: nothing that a source sends can change it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import nlargest

from serve.rollout.recording.evidence import (
    REST,
    ArmCounts,
    ArmName,
    Cell,
    Evidence,
    Segment,
    SourceTally,
    Times,
    UnitScore,
)
from serve.rollout.recording.sources import Source

MOST_SOURCES = 4
"""The largest sources that are left out by turns: a smaller one holds less than a fifth."""

_Parts = Mapping[tuple[int, int, str], SourceTally]


def give_parts(segments: Sequence[Segment]) -> dict[str, SourceTally]:
    """Return what each `group/key` gave, most first."""
    found: defaultdict[str, SourceTally] = defaultdict(SourceTally)
    for segment in segments:
        for tally in segment.arms.values():
            for label, part in tally.sources.items():
                found[label] = found[label].plus(part)
    return dict(sorted(found.items(), key=lambda item: (-_size(item[1]), item[0])))


def give_shares(parts: Mapping[str, SourceTally]) -> dict[str, SourceTally]:
    """Return what each source gave, most first: each group where there are several, else each key."""
    by_group = len({Source.read(label).group for label in parts if label != REST}) > 1
    found: defaultdict[str, SourceTally] = defaultdict(SourceTally)
    for label, part in parts.items():
        name = source_of(label, by_group=by_group)
        found[name] = found[name].plus(part)
    return dict(sorted(found.items(), key=lambda item: (-_size(item[1]), item[0])))


def leave_each_out(
    parts: Mapping[str, SourceTally],
    segments: Sequence[Segment],
    cells: Sequence[Cell],
    scores: Sequence[UnitScore],
) -> dict[str, Evidence]:
    """Return the evidence without each of the largest sources, by its name; nothing where there is one."""
    shares = give_shares(parts)
    sizes = {name: part.units + part.ratings for name, part in shares.items()}
    names = [name for name in sizes if sizes[name]]
    if len(names) < 2:
        return {}
    by_group = not any("/" in name for name in names if name != REST)
    largest = nlargest(MOST_SOURCES, (name for name in names if name != REST), key=lambda one: sizes[one])
    return {name: _without(name, segments, cells, scores, by_group=by_group) for name in largest}


def source_of(label: str, *, by_group: bool) -> str:
    """Return the name by which a source's part is counted."""
    return Source.read(label).group if by_group and label != REST else label


def _without(
    name: str,
    segments: Sequence[Segment],
    cells: Sequence[Cell],
    scores: Sequence[UnitScore],
    *,
    by_group: bool,
) -> Evidence:
    parts: defaultdict[tuple[int, int, str], SourceTally] = defaultdict(SourceTally)
    for segment in segments:
        for arm, tally in segment.arms.items():
            for label, part in tally.sources.items():
                if source_of(label, by_group=by_group) == name:
                    place = (segment.weight, segment.base_weight, arm)
                    parts[place] = parts[place].plus(part)
    left = tuple(score for score in scores if source_of(score.source, by_group=by_group) != name)
    return Evidence(cells=tuple(_less(cell, parts) for cell in cells), scores=left)


def _less(cell: Cell, parts: _Parts) -> Cell:
    def left(arm: ArmName) -> ArmCounts:
        whole: ArmCounts = getattr(cell, arm)
        return _arm_less(whole, parts.get((cell.weight, cell.base_weight, arm)))

    return replace(cell, stable=left("stable"), canary=left("canary"), base=left("base"))


def _arm_less(arm: ArmCounts, part: SourceTally | None) -> ArmCounts:
    if part is None:
        return arm
    return replace(
        arm,
        units=max(0, arm.units - part.units),
        assigned=max(0, arm.assigned - part.units),
        judged=max(0, arm.judged - part.judged),
        malformed=max(0, arm.malformed - part.malformed),
        first_token=_times_less(arm.first_token, part.first_token),
        per_token=_times_less(arm.per_token, part.per_token),
    )


def _times_less(whole: Times, part: Times) -> Times:
    a, b, c, d = (max(0, one - its) for one, its in zip(whole, part, strict=True))
    return a, b, c, d


def _size(part: SourceTally) -> int:
    return part.units + part.units_left_out + part.ratings + part.ratings_left_out
