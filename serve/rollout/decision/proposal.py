"""What should happen to a rollout now: a pure function of its record, its policy and what is known.

`serve.rollout.decision.machine` says what an event does; this module says which one is due. Order: what
protects users comes first (a version that may not be served, alarms), then what waits,
then what moves forward. Invariant: nothing moves forward on evidence that is missing, stale or odd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.records import RolloutEntry
from serve.rollout.decision.health import Health
from serve.rollout.decision.machine import DISPUTED, PRELOAD, SUSPECT, SUSPICIOUS
from serve.rollout.decision.preflight import Preflight
from serve.rollout.decision.states import Event, EventType, RolloutState
from serve.rollout.policy import Policy
from serve.rollout.recording.attributing import give_shares
from serve.rollout.recording.evidence import Baseline, Evidence
from serve.rollout.statistics.judgement import Judgement, MetricCheck, MetricVerdict

if TYPE_CHECKING:
    from pydantic import JsonValue

INSUFFICIENT = "insufficient"
IMBALANCE = "imbalance"
NO_HARM = "no_harm"
TOLD_SOURCES = 5
"""Sources whose shares a decision's facts name, where there are several."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a proposal stands on.

    `fresh`: every live replica's evidence is recent and acts on this record. `forbidden`: why a version of
    the rollout may not be served (quarantined, deleted), '' when both may. `new_baseline`: thresholds to
    freeze, None while they are frozen or cannot be known.
    """

    judgement: Judgement
    evidence: Evidence
    preflight: Preflight
    health: Health
    fresh: bool = True
    forbidden: str = ""
    new_baseline: Baseline | None = None


def propose(entry: RolloutEntry, policy: Policy, now: Situation, who: str, at: float) -> Event | None:
    """Return the event that is due at `at` (UNIX seconds), or None to wait."""
    if not entry.open:
        return None
    return _Proposal(entry, policy, now, who, at).decide()


@dataclass(frozen=True, slots=True)
class _Proposal:
    entry: RolloutEntry
    policy: Policy
    now: Situation
    who: str
    at: float

    def decide(self) -> Event | None:
        state = RolloutState(self.entry.state)
        protect = self._protect(state)
        if protect is not None:
            return protect
        if state is RolloutState.PRELOADING:
            return self._preloading()
        if self.now.new_baseline is not None:
            return self._freeze(self.now.new_baseline)
        if state is RolloutState.SHADOW:
            return self._shadow()
        if state is RolloutState.RAMPING:
            return self._ramping()
        if state is RolloutState.HOLD:
            return self._hold()
        if (
            state is RolloutState.PROMOTED
            and self._age(self.entry.state_since) >= self.policy.cooldown_seconds
        ):
            return self._event(EventType.COOLED, "cooled", "the cool-down passed without harm")
        return None

    def _protect(self, state: RolloutState) -> Event | None:
        if self.now.forbidden:
            return self._event(EventType.ROLL_BACK, "forbidden", self.now.forbidden)
        if state is RolloutState.PRELOADING:
            return None
        if state is RolloutState.PROMOTED:
            return self._protect_promoted()
        alarm = next(
            (check for check in self.now.judgement.checks if check.verdict is MetricVerdict.FAIL), None
        )
        if alarm is not None:
            facts = _facts(alarm) | _shares(self.now.evidence)
            return self._event(EventType.ROLL_BACK, alarm.metric, alarm.sentence, facts)
        suspended = state is RolloutState.HOLD and self.entry.reason == SUSPECT
        both = self.now.health.stable_degraded and self.now.health.canary_degraded
        if not suspended and self.entry.weight and both:
            return self._event(EventType.SUSPECT, SUSPECT, self.now.health.sentence)
        return None

    def _protect_promoted(self) -> Event | None:
        # No control is left: only a wide absolute limit can speak, so it is not exact.
        if self.now.health.canary_degraded:
            return self._event(EventType.ROLL_BACK, "absolute", self.now.health.sentence)
        return None

    def _preloading(self) -> Event | None:
        preflight = self.now.preflight
        if preflight.failed:
            return self._event(EventType.ROLL_BACK, PRELOAD, preflight.failed)
        if preflight.ready:
            return self._event(EventType.LOADED, "loaded", "every live replica holds both versions, proved")
        if self._age(self.entry.state_since) >= self.policy.preload_seconds:
            return self._event(
                EventType.TIMEOUT,
                PRELOAD,
                f"not ready after {self.policy.preload_seconds:g} s: {preflight.missing}",
            )
        return None

    def _freeze(self, baseline: Baseline) -> Event:
        sentence = f"stable's thresholds were frozen from {baseline.requests} requests"
        return self._event(EventType.BASELINE, "baseline", sentence, {"baseline": baseline.model_dump()})

    def _shadow(self) -> Event | None:
        shadow, seen = self.policy.shadow, self.now.evidence.compared
        if shadow is None or seen >= shadow.pairs:
            return self._event(EventType.SHADOWED, "shadowed", f"{seen} shadowed pairs showed no harm")
        if self._age(self.entry.state_since) >= shadow.max_seconds:
            return self._event(
                EventType.HOLD,
                INSUFFICIENT,
                f"{seen} of {shadow.pairs} shadowed pairs after {shadow.max_seconds:g} s",
            )
        return None

    def _ramping(self) -> Event | None:
        if not self.now.fresh:
            # A replica that just restarted or follows within a second is no reason to hold.
            return None
        obstacle = self._obstacle()
        if obstacle is not None:
            return obstacle
        step = self.policy.steps[self.entry.step]
        age, units = self._age(self.entry.step_since), self.now.evidence.step_units
        last = self.entry.step == len(self.policy.steps) - 1
        if units >= step.min_units and age >= step.min_seconds and not self._is_silent():
            if not last:
                sentence = f"{units} canary units in {age:.0f} s at {step.weight / 100:g} % showed no harm"
                return self._event(EventType.ADVANCE, "advance", sentence, self._all_facts())
            certificate = self.now.judgement.certificate
            if self._certified(age):
                return self._event(
                    EventType.PROMOTE, certificate.how, certificate.sentence, self._all_facts()
                )
        if age >= step.max_seconds:
            return self._event(EventType.HOLD, INSUFFICIENT, self._lacking(units), self._all_facts())
        return None

    def _obstacle(self) -> Event | None:
        odd = self.now.judgement.imbalance
        if odd.verdict is MetricVerdict.FAIL:
            return self._event(EventType.HOLD, IMBALANCE, odd.sentence, _facts(odd))
        alarm = self._suspicious()
        if alarm is not None:
            reason = DISPUTED if alarm.disputed else SUSPICIOUS
            return self._event(
                EventType.HOLD, reason, alarm.sentence, _facts(alarm) | _shares(self.now.evidence)
            )
        return None

    def _hold(self) -> Event | None:
        if self.entry.reason == SUSPECT:
            suspended = self._suspended()
            if suspended is not None:
                return suspended
        elif self._cleared():
            return self._event(EventType.CLEAR, "clear", "what held the rollout is gone")
        if self._age(self.entry.state_since) >= self.policy.hold_seconds:
            return self._event(
                EventType.TIMEOUT,
                self.entry.reason,
                f"held for {self.policy.hold_seconds:g} s: {self.entry.sentence}",
            )
        return None

    def _suspended(self) -> Event | None:
        """Decide who was the cause: without the canary stable recovers, or it does not."""
        health, waited = self.now.health, self._age(self.entry.state_since)
        if waited >= self.policy.recovery_seconds and health.measured and health.stable_degraded:
            return self._event(
                EventType.CLEAR, "unrelated", f"stable is still degraded {waited:.0f} s after the canary left"
            )
        if health.measured and not health.stable_degraded:
            return self._event(
                EventType.ROLL_BACK, SUSPECT, f"stable recovered {waited:.0f} s after the canary left"
            )
        return None

    def _cleared(self) -> bool:
        if not self.now.fresh:
            return False
        if self.entry.reason == IMBALANCE:
            return self.now.judgement.imbalance.verdict is not MetricVerdict.FAIL
        if self.entry.reason in {SUSPICIOUS, DISPUTED}:
            return self._suspicious() is None
        if self.entry.reason == INSUFFICIENT and self.entry.step >= 0:
            step = self.policy.steps[self.entry.step]
            last = self.entry.step == len(self.policy.steps) - 1
            enough = self.now.evidence.step_units >= step.min_units
            return enough and (not last or self._certified(self._age(self.entry.step_since)))
        return False

    def _certified(self, age_seconds: float) -> bool:
        """Return whether the last step may promote; silence of a metric is enough only for `no_harm`."""
        judgement = self.now.judgement
        if judgement.certificate.how == NO_HARM:
            return age_seconds >= self.policy.promotion.no_harm_seconds
        return judgement.certificate.reached and judgement.worst is MetricVerdict.PASS

    def _is_silent(self) -> bool:
        """Return whether failures as gross as half of the canary's could not have shown by now."""
        checks = self.now.judgement.checks
        return any(one.metric == "errors" and one.verdict is MetricVerdict.INSUFFICIENT for one in checks)

    def _suspicious(self) -> MetricCheck | None:
        """Return what stops the ramp; first what all sources together say."""
        checks = self.now.judgement.checks
        found = [check for check in checks if check.verdict is MetricVerdict.SUSPICIOUS]
        return min(found, key=lambda check: check.disputed, default=None)

    def _lacking(self, units: int) -> str:
        step = self.policy.steps[self.entry.step]
        share = step.weight / 100
        text = f"{units} of {step.min_units} canary units after {step.max_seconds:g} s at {share:g} %"
        needed = self.now.judgement.certificate.needed
        return f"{text}; about {needed} more would certify it" if needed else text

    def _all_facts(self) -> dict[str, JsonValue]:
        facts: dict[str, JsonValue] = {"step_units": self.now.evidence.step_units}
        for check in self.now.judgement.checks:
            facts.update({f"{check.metric}.{name}": value for name, value in _facts(check).items()})
        return facts | _shares(self.now.evidence)

    def _age(self, since: float) -> float:
        return max(0.0, self.at - since)

    def _event(
        self, occasion: EventType, reason: str, sentence: str, facts: Mapping[str, JsonValue] | None = None
    ) -> Event:
        return Event(occasion, self.who, reason, sentence, facts or {})


def _shares(evidence: Evidence) -> dict[str, JsonValue]:
    """Return how much of the evidence the largest sources gave, and what of theirs was left out."""
    found = list(give_shares(evidence.parts).items())[:TOLD_SOURCES]
    return {
        f"from {name}.{what}": getattr(part, what)
        for name, part in found
        for what in ("units", "units_left_out", "ratings", "ratings_left_out")
        if len(found) > 1
    }


def _facts(check: MetricCheck) -> dict[str, JsonValue]:
    return {
        "metric": check.metric,
        "verdict": check.verdict.value,
        "log_e": round(check.log_e, 4),
        "alpha": check.alpha,
        "stable": check.stable,
        "canary": check.canary,
        "needed": check.needed,
    }
