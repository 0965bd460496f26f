"""Several sources of evidence, one of which floods or lies: what their shares cost, and what they keep.

`python -P -m serve.rollout.simulation.crowds` prints the table of `bench-results/evidence-shares.md`. Who
sends when is drawn a few times and passed through the real rule (`SharedRoom`), which looks at nothing else;
arms and outcomes are drawn anew for each run. Fixed seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.rollout.policy import EvidenceShares, FeedbackMetric, Policy, PolicyMetrics, RampStep
from serve.rollout.recording.evidence import Evidence, UnitScore
from serve.rollout.recording.sources import (
    RATINGS_ALLOWANCE,
    UNITS_ALLOWANCE,
    EvidenceGivers,
    SharedRoom,
    Source,
)
from serve.rollout.statistics.corroboration import corroborate
from serve.rollout.statistics.feedback import judge_feedback
from serve.rollout.statistics.judgement import MetricCheck, MetricVerdict
from serve.rollout.statistics.looks import take
from serve.rollout.statistics.share import log_harm_e, null_share

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

UNCAPPED = EvidenceShares(group_share=1, key_share=1)
_ORDERS = 10
_LOOK_EVERY = 4


@dataclass(frozen=True, slots=True)
class Member:
    """One group of a crowd: its part of the traffic, and how often stable fails its units.

    `bursts`: it sends in blocks of that many units, and nothing between them.
    """

    name: str
    part: float
    base_error: float
    bursts: int = 1


@dataclass(frozen=True, slots=True)
class Detection:
    """How a crowd's errors were judged: the share of runs rolled back, and after how much of everything.

    Medians over the runs that were: units that were sent, and canary units that counted.
    """

    rolled_back: float
    sent: float
    canary_units: float
    taken: float


def detect(
    members: Sequence[Member],
    shares: EvidenceShares,
    *,
    factor: float = 1.0,
    weight: int = 1_000,
    sent: int = 20_000,
    runs: int = 1_000,
    alpha: float = 0.05,
    seed: int = 1,
) -> Detection:
    """Return what errors alone decide when the canary fails `factor` times as often, looking at each unit."""
    luck = np.random.default_rng(seed)
    each = runs // _ORDERS
    fired, after, units, taken = [], [], [], []
    for _ in range(_ORDERS):
        order = draw_order(members, sent, luck)
        places = np.flatnonzero(admit(members, order, shares))
        taken.append(places.size / sent)
        canary = luck.random((each, places.size)) < weight / 10_000
        rates = np.array([one.base_error for one in members])[order[places]]
        failed = luck.random((each, places.size)) < np.where(canary, rates * factor, rates)
        for run in range(each):
            at = np.flatnonzero(failed[run])
            ours = np.cumsum(canary[run, at])
            log_e = log_harm_e(ours, np.arange(1, at.size + 1) - ours, null_share(weight))
            proofs = np.flatnonzero(log_e >= -np.log(alpha))
            fired.append(proofs.size > 0)
            if proofs.size:
                end = at[proofs[0]]
                after.append(places[end] + 1)
                units.append(int(canary[run, : end + 1].sum()))
    nothing = float("nan")
    return Detection(
        rolled_back=float(np.mean(fired)),
        sent=float(np.median(after)) if after else nothing,
        canary_units=float(np.median(units)) if units else nothing,
        taken=float(np.mean(taken)),
    )


def draw_order(members: Sequence[Member], sent: int, luck: np.random.Generator) -> Ints:
    """Return who sends each of `sent` units, as places among the members."""
    parts = np.array([one.part / one.bursts for one in members])
    blocks = luck.choice(len(members), size=sent, p=parts / parts.sum())
    return np.repeat(blocks, np.array([one.bursts for one in members])[blocks])[:sent]


def admit(members: Sequence[Member], order: Ints, shares: EvidenceShares) -> Flags:
    """Return which units the rule of shares takes."""
    crowd = EvidenceGivers()
    crowd.expect(frozenset(one.name for one in members))
    room = SharedRoom(shares, crowd, UNITS_ALLOWANCE)
    sources = [Source(one.name, "key") for one in members]
    return np.fromiter((room.take(sources[place]) for place in order), bool, order.size)


@dataclass(frozen=True, slots=True)
class RatedRuns:
    """Shares of runs by how a rollout ended: taken back, or held for a person, or neither (promoted)."""

    rolled_back: float
    disputed: float

    @property
    def promoted(self) -> float:
        """Return the share of runs that nothing stopped."""
        return 1 - self.rolled_back - self.disputed


def rate_by_arm(
    users: tuple[float, float],
    attacker: tuple[float, float],
    shares: EvidenceShares,
    *,
    made_up: int = 5,
    rounds: int = 200,
    runs: int = 100,
    seed: int = 2,
) -> RatedRuns:
    """Return how rollouts at 50 % end where one group rates by arm beside another's honest users.

    `users` and `attacker` are the mean scores that each gives stable and canary; for each rating of the users
    the attacker tries `made_up`. A rollout ends at proof (looked for at each fourth rating of the users), and
    else after `rounds` of them.
    """
    luck = np.random.default_rng(seed)
    policy = Policy(
        steps=(RampStep(weight=5_000, min_units=0, min_seconds=0),),
        metrics=PolicyMetrics(errors=None, latency=None, feedback=FeedbackMetric(), format=None),
        evidence=shares,
    )
    ends = [_rate_once(users, attacker, policy, made_up, rounds, luck) for _ in range(runs)]
    back = ends.count(MetricVerdict.FAIL) / runs
    return RatedRuns(back, ends.count(MetricVerdict.SUSPICIOUS) / runs)


def _rate_once(
    users: tuple[float, float],
    attacker: tuple[float, float],
    policy: Policy,
    made_up: int,
    rounds: int,
    luck: np.random.Generator,
) -> MetricVerdict:
    crowd = EvidenceGivers()
    crowd.expect(frozenset({"users", "rival"}))
    room = SharedRoom(policy.evidence, crowd, RATINGS_ALLOWANCE)
    scores: list[UnitScore] = []
    check = _check(policy, scores)
    for turn in range(rounds):
        for name, means in (("users", users), *(("rival", attacker),) * made_up):
            if room.take(Source(name, "key")):
                canary = bool(luck.random() < 0.5)
                score = float(luck.random() < means[canary])
                scores.append(UnitScore(float(len(scores)), canary, 5_000, score, f"{name}/key"))
        if turn % _LOOK_EVERY:
            continue
        check = _check(policy, scores)
        if check.verdict is MetricVerdict.FAIL:
            return check.verdict
    check = _check(policy, scores)
    return MetricVerdict.SUSPICIOUS if check.disputed else MetricVerdict.PASS


def _check(policy: Policy, scores: list[UnitScore]) -> MetricCheck:
    metric = policy.metrics.feedback
    assert metric is not None
    without = {
        name: judge_feedback(take(policy, Evidence(scores=left)), metric)
        for name in ("users", "rival")
        if policy.evidence.share_of(name) < 1
        and (left := tuple(one for one in scores if not one.source.startswith(name)))
    }
    return corroborate(judge_feedback(take(policy, Evidence(scores=tuple(scores))), metric), without)


EVEN: tuple[Member, ...] = (Member("one", 0.5, 0.02), Member("two", 0.5, 0.02))
UNEQUAL = (Member("product", 0.95, 0.01), Member("checks", 0.05, 0.10))
BURSTS = (Member("product", 0.5, 0.01), Member("batch", 0.5, 0.10, bursts=2_000))
SMALL = (Member("product", 0.95, 0.02), Member("checks", 0.05, 0.02))
CROWDS = {
    "two alike": EVEN,
    "95 % and 5 %, 1 % and 10 % fail": UNEQUAL,
    "bursts of 2,000 that fail 10 %": BURSTS,
}
GOOD, BAD, AGAINST, FOR = (0.8, 0.8), (0.8, 0.3), (1.0, 0.0), (0.0, 1.0)
HALF = EvidenceShares()


def false_alarms() -> list[str]:
    """Return how often an identical canary is rolled back, as lines of Markdown."""
    lines = [
        "| identical canary, errors alone, α = 0.05 | shares | taken | rolled back |",
        "|---|---|---|---|",
    ]
    for name, members in CROWDS.items():
        for shares in (UNCAPPED, HALF):
            found = detect(members, shares)
            lines.append(f"| {name} | {shares.group_share:g} | {found.taken:.0%} | {found.rolled_back:.2%} |")
    return lines


def detections() -> list[str]:
    """Return how soon a bad canary is found, as lines of Markdown."""
    lines = ["| the canary fails five times as often | shares | rolled back | units sent | canary units |"]
    lines += ["|---|---|---|---|---|"]
    for name, members in {"one group": SMALL[:1], "two alike": EVEN, "95 % and 5 %": SMALL}.items():
        for shares in (UNCAPPED, HALF):
            found = detect(members, shares, factor=5.0)
            told = f"{found.rolled_back:.1%} | {found.sent:,.0f} | {found.canary_units:,.0f}"
            lines.append(f"| {name} | {shares.group_share:g} | {told} |")
    return lines


def attacks() -> list[str]:
    """Return how rollouts end where one of two groups rates by arm, as lines of Markdown."""
    lines = ["| ratings at 50 %, one of two groups rates by arm | shares | taken back | held | promoted |"]
    lines += ["|---|---|---|---|---|"]
    played = {
        "good canary, nobody lies": (GOOD, GOOD),
        "good canary, rated down": (GOOD, AGAINST),
        "bad canary, nobody lies": (BAD, BAD),
        "bad canary, rated up": (BAD, FOR),
    }
    for name, (users, attacker) in played.items():
        for shares in (UNCAPPED, HALF):
            ends = rate_by_arm(users, attacker, shares)
            told = f"{ends.rolled_back:.0%} | {ends.disputed:.0%} | {ends.promoted:.0%}"
            lines.append(f"| {name} | {shares.group_share:g} | {told} |")
    return lines


if __name__ == "__main__":
    for table in (false_alarms, detections, attacks):
        sys.stdout.write("\n".join([*table(), "", ""]))
