"""The JSON documents of rollouts: what `rollout … --json` prints, and what the admin API takes and gives.

Owns their shapes only. Invariant as in `registry.api.documents`: a field is never renamed or removed within
one major version. Weights are basis points, times UNIX seconds, durations seconds, rates shares 0 … 1.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue

from registry.api.documents import Document, Request
from registry.records import RolloutEntry
from registry.settings.file import check
from serve.rollout.policy import Policy, RampStep
from serve.rollout.presets import DEFAULT
from serve.rollout.statistics.judgement import Certificate

Why = Annotated[str, Field(max_length=1_000)]


BASE = "base"
"""What stands for the control of an adapter that has no stable version yet."""


def version_name(adapter: str, number: int) -> str:
    """Return `NAME@N`, or `base` for 0."""
    return f"{adapter}@{number}" if number else BASE


class EntryDocument(Document):
    """Shows an entry of a rollout's log, its versions by name."""

    @classmethod
    def of(cls, entry: RolloutEntry, **more: object) -> Self:
        """Return the entry in this form; `more` is what the entry does not hold, or holds otherwise."""
        own = {name: getattr(entry, name) for name in cls.model_fields if hasattr(entry, name)}
        stable, canary = (version_name(entry.adapter, number) for number in (entry.stable, entry.canary))
        return cls.model_validate({**own, "stable": stable, "canary": canary, **more})


class StepDocument(RampStep):
    """One step of the policy; `state` is done, now or ahead."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    max_seconds: float = Field(gt=0)  # always answered, so no default
    state: Literal["done", "now", "ahead"]


class RateDocument(Document):
    """A rate with its 95 % Wilson interval, of `of` units; `value` is null where there is none."""

    count: int
    of: int
    value: float | None
    low: float
    high: float


class ArmDocument(Document):
    """One arm over the whole rollout, all replicas united.

    `units` are distinct; `errors` and `malformed` count units with a first failure or a first broken
    form. `outcomes`, `finish` and `rescued` count requests. Medians and means are null without values.
    """

    version: str
    units: int
    requests: int
    errors: RateDocument
    malformed: RateDocument
    outcomes: dict[str, int]
    finish: dict[str, int]
    rescued: int
    first_token_median: float | None
    per_token_median: float | None
    output_tokens_mean: float | None
    ratings: int
    feedback_mean: float | None


class SourceDocument(Document):
    """How much of the evidence one key gave, over the whole rollout, and what was left out.

    `key` is its id; a `group` and `key` of `*` are the others together. Shares are of all units, and of all
    ratings, that were taken. What is left out was beyond its group's share or its own (policy `evidence`).
    """

    group: str
    key: str
    units: int
    units_left_out: int
    units_share: float
    ratings: int
    ratings_left_out: int
    ratings_share: float


class CheckDocument(Document):
    """One metric's verdict: pass, suspicious, fail or insufficient.

    `progress` is log e / ln(1/alpha) within 0 … 1: the alarm goes off at 1. `needed` is how many more
    canary units would let it speak. `disputed`: one group, or key, alone raises its alarm or hides one.
    """

    metric: str
    verdict: str
    log_e: float
    alpha: float
    progress: float
    stable: float | None
    canary: float | None
    needed: int
    sentence: str
    disputed: bool = False


class ReporterDocument(Document):
    """One replica's part: `evidence_age` is null where it has written none.

    `seq` is the newest record of the log that it acts on; `braking` says that it sends the canary's share
    to stable by itself.
    """

    replica: str
    live: bool
    holds_canary: bool
    holds_stable: bool
    evidence_age: float | None
    seq: int
    braking: bool


class DecisionDocument(EntryDocument):
    """One entry of a rollout's log: who moved it, when, why, and on what numbers."""

    adapter: str
    rollout: str
    seq: int
    at: float
    who: str
    event: str
    state: str
    previous: str
    stable: str
    canary: str
    weight: int
    step: int
    reason: str
    sentence: str
    forced: bool
    facts: dict[str, JsonValue]


class RolloutBrief(EntryDocument):
    """One adapter's last rollout in a line; `stable` is `base` where the base model is the control."""

    adapter: str
    rollout: str
    state: str
    open: bool
    stable: str
    canary: str
    weight: int
    step: int
    steps: int
    policy: str
    reason: str
    sentence: str
    began: float
    at: float


