"""What a rollout waits for, in sentences: never empty while it is open and not in its cool-down's end.

Pure functions. They tell what the proposal will look at; they decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from registry.records import RolloutEntry
from serve.rollout.decision.states import RolloutState
from serve.rollout.display.explain import share
from serve.rollout.display.sources import left_out
from serve.rollout.documents import ReporterDocument, version_name
from serve.rollout.policy import Policy, RampStep
from serve.rollout.recording.evidence import Evidence
from serve.rollout.statistics.judgement import Judgement, MetricCheck, MetricVerdict

NO_HARM = "no_harm"
STALE_SECONDS = 10.0
"""Older evidence of a live replica is said to be missing; it is written every second."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A rollout at one moment; `now` is UNIX seconds."""

    entry: RolloutEntry
    policy: Policy
    evidence: Evidence
    judgement: Judgement
    reporters: Sequence[ReporterDocument]
    now: float
    proved: bool = True

    @property
    def step(self) -> RampStep | None:
        """Return the present step, None before the first."""
        return self.policy.steps[self.entry.step] if 0 <= self.entry.step < len(self.policy.steps) else None

    @property
    def last_step(self) -> bool:
        """Return whether the promotion comes next."""
        return self.entry.step == len(self.policy.steps) - 1

    @property
    def needed(self) -> int:
        """Return how many more canary units this step wants; 0 where it is not units that are missing."""
        if self.step is None or RolloutState(self.entry.state) not in _COUNTING:
            return 0
        units = max(0, self.step.min_units - self.evidence.step_units)
        certificate = self.judgement.certificate
        certified = 0 if certificate.reached or not self.last_step else certificate.needed
        return max([units, certified, *(check.needed for check in self.silent)])

    @property
    def silent(self) -> list[MetricCheck]:
        """Return the metrics that the promotion waits for; where no harm is enough, none."""
        if not self.last_step or self.judgement.certificate.how == NO_HARM:
            return []
        checks = self.judgement.checks
        return [one for one in checks if one.required and one.verdict is MetricVerdict.INSUFFICIENT]


def missing(waiting: Waiting) -> list[str]:
    """Return what the rollout waits for; nothing once it is over."""
    state = RolloutState(waiting.entry.state)
    return list(_SENTENCES[state](waiting)) if state in _SENTENCES else []


def _preloading(waiting: Waiting) -> Iterator[str]:
    entry = waiting.entry
    live = [one for one in waiting.reporters if one.live]
    if not live:
        yield "no server is alive: start one with `wardrobe serve`"
    for one in live:
        lacking = [
            version_name(entry.adapter, number)
            for number, held in ((entry.canary, one.holds_canary), (entry.stable, one.holds_stable))
            if not held
        ]
        if lacking:
            yield f"{one.replica} has not loaded {' and '.join(lacking)}"
    if live and not waiting.proved:
        yield f"{version_name(entry.adapter, entry.canary)} is not proved yet"
    left = entry.state_since + waiting.policy.preload_seconds - waiting.now
    yield f"{max(0.0, left):.0f} s are left for loading"


def _shadow(waiting: Waiting) -> Iterator[str]:
    pairs, wanted = waiting.evidence.pairs, waiting.policy.shadow
    seen = sum(count for name, count in pairs.items() if name != "dropped")
    if wanted is not None and seen < wanted.pairs:
        yield f"{seen} of {wanted.pairs} shadowed pairs"
    yield from _odd(waiting)


def _ramping(waiting: Waiting) -> Iterator[str]:
    step = waiting.step
    if step is not None:
        units, dwelt = waiting.evidence.step_units, waiting.now - waiting.entry.step_since
        if units < step.min_units:
            yield f"{units} of {step.min_units} canary units at {share(step.weight)}"
        if dwelt < step.min_seconds:
            yield f"{max(0.0, dwelt):.0f} of {step.min_seconds:g} s at {share(step.weight)}"
    if waiting.last_step:
        yield from _promotion(waiting)
    yield from left_out(waiting.evidence, waiting.policy.evidence)
    yield from _odd(waiting)


def _promotion(waiting: Waiting) -> Iterator[str]:
    certificate, wanted = waiting.judgement.certificate, waiting.policy.promotion.no_harm_seconds
    dwelt = max(0.0, waiting.now - waiting.entry.step_since)
    if certificate.how == NO_HARM and dwelt < wanted:
        yield f"{dwelt:.0f} of {wanted:g} s without harm"
    elif not certificate.reached and certificate.sentence:
        yield f"the promotion: {certificate.sentence}"
    for check in waiting.silent:
        yield f"{check.metric}: {check.sentence}"


def _odd(waiting: Waiting) -> Iterator[str]:
    """Yield what holds a rollout although there is enough of everything."""
    for check in waiting.judgement.checks:
        if check.verdict is MetricVerdict.SUSPICIOUS:
            yield f"suspicious: {check.sentence}"
    if waiting.judgement.imbalance.verdict in {MetricVerdict.FAIL, MetricVerdict.SUSPICIOUS}:
        yield f"imbalance: {waiting.judgement.imbalance.sentence}"
    live = [one for one in waiting.reporters if one.live]
    if not live:
        yield "no server is alive: nothing is counted and no step is taken"
    for one in live:
        if one.evidence_age is None:
            yield f"{one.replica} has written no evidence of this rollout"
        elif one.evidence_age > STALE_SECONDS:
            yield f"{one.replica} wrote evidence {one.evidence_age:.0f} s ago"
        elif one.seq < waiting.entry.seq:
            yield f"{one.replica} still acts on entry {one.seq} of {waiting.entry.seq}"
        if one.braking:
            yield f"{one.replica} brakes: it sends the canary's share to stable"


def _hold(waiting: Waiting) -> Iterator[str]:
    entry = waiting.entry
    yield f"held: {entry.sentence or entry.reason}"
    yield from _ramping(waiting)
    left = entry.state_since + waiting.policy.hold_seconds - waiting.now
    yield f"the hold ends in {max(0.0, left):.0f} s ({waiting.policy.hold_action} on suspected harm)"


def _paused(waiting: Waiting) -> Iterator[str]:
    adapter = waiting.entry.adapter
    yield f"a person paused it: `wardrobe rollout resume {adapter}` goes on, `abort {adapter}` takes it back"


def _promoted(waiting: Waiting) -> Iterator[str]:
    left = waiting.entry.state_since + waiting.policy.cooldown_seconds - waiting.now
    yield f"{max(0.0, left):.0f} s of the cool-down are left; {_stable(waiting)} stays loaded for a way back"


def _stable(waiting: Waiting) -> str:
    return version_name(waiting.entry.adapter, waiting.entry.stable)


_COUNTING = frozenset({RolloutState.RAMPING, RolloutState.HOLD})
_SENTENCES = {
    RolloutState.PRELOADING: _preloading,
    RolloutState.SHADOW: _shadow,
    RolloutState.RAMPING: _ramping,
    RolloutState.HOLD: _hold,
    RolloutState.PAUSED: _paused,
    RolloutState.PROMOTED: _promoted,
}
