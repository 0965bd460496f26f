"""The report of a run as JSON (`report.json`), and of a comparison. Owns shapes only.

`report.schema.json` beside this file is made from here; a test holds them together. Times are seconds
from the run's begin, or milliseconds where the name says so; ratios are shares; None = no value.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from registry.api.documents import Document


class Distribution(Document):
    """`n` values; a quantile that rests on too few is None."""

    n: int
    mean: float
    max: float
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None


class Goodput(Document):
    """Requests that kept every SLO; `rate` is their share of all that were answered or failed."""

    kept: int
    rate: float | None
    per_second: float | None


class Figures(Document):
    """Everything about a selection of requests; what each name means is in `metrics`."""

    requests: int
    ok: int
    errors: int
    error_rate: float | None
    cancelled: int
    unfinished: int
    wrong_adapter: int
    wrong_text: int = 0
    unexplained_errors: int = 0
    goodput: Goodput
    requests_per_second: float | None
    prompt_tokens: int
    output_tokens: int
    output_tokens_per_second: float | None
    disruption_seconds: float
    distributions: dict[str, Distribution | None]


class FigureGroup(Document):
    """The figures of one adapter, arm or version; empty where the group is not narrowed by it."""

    adapter: str = ""
    arm: str = ""
    version: str = ""
    figures: Figures


class ErrorKind(Document):
    """One kind of failure: how often, when first and last, and what one of them said."""

    kind: str
    count: int
    first_at: float
    last_at: float
    detail: str


class Generator(Document):
    """Whether the load generator itself kept time; `saturated` figures are not the server's.

    `lag_ms` is the 99th percentile of its delay or, of fewer than a hundred requests, what
    `lag_statistic` names.
    """

    saturated: bool
    lag_ms: float | None
    lag_statistic: str
    limit_ms: float
    shed: int
    peak_in_flight: int
    sentence: str


class Keeping(Document):
    """Whether the server kept up with the load: medians of the first and the last third."""

    kept_up: bool | None
    offered_per_second: float
    first_third_ms: float | None
    last_third_ms: float | None
    sentence: str


class EventDocument(Document):
    """Something done to the server during the load."""

    at: float
    action: str
    subject: str
    seconds: float
    detail: str
    error: str


class ChangeDocument(Document):
    """A rollout in a new form, as it was seen `at`."""

    at: float
    canary: str
    state: str
    weight: int
    reason: str
    sentence: str


class RolloutDocument(Document):
    """One rollout under load, and what it cost. Times are the server's own differences."""

    adapter: str
    canary: str
    state: str
    seconds_to_promoted: float | None
    seconds_to_rolled_back: float | None
    detection_seconds: float | None
    canary_answers: int
    canary_errors: int
    canary_share: float | None
    late_canary_seconds: float
    weights: int = 0
    setbacks: int = 0
    changes: list[ChangeDocument]


class BarCheck(Document):
    """One bar and whether it was held."""

    name: str
    found: float | None
    bar: str
    passed: bool
    sentence: str


class Moment(Document):
    """One slice of time, by when requests were due; `in_flight` is the most within it."""

    at: float
    due: int
    ok: int
    errors: int
    cancelled: int
    in_flight: int
    ttft_p50_ms: float | None
    e2e_p50_ms: float | None
    e2e_p95_ms: float | None


class GeneratorHost(Document):
    """Where the generator ran."""

    cpus: int
    python: str
    system: str


class Report(Document):
    """A whole run. `overall` and all groups are of the measured time; `warmup` is shown apart."""

    format: Literal["wardrobe-loadtest/1"] = "wardrobe-loadtest/1"
    tool: str
    scenario: dict[str, JsonValue]
    scenario_digest: str = Field(description="Equal digests = the same traffic")
    url: str
    started_at: float
    seconds: float
    warmup_seconds: float
    measured_seconds: float
    partial: bool
    machine: GeneratorHost
    generator: Generator
    keeping_up: Keeping
    overall: Figures
    warmup: Figures
    adapters: list[FigureGroup]
    arms: list[FigureGroup]
    groups: list[FigureGroup]
    versions: list[FigureGroup]
    errors: list[ErrorKind]
    events: list[EventDocument]
    rollouts: list[RolloutDocument]
    feedback_sent: int
    checks: list[BarCheck]
    passed: bool
    slice_seconds: float
    timeline: list[Moment]


class Ratio(Document):
    """One metric in two runs: B / A with a 95 % interval from blocks of time within each run."""

    metric: str
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Literal["better", "worse", "same", "unknown"]


class RunComparison(Document):
    """Two runs. `obstacles` say why they are not comparable; `failed` are the bars that B missed."""

    a: str
    b: str
    comparable: bool
    obstacles: list[str]
    ratios: list[Ratio]
    failed: list[str]
