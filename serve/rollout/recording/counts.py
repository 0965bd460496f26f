"""What one open segment counts, arm by arm and source by source: plain objects that grow in place.

Called on the hot path by the event loop alone. `document()` makes the values that are written of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from heapq import nlargest, nsmallest

from registry.records import RolloutEntry
from serve.rollout.assignment import Arm
from serve.rollout.recording.baselines import DenseCounts
from serve.rollout.recording.evidence import (
    LATENCY_BOUNDS,
    MAX_SOURCES,
    QUANTILES,
    REST,
    SKETCH_SIZE,
    ArmTally,
    Baseline,
    Exceedances,
    Rating,
    Segment,
    ShadowPairs,
    SourceTally,
)
from serve.rollout.recording.sources import Room, Source

MAX_UNITS = 200_000
"""Units of one arm in one segment that are told apart; beyond it the count stays."""


class Durations:
    """Exceedances of frozen thresholds and a histogram, of one arm in one segment."""

    __slots__ = ("count", "histogram", "limits", "over")

    def __init__(self, limits: tuple[float, ...]) -> None:
        self.limits = limits
        self.count = 0
        self.over = [0] * len(QUANTILES)
        self.histogram = [0] * (len(LATENCY_BOUNDS) + 1)

    def add(self, seconds: float) -> int:
        """Count one request's value in the histogram, and return its place."""
        place = bisect_left(LATENCY_BOUNDS, seconds)
        self.histogram[place] += 1
        return place

    def test(self, seconds: float, part: list[int]) -> None:
        """Count a unit's first value against the thresholds, if there are any; in its source's `part` too."""
        if self.limits:
            self.count += 1
            part[0] += 1
            for place, limit in enumerate(self.limits):
                over = seconds > limit
                self.over[place] += over
                part[place + 1] += over

    def document(self) -> Exceedances:
        """Return a copy of the counts."""
        return Exceedances(count=self.count, over=list(self.over), histogram=list(self.histogram))


class SourceRecord:
    """What one source gave to one arm of one open segment, and what of it was left out.

    `dense` are its requests to that arm since this process began, once there was one.
    """

    __slots__ = (
        "dense", "first_token", "judged", "malformed", "per_token", "ratings", "ratings_left_out", "units",
        "units_left_out",
    )  # fmt: skip

    def __init__(self) -> None:
        self.units = self.units_left_out = self.ratings = self.ratings_left_out = 0
        self.judged = self.malformed = 0
        self.dense: DenseCounts | None = None
        self.first_token = [0] * (1 + len(QUANTILES))
        self.per_token = [0] * (1 + len(QUANTILES))

    def document(self) -> SourceTally:
        """Return a copy of the counts."""
        return SourceTally(**{name: _copied(getattr(self, name)) for name in SourceTally.model_fields})


class ArmRecord:
    """One arm in one open segment."""

    __slots__ = (
        "failed", "finish", "first_token", "judged", "malformed", "outcomes", "output_tokens", "per_token",
        "ratings", "requests", "rescued", "silent", "sources", "units",
    )  # fmt: skip

    def __init__(self, baseline: Baseline) -> None:
        self.requests = self.rescued = self.output_tokens = self.judged = 0
        self.units: set[str] = set()
        self.silent: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.finish: Counter[str] = Counter()
        self.failed: list[str] = []
        self.malformed: list[str] = []
        self.first_token = Durations(tuple(baseline.first_token))
        self.per_token = Durations(tuple(baseline.per_token))
        self.ratings: list[Rating] = []
        self.sources: dict[Source, SourceRecord] = {}

    def source(self, source: Source) -> SourceRecord:
        """Return the record of one source's part."""
        found = self.sources.get(source)
        if found is None:
            found = self.sources[source] = SourceRecord()
        return found

    def meet(self, unit: str, part: SourceRecord, *, counts: bool) -> None:
        """Take note that a unit came, with an outcome that counts or without."""
        if counts:
            self.silent.discard(unit)
        if unit in self.units or len(self.units) >= MAX_UNITS:
            return
        self.units.add(unit)
        part.units += 1
        if not counts:
            self.silent.add(unit)

    def document(self) -> ArmTally:
        """Return a copy of the counts."""
        return ArmTally(
            requests=self.requests,
            units=len(self.units),
            silent=len(self.silent),
            sketch=nsmallest(SKETCH_SIZE, self.units),
            rescued=self.rescued,
            outcomes=dict(self.outcomes),
            finish=dict(self.finish),
            output_tokens=self.output_tokens,
            failed=list(self.failed),
            judged=self.judged,
            malformed=list(self.malformed),
            first_token=self.first_token.document(),
            per_token=self.per_token.document(),
            ratings=list(self.ratings),
            sources=_told(self.sources),
        )


class OpenSegment:
    """One (record of the log, effective weight), while requests are booked under it."""

    __slots__ = ("_room", "arms", "baseline", "began", "entry", "pairs", "weight")

    def __init__(
        self, entry: RolloutEntry, weight: int, baseline: Baseline, began: float, room: Room
    ) -> None:
        self._room = room
        self.entry = entry
        self.weight = weight
        self.baseline = baseline
        self.began = began
        self.arms: dict[Arm, ArmRecord] = {}
        self.pairs = ShadowPairs()

    def arm(self, arm: Arm) -> ArmRecord:
        """Return the record of an arm."""
        found = self.arms.get(arm)
        if found is None:
            found = self.arms[arm] = ArmRecord(self.baseline)
        return found

    def takes_unit(self, record: ArmRecord, source: Source, unit: str) -> bool:
        """Return whether a unit counts; decided when it comes first, and counted if it does not."""
        if unit in record.units:
            return True
        if unit in self._room.left_out:
            return False
        if self._room.units.take(source):
            return True
        record.source(source).units_left_out += 1
        if len(self._room.left_out) < MAX_UNITS:
            self._room.left_out.add(unit)
        return False

    def takes_rating(self, record: ArmRecord, source: Source) -> bool:
        """Return whether a rating counts, and count that it does or does not."""
        part = record.source(source)
        taken = self._room.ratings.take(source)
        if taken:
            part.ratings += 1
        else:
            part.ratings_left_out += 1
        return taken

    def document(self, ended: float) -> Segment:
        """Return a copy of everything seen so far."""
        return Segment(
            seq=self.entry.seq,
            step=self.entry.step,
            weight=self.weight,
            base_weight=self.entry.base_weight,
            began=self.began,
            ended=ended,
            arms={arm.value: record.document() for arm, record in self.arms.items()},
            pairs=self.pairs.model_copy(),
        )


def _told(sources: Mapping[Source, SourceRecord]) -> dict[str, SourceTally]:
    """Return the largest sources by their labels, and all others as one."""
    if len(sources) <= MAX_SOURCES:
        return {source.label: record.document() for source, record in sources.items()}
    most = set(nlargest(MAX_SOURCES, sources, key=lambda one: _weight(sources[one])))
    rest = SourceTally()
    for source, record in sources.items():
        if source not in most:
            rest = rest.plus(record.document())
    return {**{source.label: sources[source].document() for source in most}, REST: rest}


def _weight(record: SourceRecord) -> int:
    return record.units + record.units_left_out + record.ratings + record.ratings_left_out


def _copied(count: int | list[int]) -> int | list[int]:
    return list(count) if isinstance(count, list) else count