class RolloutList(Document):
    """The last rollout of every adapter that ever had one; `problems` are those that cannot be read."""

    rollouts: list[RolloutBrief]
    problems: dict[str, str] = Field(default_factory=dict)


class RolloutStatus(EntryDocument):
    """A rollout with all that is known of it; the same from the root and over HTTP.

    `weight` is in force now, `held_weight` what a suspended rollout goes back to; `step` counts `steps`
    from 0, -1 before the first. `sources` say whose the evidence is, most first. `reason` is one word,
    `sentence` is for people. `missing` says in sentences what the rollout waits for, `decisions` are the last
    ones, newest last.
    """

    adapter: str
    rollout: str
    seq: int
    state: str
    open: bool
    stable: str
    canary: str
    stable_digest: str
    canary_digest: str
    weight: int
    base_weight: int
    shadow: int
    held_weight: int
    step: int
    resumes: str
    event: str
    reason: str
    sentence: str
    who: str
    forced: bool
    policy: str
    unit: str
    alpha: float
    began: float
    state_since: float
    step_since: float
    at: float
    now: float
    steps: list[StepDocument]
    step_units: int
    arms: dict[str, ArmDocument]
    pairs: dict[str, int]
    sources: list[SourceDocument] = Field(default_factory=list)
    checks: list[CheckDocument]
    imbalance: CheckDocument | None
    certificate: Certificate | None
    needed: int
    missing: list[str]
    replicas: list[ReporterDocument]
    decisions: list[DecisionDocument]


class StartedDocument(Document):
    """A rollout that has begun; `superseded` is the canary of the one that it ended, if one was open."""

    superseded: str | None
    warnings: list[str]
    status: RolloutStatus


class ExplainDocument(Document):
    """Every decision of one rollout, oldest first."""

    adapter: str
    rollout: str
    stable: str
    canary: str
    decisions: list[DecisionDocument]


class RolloutHistory(Document):
    """Every decision of every rollout of one adapter, oldest first."""

    adapter: str
    decisions: list[DecisionDocument]


class DetectionDocument(Document):
    """How many failures and canary requests show a canary that fails `factor` times as often."""

    factor: float
    failures: int
    canary_requests: int


class PlannedStep(Document):
    """One step of a plan; `requests` are those of the adapter, at one request a unit."""

    weight: int
    min_units: int
    min_seconds: float
    requests: int
    detects: list[DetectionDocument]


class PlannedMetric(Document):
    """What is tested with which share of the false alarms."""

    metric: str
    alpha: float
    sentence: str


class PlanDocument(Document):
    """What a start would do; nothing was changed. `base_rate` is the assumed share of failures."""

    adapter: str
    stable: str
    canary: str
    policy: str
    supersedes: str | None
    forced: bool
    base_rate: float
    base_rate_from: str
    shadow_requests: int
    steps: list[PlannedStep]
    metrics: list[PlannedMetric]
    alpha: float
    requests: int
    seconds: float
    promotes: str
    requires: tuple[str, ...] = ()
    warnings: list[str]


def _named_faults(policy: object) -> object:
    """Validate a policy's document with errors that name its own keys, not those of a union's branches."""
    if not isinstance(policy, dict):
        return policy
    return check(policy, Policy, "policy", see="serve/rollout/README.md", param="policy")


class StartRequest(Request):
    """Which version to roll out, and how: a preset's name, or a whole policy with weights in basis points.

    `force` starts a version that was rolled back lately, or, with the reason in `note`, one that lacks
    what is required.
    """

    version: int = Field(ge=1, le=999_999_999)
    policy: Annotated[Policy | str, BeforeValidator(_named_faults)] = DEFAULT
    force: bool = False
    note: Why = ""


class WhyRequest(Request):
    """Why a person moves a rollout; kept in its log."""

    why: Why = ""


class AlertActionDocument(Document):
    """What became of one alert: aborted, paused, or ignored and why."""

    alert: str
    adapter: str
    action: Literal["aborted", "paused", "ignored"]
    because: str


class AlertsDocument(Document):
    """What a delivery of Alertmanager led to."""

    actions: list[AlertActionDocument]
