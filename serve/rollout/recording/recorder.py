"""What one replica sees of one open rollout: the split in force, and the counts of every arm.

Called on the hot path by the event loop alone: no disk, no lock, no parsing. `serve.rollout.recording.keeper`
writes the documents. Invariants: a request is booked under the segment and the arm that it was assigned
to; of a unit only the first failure, broken form and rating are kept; a unit's latency is counted once.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nsmallest
from typing import NamedTuple

import msgspec

from registry.records import RolloutEntry
from serve.rollout.assignment import Arm, RolloutSplit
from serve.rollout.policy import FormatMetric, policy_of
from serve.rollout.recording.evidence import (
    COUNTED,
    FAILURES,
    LATENCY_BOUNDS,
    MAX_FIRST_UNITS,
    NOBODYS,
    QUANTILES,
    SKETCH_SIZE,
    ArmTally,
    Baseline,
    Exceedances,
    Rating,
    ReplicaEvidence,
    Segment,
    ShadowPairs,
    baseline_of,
)

MAX_UNITS = 200_000
"""Units of one arm in one segment that are told apart; beyond it the count stays."""

MAX_TEXTS = 2_000
"""Answers that wait for their form to be looked at; the oldest is dropped unlooked at."""

Text = str | Callable[[], str | None] | None
"""An answer's text, or what takes it out of the answer's bytes when there is time."""


class Durations:
    """Exceedances of frozen thresholds and a histogram, of one arm in one segment."""

    __slots__ = ("count", "histogram", "limits", "over")

    def __init__(self, limits: tuple[float, ...]) -> None:
        self.limits = limits
        self.count = 0
        self.over = [0] * len(QUANTILES)
        self.histogram = [0] * (len(LATENCY_BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        """Count one request's value in the histogram."""
        self.histogram[bisect_left(LATENCY_BOUNDS, seconds)] += 1

    def test(self, seconds: float) -> None:
        """Count a unit's first value against the thresholds, if there are any."""
        if self.limits:
            self.count += 1
            for place, limit in enumerate(self.limits):
                self.over[place] += seconds > limit

    def document(self) -> Exceedances:
        """Return a copy of the counts."""
        return Exceedances(count=self.count, over=list(self.over), histogram=list(self.histogram))


class ArmRecord:
    """One arm in one open segment."""

    __slots__ = (
        "failed", "finish", "first_token", "judged", "malformed", "outcomes", "output_tokens", "per_token",
        "ratings", "requests", "rescued", "silent", "units",
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

    def meet(self, unit: str, *, counts: bool) -> None:
        """Take note that a unit came, with an outcome that counts or without."""
        if counts:
            self.silent.discard(unit)
        if unit in self.units or len(self.units) >= MAX_UNITS:
            return
        self.units.add(unit)
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
        )


class OpenSegment:
    """One (record of the log, effective weight), while requests are booked under it."""

    __slots__ = ("arms", "baseline", "began", "entry", "pairs", "weight")

    def __init__(self, entry: RolloutEntry, weight: int, baseline: Baseline, began: float) -> None:
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


class PendingAnswer(NamedTuple):
    """One complete answer whose form waits to be looked at."""

    segment: OpenSegment
    arm: Arm
    unit: str
    text: Text


class _Firsts:
    """Units that have been counted once for something, over the whole rollout and its restarts."""

    __slots__ = ("failed", "first_token", "judged", "malformed", "per_token", "rated")

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.judged: set[str] = set()
        self.malformed: set[str] = set()
        self.rated: set[str] = set()
        self.first_token: set[str] = set()
        self.per_token: set[str] = set()


