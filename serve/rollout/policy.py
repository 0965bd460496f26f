"""The policy of a rollout: steps, what is tested with which share of the error budget, and time limits.

Typed and frozen; an unknown key is an error. Weights are basis points. The whole policy is written into
every entry of the rollout's log, so a later release decides an open rollout by the rules it began with.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from registry.entries.rollouts import FULL_WEIGHT
from registry.errors import CorruptStore
from registry.records import RolloutEntry
from registry.settings.models import Strict
from registry.validation.requirements import Requirement
from registry.wording import fact_of

Weight = Annotated[int, Field(ge=1, le=FULL_WEIGHT // 2)]
Alpha = Annotated[float, Field(gt=0, lt=0.5)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Part(Strict):
    model_config = ConfigDict(serialize_by_alias=True)


class RampStep(_Part):
    """One weight of the ramp and what must have been seen there before the next.

    `min_units` counts the canary's units; past `max_seconds` without them the rollout holds.
    """

    weight: Weight
    min_units: int = Field(ge=0)
    min_seconds: float = Field(ge=0)
    max_seconds: float = Field(default=86_400, gt=0)


class ErrorMetric(_Part):
    """Failed requests (first per unit): harm is a rate over `margin` times stable's."""

    alpha: Alpha = 0.02
    margin: float = Field(default=1.0, ge=1)


class LatencyMetric(_Part):
    """Exceedances of stable's quantiles from before the rollout, by first turns.

    `margin` applies to time per output token, `first_token_margin` to time to first token (the canary's
    prefix cache starts cold, so that one is at least 1.25).
    """

    alpha: Alpha = 0.015
    margin: float = Field(default=1.0, ge=1)
    first_token_margin: float = Field(default=1.25, ge=1.25)


class FeedbackMetric(_Part):
    """Scores in 0 … 1 (first per unit): harm is a mean lower than stable's by more than `tolerance`."""

    alpha: Alpha = 0.01
    tolerance: float = Field(default=0.02, ge=0, lt=1)


class FormatMetric(_Part):
    """Complete answers that break a required form (first per unit).

    `json`: the text is one JSON value; `regex`: `pattern` matches somewhere in it; `not_regex`: it does
    not (refusals); `nonempty`: there is text.
    """

    kind: Literal["json", "regex", "not_regex", "nonempty"] = "nonempty"
    pattern: str = ""
    alpha: Alpha = 0.005
    margin: float = Field(default=1.0, ge=1)


class PolicyMetrics(_Part):
    """What is tested; `null` leaves a metric out. The alphas add up to the share of false alarms."""

    errors: ErrorMetric | None = ErrorMetric()
    latency: LatencyMetric | None = LatencyMetric()
    feedback: FeedbackMetric | None = FeedbackMetric()
    format: FormatMetric | None = FormatMetric()


class Promotion(_Part):
    """What promotes at the last step: the certificate, or the bound, or (where allowed) no harm.

    `margin`: failures at most this multiple of stable's, certified at `alpha`. `bound`: an upper limit
    (share, time-uniform) of the difference, after `bound_units` canary units. `no_harm_units` and
    `no_harm_seconds`: for presets that say so, no harm found after both is enough.
    """

    alpha: Alpha = 0.05
    margin: float = Field(default=2.0, gt=1)
    bound: float = Field(default=0.01, gt=0, lt=1)
    bound_units: int = Field(default=1_000, ge=1)
    no_harm_units: int | None = Field(default=None, ge=1)
    no_harm_seconds: float = Field(default=0.0, ge=0)


class HealthLimits(_Part):
    """Limits against stable before the rollout, since both arms share one machine and slow each other.

    An arm is degraded when its failures exceed `error_factor` times the baseline's rate plus
    `error_slack` (share), or its median time per token or to first token exceeds `latency_factor` times
    the baseline's, over the last `window_seconds` and at least `min_requests`.
    """

    error_factor: float = Field(default=3.0, gt=1)
    error_slack: float = Field(default=0.05, ge=0, lt=1)
    latency_factor: float = Field(default=3.0, gt=1)
    window_seconds: float = Field(default=60.0, gt=0)
    min_requests: int = Field(default=50, ge=1)


