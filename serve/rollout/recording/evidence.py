"""Evidence as counts: what one replica saw in one segment, and what all of them saw together.

A segment is one (seq of the log, effective weight); while a replica brakes locally it books under weight
0 and that counts for no test. An outcome belongs to the arm that was assigned, also when the other one
answered. Everything here merges by addition or by union; documents are JSON. Invariant: what is read passed
the limits below, so that no sum, index or quantile of it can fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from registry.entries.rollouts import FULL_WEIGHT
from registry.errors import CorruptStore
from registry.records import RolloutEntry
from serve.outcomes import Outcome

QUANTILES = (0.5, 0.9, 0.99)
"""Whose exceedances are counted, of stable before the rollout."""

FAILURES = frozenset(one.value for one in Outcome if one.blames_version)
"""Outcomes that count against the arm."""

COUNTED = FAILURES | {Outcome.OK.value}
"""Outcomes that say something of an arm; only units with one of them are tested."""

REPEATED = "repeated"
"""A failure that another version had on the same body: the request's own fault."""

UNKNOWN = "unexplained"
"""A failure of which nobody could say whose it was: another version was not asked, or gave no answer."""

NOBODYS = frozenset({Outcome.CLIENT_ERROR.value, REPEATED, UNKNOWN})
"""Outcomes that are shown and count for nothing, not even as a unit that came by."""

MAX_FIRST_UNITS = 4_096
"""How many units with a first failure (or rating) one arm of one segment keeps; far beyond any verdict."""

# Upper bounds in seconds, 20 % apart, from 1 ms to 10 min: a median is known to a tenth.
LATENCY_BOUNDS = tuple(round(0.001 * 1.2**n, 6) for n in range(74))


BUCKETS = len(LATENCY_BOUNDS) + 1
"""Places of a histogram: one for each bound, and one beyond the last."""

SKETCH_SIZE = 1_024
"""Units that a sketch keeps: exact below, 3 % standard error above (1 / sqrt(size))."""

MAX_SOURCES = 20
"""Sources of one arm of one segment that a document tells apart, the largest; the others are `REST`."""

REST = "*/*"
"""The label of the sources that are not told apart: no group and no key can be called so."""

Count = Annotated[int, Field(ge=0, le=10**12)]
"""How often something was seen: more than any replica counts in a rollout, and exact as a float."""