class Recorder:
    """The evidence of one open rollout in one replica.

    `split` is what assignment uses now: the record's weights, or weight 0 while this replica brakes.
    `segment` is where a request that is assigned now is booked, also when it ends under a later one.
    `entry` is the newest record of the log that this replica acts on; `wants_text` says that the policy
    looks at the form of answers; `unit` is what is randomised.
    """

    def __init__(self, entry: RolloutEntry, replica: str, clock: Callable[[], float] = time.time) -> None:
        self.policy = policy_of(entry)
        self.unit = self.policy.unit
        self.form = self.policy.metrics.format
        self.wants_text = self.form is not None
        self.braking = ""
        self.restored = False
        self.requests: Counter[str] = Counter()
        self._replica = replica
        self._clock = clock
        self._past: list[Segment] = []
        self._open: list[OpenSegment] = []
        self._firsts = _Firsts()
        self._texts: deque[PendingAnswer] = deque(maxlen=MAX_TEXTS)
        self._baseline = Baseline()
        self.entry = entry
        self._turn(entry)

    def follow(self, entry: RolloutEntry) -> None:
        """Act on a newer record of the log."""
        if entry.seq > self.entry.seq:
            self.entry = entry
            self._turn(entry)

    def brake(self, reason: str) -> None:
        """Send this replica's own share to stable at once, or ('') by the record again."""
        if reason != self.braking:
            self.braking = reason
            self._turn(self.entry)

    def observe(
        self,
        segment: OpenSegment,
        arm: Arm,
        unit: str,
        outcome: str,
        *,
        first_turn: bool,
        rescued: bool = False,
        first_token: float | None = None,
        per_token: float | None = None,
        output_tokens: int = 0,
        finish: str = "",
        text: Text = None,
    ) -> None:
        """Book one request under the arm that it was assigned to, at the end of its answer.

        `arm` is stable, canary or base; `unit` 16 hex digits; `outcome` a word of `Outcome` or of
        `evidence`; times are seconds; `text` the whole answer where the policy wants it and it is complete.
        """
        record = segment.arm(arm)
        record.outcomes[outcome] += 1
        if outcome in NOBODYS:
            return
        record.requests += 1
        record.rescued += rescued
        record.output_tokens += output_tokens
        if finish:
            record.finish[finish] += 1
        record.meet(unit, counts=outcome in COUNTED)
        if outcome in FAILURES and unit not in self._firsts.failed and len(record.failed) < MAX_FIRST_UNITS:
            self._firsts.failed.add(unit)
            record.failed.append(unit)
        if first_token is not None:
            _time(record.first_token, self._firsts.first_token, unit, first_token, tested=first_turn)
        if per_token is not None:
            _time(record.per_token, self._firsts.per_token, unit, per_token, tested=first_turn)
        if text is not None and outcome == "ok" and unit not in self._firsts.judged:
            self._texts.append(PendingAnswer(segment, arm, unit, text))

    def rate(self, arm: Arm, unit: str, score: float) -> bool:
        """Book a score in 0 … 1 of a unit, of which the first counts; return whether this one does."""
        record = self.segment.arm(arm)
        if unit in self._firsts.rated or len(record.ratings) >= MAX_FIRST_UNITS:
            return False
        self._firsts.rated.add(unit)
        record.ratings.append(Rating(at=self._clock(), unit=unit, score=score))
        return True

    def compare(self, *, stable_ok: bool, canary_ok: bool) -> None:
        """Book one shadowed pair."""
        pairs = self.segment.pairs
        if stable_ok and canary_ok:
            pairs.both_ok += 1
        elif stable_ok:
            pairs.canary_failed += 1
        elif canary_ok:
            pairs.stable_failed += 1
        else:
            pairs.both_failed += 1

    def drop_pair(self) -> None:
        """Count a request that was chosen for the shadow but not mirrored for want of room."""
        self.segment.pairs.dropped += 1

    def take_answers(self) -> list[PendingAnswer]:
        """Take the answers whose form waits to be looked at."""
        found = list(self._texts)
        self._texts.clear()
        return found

    def judge(self, answers: Sequence[PendingAnswer]) -> list[tuple[PendingAnswer, bool]]:
        """Look at the form of answers; parses, so call it in a thread: it changes nothing.

        What has no text that could be read is left out.
        """
        texts = ((answer, answer.text() if callable(answer.text) else answer.text) for answer in answers)
        form = self.form
        if form is None:
            return []
        return [(answer, has_form(form, text)) for answer, text in texts if text is not None]

    def book_forms(self, judged: Sequence[tuple[PendingAnswer, bool]]) -> None:
        """Count what `judge` found, a unit's first answer only."""
        for answer, right in judged:
            if answer.unit in self._firsts.judged:
                continue
            if len(self._firsts.judged) < MAX_UNITS:
                self._firsts.judged.add(answer.unit)
            record = answer.segment.arm(answer.arm)
            record.judged += 1
            if not right and len(record.malformed) < MAX_FIRST_UNITS:
                record.malformed.append(answer.unit)

    def document(self) -> ReplicaEvidence:
        """Return a copy of everything, to be written and united with the other replicas'."""
        now = self._clock()
        return ReplicaEvidence(
            rollout=self.entry.rollout,
            adapter=self.entry.adapter,
            replica=self._replica,
            at=now,
            seq=self.entry.seq,
            braking=bool(self.braking),
            segments=[*self._past, *(segment.document(now) for segment in self._open if segment.arms)],
        )

    def restore(self, document: ReplicaEvidence | None) -> None:
        """Go on from what this replica had written before it was restarted; counts once."""
        if self.restored:
            return
        self.restored = True
        if document is None or document.rollout != self.entry.rollout:
            return
        self._past = list(document.segments)
        for tally in _tallies(document.segments):
            self._firsts.failed.update(tally.failed)
            self._firsts.malformed.update(tally.malformed)
            self._firsts.judged.update(tally.malformed)
            self._firsts.rated.update(rating.unit for rating in tally.ratings)

    def arm_records(self, arm: Arm) -> Iterator[ArmRecord]:
        """Yield an arm's records since this process began."""
        for segment in self._open:
            if arm in segment.arms:
                yield segment.arms[arm]

    def _turn(self, entry: RolloutEntry) -> None:
        """Open a segment for this record and the weight that is now in force."""
        weight = 0 if self.braking else entry.weight
        self._baseline = baseline_of(entry)
        self.split = RolloutSplit(
            entry.rollout,
            weight,
            entry.base_weight,
            frozenset(self.policy.allow) if weight else frozenset(),
            frozenset(self.policy.deny),
        )
        self.segment = OpenSegment(entry, weight, self._baseline, self._clock())
        self._open.append(self.segment)


def _time(durations: Durations, seen: set[str], unit: str, seconds: float, *, tested: bool) -> None:
    """Count a value in the histogram and, if it is a unit's first on a first turn, against thresholds."""
    durations.add(seconds)
    if tested and unit not in seen:
        if len(seen) >= MAX_UNITS:
            seen.clear()
        seen.add(unit)
        durations.test(seconds)


def has_form(form: FormatMetric, text: str) -> bool:
    """Return whether an answer's text has the form that the policy requires."""
    if form.kind == "nonempty":
        return bool(text.strip())
    if form.kind == "json":
        return _is_json(text)
    found = re.search(form.pattern, text) is not None
    return found == (form.kind == "regex")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text.strip())
    except (msgspec.MsgspecError, RecursionError):  # a model may go on with brackets for ever
        return False
    return True


def _tallies(segments: Iterable[Segment]) -> Iterator[ArmTally]:
    for segment in segments:
        yield from segment.arms.values()


Recorders = Callable[[RolloutEntry], Recorder]
"""Gives the recorder of an open rollout, brought up to this record."""
