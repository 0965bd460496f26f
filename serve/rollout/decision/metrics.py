"""Prometheus families of the rollouts as this replica sees them.

Open rollouts have all series; one that ended keeps its state for a while. The event loop writes plain
values, a scrape reads them. Labels are closed sets: adapters with a rollout, and words of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from registry.entries.rollouts import FULL_WEIGHT
from registry.records import RolloutEntry
from serve.exposition import LOAD_SECONDS, Histogram, counter, gauge, histogram
from serve.rollout.decision.states import RolloutState
from serve.rollout.recording.evidence import ReplicaEvidence
from serve.rollout.statistics.judgement import Judgement

ALERT = "alert"
"""The reason of a record that an alert asked for."""

KEPT_ENDED = 50
"""Adapters whose last rollout has ended and that still show its state."""


@dataclass(slots=True)
class _Shown:
    entry: RolloutEntry
    judgement: Judgement | None = None
    units: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)


class RolloutMetrics:
    """A collector; `note` and `transition` are called by the controller alone."""

    def __init__(self) -> None:
        self._shown: dict[str, _Shown] = {}
        self._transitions: Counter[tuple[str, str, str]] = Counter()
        self._analyses: Counter[tuple[str, str, str]] = Counter()
        self._rollbacks: dict[str, Histogram] = {}

    def note(
        self, entry: RolloutEntry, documents: list[ReplicaEvidence], judgement: Judgement | None
    ) -> None:
        """Keep what one look at a rollout showed."""
        shown = _Shown(entry, judgement)
        for document in documents:
            for segment in document.segments:
                for arm, tally in segment.arms.items():
                    shown.units[arm] = shown.units.get(arm, 0) + tally.units
                    if segment.seq == entry.seq:
                        shown.requests[arm] = shown.requests.get(arm, 0) + tally.requests
        self._shown.pop(entry.adapter, None)
        self._shown[entry.adapter] = shown
        self._trim()
        if judgement is not None:
            for check in (*judgement.checks, judgement.imbalance):
                self._analyses[entry.adapter, check.metric, _VERDICTS[check.verdict.value]] += 1

    def transition(self, entry: RolloutEntry) -> None:
        """Count a record of the log that this replica saw for the first time."""
        self._transitions[entry.adapter, entry.state, trigger_of(entry)] += 1

    def rolled_back(self, trigger: str, seconds: float) -> None:
        """Count a rollback that has reached every live replica."""
        found = self._rollbacks.setdefault(trigger, Histogram(LOAD_SECONDS))
        found.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield the families (called by prometheus_client at a scrape)."""
        shown = sorted(self._shown.items())
        states = [
            ((name, state.value), float(one.entry.state == state))
            for name, one in shown
            for state in RolloutState
        ]
        text = "1 for the state that the adapter's rollout is in."
        yield gauge("wardrobe_rollout_state", text, ("adapter", "state"), states)
        yield from _weights([(name, one) for name, one in shown if one.entry.open])
        yield from _looks([(name, one) for name, one in shown if one.entry.open])
        labels = ("adapter", "to", "trigger")
        text = "Records of rollout logs as this replica saw them."
        yield counter("wardrobe_rollout_transitions", text, labels, list(self._transitions.items()))
        labels = ("adapter", "check", "verdict")
        text = "Looks at the evidence by what they showed."
        yield counter("wardrobe_rollout_analysis", text, labels, list(self._analyses.items()))
        rows = [((trigger,), found) for trigger, found in self._rollbacks.items()]
        text = "Seconds from the decision until no live replica sends anything to the canary."
        yield histogram("wardrobe_rollback_duration_seconds", text, ("trigger",), rows)

    def _trim(self) -> None:
        ended = [name for name, one in self._shown.items() if not one.entry.open]
        for name in ended[:-KEPT_ENDED]:
            del self._shown[name]


_VERDICTS = {"pass": "pass", "fail": "fail", "suspicious": "inconclusive", "insufficient": "nodata"}


def trigger_of(entry: RolloutEntry) -> str:
    """Return who moved a rollout, as a label: `auto` (a replica), `alert` or `operator`."""
    if entry.who.startswith("replica "):
        return "auto"
    return "alert" if entry.reason == ALERT else "operator"  # an alert comes with somebody's key


def _weights(shown: list[tuple[str, _Shown]]) -> Iterator[Metric]:
    target = [row for name, one in shown for row in _targets(name, one.entry.weight, one.entry.base_weight)]
    labels = ("adapter", "arm")
    text = "Share of units that each arm is to get."
    yield gauge("wardrobe_rollout_target_weight_ratio", text, labels, target)
    observed = [
        ((name, arm), count / (sum(one.requests.values()) or 1))
        for name, one in shown
        for arm, count in sorted(one.requests.items())
    ]
    text = "Share of requests that each arm got under the present record."
    yield gauge("wardrobe_rollout_observed_weight_ratio", text, labels, observed)
    rows = [((name,), float(one.entry.step)) for name, one in shown]
    yield gauge("wardrobe_rollout_step", "Step of the policy, from 0; -1 before.", ("adapter",), rows)
    rows = [((name,), one.entry.step_since) for name, one in shown]
    text = "When the present step began, UNIX seconds."
    yield gauge("wardrobe_rollout_step_started_timestamp_seconds", text, ("adapter",), rows)


def _targets(name: str, weight: int, base: int) -> Iterator[tuple[tuple[str, str], float]]:
    for arm, share in (("canary", weight), ("base", base), ("stable", FULL_WEIGHT - weight - base)):
        yield (name, arm), share / FULL_WEIGHT


def _looks(shown: list[tuple[str, _Shown]]) -> Iterator[Metric]:
    values = [
        ((name, check.metric, arm), value)
        for name, one in shown
        if one.judgement is not None
        for check in one.judgement.checks
        for arm, value in (("stable", check.stable), ("canary", check.canary))
        if value is not None
    ]
    text = "What the arms are compared by."
    yield gauge("wardrobe_rollout_analysis_value", text, ("adapter", "check", "arm"), values)
    rows = [((name, arm), float(count)) for name, one in shown for arm, count in sorted(one.units.items())]
    text = "Units that each arm has served, summed over replicas."
    yield gauge("wardrobe_rollout_samples", text, ("adapter", "arm"), rows)