Place = Annotated[int, Field(ge=0, lt=BUCKETS)]
Histogram = Annotated[list[Count], Field(min_length=BUCKETS, max_length=BUCKETS)]
Unit = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Units = Annotated[list[Unit], Field(max_length=MAX_FIRST_UNITS)]
Points = Annotated[int, Field(ge=0, le=FULL_WEIGHT)]
Seconds = Annotated[float, Field(ge=0)]
Times = tuple[Count, Count, Count, Count]
SourceLabel = Annotated[str, Field(max_length=300)]
ArmName = Literal["stable", "canary", "base"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Exceedances(_Document):
    """Of `count` first turns, how many took longer than each frozen quantile; and the whole histogram.

    `over` is empty while no baseline is frozen. `histogram` holds counts by `LATENCY_BOUNDS`, one more
    than bounds, over all requests of the segment that have the value, not only first turns.
    """

    count: Count = 0
    over: list[Count] = Field(default_factory=lambda: [0] * len(QUANTILES), max_length=len(QUANTILES))
    histogram: Histogram = Field(default_factory=lambda: [0] * BUCKETS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(over > self.count for over in self.over):
            raise ValueError(f"over: {max(self.over)} of {self.count} values exceed a quantile")
        return self


class Rating(_Document):
    """One score in 0 … 1 that a unit gave, `at` UNIX seconds; `source` is whose key sent it."""

    at: Seconds
    unit: Unit
    score: float = Field(ge=0, le=1)
    source: SourceLabel = ""


class SourceTally(_Document):
    """What one source gave to one arm of one segment, and what was left out as beyond its share.

    `judged`, `malformed`, `first_token` and `per_token` are its part of the arm's; the times as (count, over
    each of `QUANTILES`).
    """

    units: Count = 0
    units_left_out: Count = 0
    ratings: Count = 0
    ratings_left_out: Count = 0
    judged: Count = 0
    malformed: Count = 0
    first_token: Times = (0, 0, 0, 0)
    per_token: Times = (0, 0, 0, 0)

    def plus(self, other: SourceTally) -> SourceTally:
        """Return the sum of both."""
        return SourceTally.model_construct(
            units=self.units + other.units,
            units_left_out=self.units_left_out + other.units_left_out,
            ratings=self.ratings + other.ratings,
            ratings_left_out=self.ratings_left_out + other.ratings_left_out,
            judged=self.judged + other.judged,
            malformed=self.malformed + other.malformed,
            first_token=_added(self.first_token, other.first_token),
            per_token=_added(self.per_token, other.per_token),
        )


class ArmTally(_Document):
    """One arm in one segment of one replica.

    `sketch` holds the smallest of its units: united over replicas it counts distinct ones (KMV).

    `units` are the distinct units seen here, of which `silent` had no outcome that counts; `failed` and
    `malformed` the units (16 hex digits) in the order of their first failure (`FAILURES`) or first broken
    form; `judged` counts answers whose form was looked at, by units; `outcomes` and `finish` count requests;
    `rescued` were answered by the other arm; `output_tokens` is a sum. `sources` says whose part is how
    large, by `group/key`. What a source sent beyond its share is in `sources` and nowhere else.
    """

    requests: Count = 0
    units: Count = 0
    silent: Count = 0
    sketch: list[Unit] = Field(default_factory=list, max_length=SKETCH_SIZE)
    rescued: Count = 0
    outcomes: dict[str, Count] = Field(default_factory=dict)
    finish: dict[str, Count] = Field(default_factory=dict)
    output_tokens: Count = 0
    failed: Units = Field(default_factory=list)
    judged: Count = 0
    malformed: Units = Field(default_factory=list)
    first_token: Exceedances = Field(default_factory=Exceedances)
    per_token: Exceedances = Field(default_factory=Exceedances)
    ratings: list[Rating] = Field(default_factory=list, max_length=MAX_FIRST_UNITS)
    sources: dict[SourceLabel, SourceTally] = Field(default_factory=dict, max_length=MAX_SOURCES + 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if max(self.silent, len(self.failed)) > self.units:
            raise ValueError(f"units: {self.units}, {self.silent} silent and {len(self.failed)} failed")
        if len(self.sketch) != min(self.units, SKETCH_SIZE):
            raise ValueError(f"sketch: holds {len(self.sketch)} of {self.units} units")
        if len(self.malformed) > self.judged:
            raise ValueError(f"malformed: {len(self.malformed)} of {self.judged} answers")
        return self


class ShadowPairs(_Document):
    """Shadowed requests by who failed; `dropped` were chosen but not sent for want of room."""

    both_ok: Count = 0
    canary_failed: Count = 0
    stable_failed: Count = 0
    both_failed: Count = 0
    dropped: Count = 0


class Segment(_Document):
    """What one replica saw under one record of the log at one effective weight (basis points)."""

    seq: Count
    step: int = Field(ge=-1, le=10**6)
    weight: Points
    base_weight: Points = 0
    began: Seconds
    ended: Seconds
    arms: dict[ArmName, ArmTally] = Field(default_factory=dict)
    pairs: ShadowPairs = Field(default_factory=ShadowPairs)


class Recent(_Document):
    """One arm's last `window_seconds` (of the policy's `guard`).

    Histograms are sparse, by index into `LATENCY_BOUNDS`. `sources` are the parts of the largest sources, by
    the name of a group or the `group/key` of a key; they have none of their own.
    """

    requests: Count = 0
    failures: Count = 0
    first_token: dict[Place, Count] = Field(default_factory=dict)
    per_token: dict[Place, Count] = Field(default_factory=dict)
    sources: dict[SourceLabel, Recent] = Field(default_factory=dict, max_length=MAX_SOURCES)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.failures > self.requests:
            raise ValueError(f"failures: {self.failures} of {self.requests} requests")
        if any(part.sources for part in self.sources.values()):
            raise ValueError("sources: a source has sources")
        return self


class ReplicaEvidence(_Document):
    """The document `evidence/<rollout>/<replica>.json`; `at` is when it was written, UNIX seconds.

    `seq` is the newest record of the log that this replica acts on; `braking` says that it sends its
    canary's share to stable by itself.
    """

    format: Literal[1] = 1
    rollout: str
    adapter: str
    replica: str
    at: Seconds
    seq: Count = 0
    braking: bool = False
    recent: dict[ArmName, Recent] = Field(default_factory=dict)
    segments: list[Segment] = Field(default_factory=list)


class Baseline(_Document):
    """Stable before the rollout (or in its beginning), frozen in the rollout's log.

    `first_token` and `per_token` are seconds at `QUANTILES`, empty where nothing is known;
    `error_rate` is a share of `requests`.
    """

    first_token: list[Seconds] = Field(default_factory=list, max_length=len(QUANTILES))
    per_token: list[Seconds] = Field(default_factory=list, max_length=len(QUANTILES))
    error_rate: float = Field(default=0.0, ge=0, le=1)
    requests: Count = 0


def baseline_of(entry: RolloutEntry) -> Baseline:
    """Return the baseline that an entry of a log holds.

    Raises: CorruptStore: it is damaged.
    """
    try:
        return Baseline.model_validate(dict(entry.baseline))
    except ValidationError as error:
        subject = f"rollout of {entry.adapter}, entry {entry.seq}"
        raise CorruptStore(subject, "its baseline is damaged", "abort the rollout") from error


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One arm at one weight, over all replicas; failures and broken forms are first ones of units.

    `assigned` are the units that came, `units` those of them with an outcome that counts. `first_token` and
    `per_token` are (count, over the median, over 90 %, over 99 %).
    """

    units: int = 0
    requests: int = 0
    failures: int = 0
    judged: int = 0
    malformed: int = 0
    assigned: int = 0
    first_token: tuple[int, int, int, int] = (0, 0, 0, 0)
    per_token: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def came(self) -> int:
        """Return the units that were assigned, whatever became of their requests."""
        return max(self.assigned, self.units)


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything that counts for tests at one weight (basis points, of units; never 0), in log order.

    `base_weight` are the basis points of units that the bare base answered.
    """

    weight: int
    stable: ArmCounts
    canary: ArmCounts
    base_weight: int = 0
    base: ArmCounts = field(default_factory=ArmCounts)


@dataclass(frozen=True, slots=True)
class UnitScore:
    """One first rating of a unit, by whoever was assigned; `source` is `group/key`, '' where unknown."""

    at: float
    canary: bool
    weight: int
    score: float
    source: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All replicas' evidence of one rollout, united: `cells` in the order in which weights were met.

    `scores` are sorted by time. `step_units` are the canary's units in the present step. `parts` are what
    each source gave, most first, by `group/key`; `without` is the same evidence without one source, for each
    of the largest (a group, or a key where there is one group), and empty where there is only one.
    """

    cells: tuple[Cell, ...] = ()
    scores: tuple[UnitScore, ...] = ()
    pairs: Mapping[str, int] = field(default_factory=dict)
    step_units: int = 0
    parts: Mapping[str, SourceTally] = field(default_factory=dict)
    without: Mapping[str, Evidence] = field(default_factory=dict)

    @property
    def compared(self) -> int:
        """Return how many shadowed pairs were compared; the dropped ones were not."""
        return sum(count for name, count in self.pairs.items() if name != "dropped")


def _added(mine: Times, its: Times) -> Times:
    return mine[0] + its[0], mine[1] + its[1], mine[2] + its[2], mine[3] + its[3]