class Shadow(_Part):
    """Mirror a share of stable's requests to the canary before any user meets it."""

    share: int = Field(default=1_000, ge=1, le=FULL_WEIGHT)
    pairs: int = Field(default=500, ge=1)
    concurrency: int = Field(default=2, ge=1)
    max_seconds: float = Field(default=3_600, gt=0)
    alpha: Alpha = 0.01


class EvidenceShares(_Part):
    """How much of a rollout's evidence one group of keys, and one key of a group, may give, at most.

    By unit and by rating, at every weight; what is beyond is left out and told. It binds where others may
    give evidence too (`serve/rollout/recording/sources.py`). 1: who gives how much does not matter, and one
    alone may decide.
    """

    group_share: Share = 0.5
    key_share: Share = 0.5

    def share_of(self, source: str) -> float:
        """Return the share of a source: a group's name, or a key's `group/key`."""
        return self.key_share if "/" in source else self.group_share


class Policy(_Part):
    """How one rollout goes.

    `unit`: what is randomised. `observe_base`: basis points of units that the bare base model answers,
    watched only. `allow` units always meet the canary, `deny` units never; both stay out of the evidence.
    `hold_action`: what a hold for suspected harm does after `hold_seconds`. `require`: what must be
    attested of the version before it begins, beside what the root requires.
    """

    name: str = "custom"
    steps: tuple[RampStep, ...] = Field(min_length=1)
    unit: Literal["conversation", "user", "request"] = "conversation"
    metrics: PolicyMetrics = PolicyMetrics()
    promotion: Promotion = Promotion()
    health: HealthLimits = Field(default=HealthLimits(), alias="guard")
    evidence: EvidenceShares = EvidenceShares()
    shadow: Shadow | None = None
    observe_base: int = Field(default=0, ge=0, le=FULL_WEIGHT // 2)
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    imbalance_alpha: Alpha = 0.001
    preload_seconds: float = Field(default=600, gt=0)
    hold_seconds: float = Field(default=86_400, gt=0)
    hold_action: Literal["rollback", "pause"] = "rollback"
    recovery_seconds: float = Field(default=60, gt=0)
    cooldown_seconds: float = Field(default=3_600, ge=0)
    deny_seconds: float = Field(default=86_400, ge=0)
    webhooks: tuple[str, ...] = ()
    require: tuple[Requirement, ...] = ()

    @property
    def alpha(self) -> float:
        """Return the rollout's whole probability of rolling back an identical canary."""
        parts = (self.metrics.errors, self.metrics.latency, self.metrics.feedback, self.metrics.format)
        shadow = self.shadow.alpha if self.shadow else 0.0
        return sum(part.alpha for part in parts if part is not None) + shadow

    @model_validator(mode="after")
    def _rise(self) -> Self:
        weights = [step.weight for step in self.steps]
        if sorted(set(weights)) != weights:
            raise ValueError(f"steps: weights must rise, found {weights}")
        if self.observe_base + weights[-1] > FULL_WEIGHT:
            raise ValueError("observe_base and the last weight exceed 10000 together")
        return self


_UNCAPPED = {"group_share": 1.0, "key_share": 1.0}
"""What a log means that a release without shares began."""


def policy_of(entry: RolloutEntry) -> Policy:
    """Return the policy that an entry of a log holds.

    Raises: CorruptStore: it is damaged, or of a later release with rules that are not known here.
    """
    subject = f"rollout of {entry.adapter}, entry {entry.seq}"
    try:
        policy = Policy.model_validate({"evidence": _UNCAPPED, **entry.policy})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        fact = f"its policy is not known here ({where}: {fact_of(first)})"
        raise CorruptStore(subject, fact, "use the release that wrote it, or abort the rollout") from error
    if not -1 <= entry.step < len(policy.steps):
        fact = f"is at step {entry.step + 1} of {len(policy.steps)}"
        raise CorruptStore(subject, fact, "restore the log from a backup, or abort the rollout")
    return policy
