"""What all statistics together say of a rollout's evidence at one look: a pure function of values."""

from __future__ import annotations

from collections.abc import Iterator

from serve.rollout.policy import Policy
from serve.rollout.recording.evidence import Baseline, Evidence
from serve.rollout.statistics import checks
from serve.rollout.statistics.corroboration import corroborate
from serve.rollout.statistics.feedback import judge_feedback
from serve.rollout.statistics.judgement import Judgement, MetricCheck
from serve.rollout.statistics.latency import judge_latency
from serve.rollout.statistics.looks import PooledCells, take
from serve.rollout.statistics.promotion import certify


def judge(policy: Policy, evidence: Evidence, baseline: Baseline) -> Judgement:
    """Return every metric of the policy, the sample-ratio check and the certificate, at this look.

    Valid at any number of looks: an identical canary is called harmful with a probability of at most
    `policy.alpha` over the whole rollout. `baseline` is stable before the rollout; without it latency is
    not judged. Takes about 1 ms, and as long again for each source that is left out by turns.
    """
    look = take(policy, evidence)
    metrics = tuple(_metrics(look, baseline))
    parts = [
        (name, {one.metric: one for one in _metrics(take(policy, part), baseline, by_clients=True)})
        for name, part in evidence.without.items()
        if policy.evidence.share_of(name) < 1
    ]
    if parts:
        metrics = tuple(
            corroborate(one, {name: checks[one.metric] for name, checks in parts if one.metric in checks})
            for one in metrics
        )
    return Judgement(metrics, checks.imbalance(look), certify(look, metrics))


def _metrics(look: PooledCells, baseline: Baseline, *, by_clients: bool = False) -> Iterator[MetricCheck]:
    """Yield each metric's check, or only those of `MADE_BY_CLIENTS`."""
    wanted = look.policy.metrics
    if wanted.errors is not None and not by_clients:
        yield checks.errors(look, wanted.errors)
    if wanted.latency is not None:
        yield from judge_latency(look, wanted.latency, baseline)
    if wanted.feedback is not None:
        yield judge_feedback(look, wanted.feedback)
    if wanted.format is not None:
        yield checks.form(look, wanted.format)
    if look.policy.shadow is not None and not by_clients:
        yield checks.shadow(look)
