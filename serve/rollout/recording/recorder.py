"""What one replica sees of one open rollout: the split in force, and the counts of every arm.

Called on the hot path by the event loop alone: no disk, no lock, no parsing. `serve.rollout.recording.keeper`
writes the documents. Invariants: a request is booked under the segment and the arm that it was assigned
to; of a unit only the first failure, broken form and rating are kept; a unit's latency is counted once.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from registry.records import RolloutEntry
from serve.rollout.assignment import Arm, RolloutSplit
from serve.rollout.policy import FormatMetric, policy_of
from serve.rollout.recording.baselines import DenseCounts
from serve.rollout.recording.counts import MAX_UNITS, ArmRecord, Durations, OpenSegment, SourceRecord
from serve.rollout.recording.evidence import (
    COUNTED,
    FAILURES,
    MAX_FIRST_UNITS,
    NOBODYS,
    REST,
    ArmTally,
    Baseline,
    Rating,
    ReplicaEvidence,
    Segment,
    baseline_of,
)
from serve.rollout.recording.sources import NOBODY_ELSE, EvidenceGivers, Room, Source

MAX_TEXTS = 2_000
"""Answers that wait for their form to be looked at; the oldest is dropped unlooked at."""

Text = str | Callable[[], str | None] | None
"""An answer's text, or what takes it out of the answer's bytes when there is time."""


class PendingAnswer(NamedTuple):
    """One complete answer whose form waits to be looked at."""

    segment: OpenSegment
    arm: Arm
    unit: str
    text: Text
    part: SourceRecord


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
    looks at the form of answers; `unit` is what is randomised. `crowd` knows who else gives evidence;
    `by_source` are the requests that counted since this process began, by arm and source.
    """

    def __init__(self, entry: RolloutEntry, replica: str, clock: Callable[[], float] = time.time) -> None:
        self.policy = policy_of(entry)
        self.unit = self.policy.unit
        self.form = self.policy.metrics.format
        self.wants_text = self.form is not None
        self.braking = ""
        self.restored = False
        self.requests: Counter[str] = Counter()
        self.crowd = EvidenceGivers()
        self.by_source: dict[tuple[Arm, str], DenseCounts] = {}
        self._replica = replica
        self._clock = clock
        self._past: list[Segment] = []
        self._open: list[OpenSegment] = []
        self._rooms: dict[tuple[int, int], Room] = {}
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
        source: Source = NOBODY_ELSE,
    ) -> bool:
        """Book one request under the arm that it was assigned to, at the end of its answer.

        Return whether its unit counts: what a source sends beyond its share is left out of everything.

        `arm` is stable, canary or base; `unit` 16 hex digits; `outcome` a word of `Outcome` or of
        `evidence`; times are seconds; `text` the whole answer where the policy wants it and it is complete.
        """
        record = segment.arm(arm)
        if outcome in NOBODYS:
            record.outcomes[outcome] += 1
            return False
        if not segment.takes_unit(record, source, unit):
            return False
        part = record.source(source)
        record.outcomes[outcome] += 1
        dense = part.dense
        if dense is None:
            dense = part.dense = self._of_source(arm, source)
        dense.requests += outcome in COUNTED
        dense.failures += outcome in FAILURES
        record.requests += 1
        record.rescued += rescued
        record.output_tokens += output_tokens
        if finish:
            record.finish[finish] += 1
        record.meet(unit, part, counts=outcome in COUNTED)
        if outcome in FAILURES and unit not in self._firsts.failed and len(record.failed) < MAX_FIRST_UNITS:
            self._firsts.failed.add(unit)
            record.failed.append(unit)
        if first_token is not None:
            seen = self._firsts.first_token
            place = _time(record.first_token, seen, unit, first_token, part.first_token, tested=first_turn)
            dense.first_token[place] += 1
        if per_token is not None:
            seen = self._firsts.per_token
            place = _time(record.per_token, seen, unit, per_token, part.per_token, tested=first_turn)
            dense.per_token[place] += 1
        if text is not None and outcome == "ok" and unit not in self._firsts.judged:
            self._texts.append(PendingAnswer(segment, arm, unit, text, part))
        return True

    def rate(self, arm: Arm, unit: str, score: float, source: Source = NOBODY_ELSE) -> str:
        """Book a score in 0 … 1 of a unit, of which the first counts; return '' or why this one does not."""
        record = self.segment.arm(arm)
        if unit in self._firsts.rated:
            return "this unit has rated before"
        if len(record.ratings) >= MAX_FIRST_UNITS:
            return f"{MAX_FIRST_UNITS} ratings of this arm are kept already"
        if not self.segment.takes_rating(record, source):
            return "this key, or its group, gave its whole share of the ratings already"
        self._firsts.rated.add(unit)
        record.ratings.append(Rating(at=self._clock(), unit=unit, score=score, source=source.label))
        return ""

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
            answer.part.judged += 1
            if not right and len(record.malformed) < MAX_FIRST_UNITS:
                record.malformed.append(answer.unit)
                answer.part.malformed += 1

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
            for label in tally.sources.keys() - {REST}:
                self.crowd.meet(Source.read(label))
            self._firsts.failed.update(tally.failed)
            self._firsts.malformed.update(tally.malformed)
            self._firsts.judged.update(tally.malformed)
            self._firsts.rated.update(rating.unit for rating in tally.ratings)

    def arm_records(self, arm: Arm) -> Iterator[ArmRecord]:
        """Yield an arm's records since this process began."""
        for segment in self._open:
            if arm in segment.arms:
                yield segment.arms[arm]

    def _of_source(self, arm: Arm, source: Source) -> DenseCounts:
        name = arm, self.crowd.name_of(source)
        found = self.by_source.get(name)
        if found is None:
            found = self.by_source[name] = DenseCounts()
        return found

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
        place = weight, entry.base_weight
        room = self._rooms.get(place)
        if room is None:
            room = self._rooms[place] = Room(self.policy.evidence, self.crowd)
        self.segment = OpenSegment(entry, weight, self._baseline, self._clock(), room)
        self._open.append(self.segment)


def _time(
    durations: Durations, seen: set[str], unit: str, seconds: float, part: list[int], *, tested: bool
) -> int:
    """Count a value in the histogram and, if it is a unit's first on a first turn, against thresholds.

    Return its place in the histogram.
    """
    place = durations.add(seconds)
    if tested and unit not in seen:
        if len(seen) >= MAX_UNITS:
            seen.clear()
        seen.add(unit)
        durations.test(seconds, part)
    return place


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
