"""A scenario: what is asked of whom, when, for how long, and what must come out. Typed and frozen.

Owns the meaning of every key of a scenario file and its default; how files are found and read is
`loading`'s. Invariant: the same scenario (its seed included) gives the same plan of requests.
Times are seconds where the name says nothing else; ratios are shares 0 … 1.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from registry.names import check_adapter_name, parse_version
from registry.settings.models import Strict

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=7 * 86_400)]


class RampStage(Strict):
    """`rate` arrivals a second for `seconds`."""

    rate: float = Field(gt=0, le=100_000)
    seconds: float = Field(gt=0)


class Arrival(Strict):
    """When requests (or, with several turns, conversations) begin, whatever becomes of earlier ones.

    `gamma` with a `burstiness` (the gamma's shape, as in vLLM's own benchmark) below 1 comes in bursts;
    1 is Poisson. `stages` replace `rate` and repeat until the time is over. `trace` is a JSON Lines file
    of recorded arrivals, relative to the scenario's folder; `speed` 2 plays it twice as fast.
    """

    process: Literal["constant", "poisson", "gamma", "trace"] = "poisson"
    rate: float = Field(default=1.0, gt=0, le=100_000)
    burstiness: float = Field(default=1.0, gt=0)
    stages: tuple[RampStage, ...] = ()
    trace: str | None = None
    speed: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.process == "trace") != (self.trace is not None):
            raise ValueError("process trace and trace: FILE belong together")
        if self.burstiness != 1.0 and self.process != "gamma":
            raise ValueError(f"burstiness belongs to process gamma, found {self.process}")
        return self


class Popularity(Strict):
    """How arrivals are spread: give one of the three, or none for equal shares.

    `zipf`: the k-th name has a share like k^-zipf. `weights`: one for each name. `distinct`: every
    request goes to the next name, so that a batch never holds two alike.
    """

    zipf: float | None = Field(default=None, gt=0)
    weights: tuple[float, ...] | None = None
    distinct: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum((self.zipf is not None, self.weights is not None, self.distinct)) > 1:
            raise ValueError("give one of zipf, weights and distinct")
        if self.weights is not None and (min(self.weights, default=-1) < 0 or sum(self.weights) <= 0):
            raise ValueError("weights must not be negative, and one must be positive")
        return self


class Adapters(Strict):
    """Whom the traffic asks: `names` as in a request's `model`, or `count` names `prefix-000` and so on."""

    names: tuple[str, ...] = ()
    prefix: str | None = None
    count: int = Field(default=1, ge=1, le=1_000)
    popularity: Popularity = Popularity()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if bool(self.names) == (self.prefix is not None):
            raise ValueError("give either names, or prefix and count")
        if self.prefix is not None:
            check_adapter_name(f"{self.prefix}-000")
        if (weights := self.popularity.weights) is not None and len(weights) != len(self.models):
            raise ValueError(f"popularity.weights: {len(weights)} for {len(self.models)} names")
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """Return every name, the most popular first."""
        return self.names or tuple(f"{self.prefix}-{index:03d}" for index in range(self.count))


class Length(Strict):
    """Lengths in tokens: always `mean`, uniform within `low` … `high`, or lognormal around the mean.

    `sigma` is the lognormal's spread of the logarithm; values are cut off at `low` and `high`.
    """

    kind: Literal["fixed", "uniform", "lognormal"] = "fixed"
    mean: int = Field(default=64, ge=1)
    low: int = Field(default=1, ge=1)
    high: int = Field(default=100_000, ge=1)
    sigma: float = Field(default=0.6, gt=0)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Prompts(Strict):
    """What is asked: words of a wanted number (about one token each), or the lines of `file`.

    `shared_prefix` is the share of every prompt that all requests to one adapter have in common (a system
    prompt). `file` is JSON Lines with `prompt` or `messages`, relative to the scenario's folder.
    """

    tokens: Length = Length()
    shared_prefix: Share = 0.0
    file: str | None = None


class Sessions(Strict):
    """Conversations: `turns` questions each, the next one `think_seconds` after the last answer."""

    turns: int = Field(default=1, ge=1, le=1_000)
    think_seconds: Seconds = 1.0


class Cancel(Strict):
    """Clients that leave: a `ratio` of requests, after a time drawn evenly from the two limits."""

    ratio: Share = 0.0
    after_seconds: tuple[float, float] = (0.05, 1.0)


class Slo(Strict):
    """What a good answer keeps, in milliseconds; times count from the intended start."""

    ttft_ms: float | None = Field(default=None, gt=0)
    tpot_ms: float | None = Field(default=None, gt=0)
    e2e_ms: float | None = Field(default=None, gt=0)


class RatingPlan(Strict):
    """Ratings sent for a `ratio` of complete answers, by the arm that answered (`x-wardrobe-arm`)."""

    ratio: Share = 1.0
    scores: dict[str, Share]


class Action(Strict):
    """Something done to the server during the load, `at_seconds` after its begin, or `every_seconds`.

    `swap` promotes the newest version and rolls back in turn; `register` uploads the weights of `version`
    (default: the stable one) as a new version and deletes all but the last `keep`; `rollout` starts one of
    `version` (default: the newest) with `policy` (a preset, a file, or YAML text); `abort` ends it;
    `kill_replica` sends SIGKILL to the server's `process` of a replica on this machine, or to its engine's,
    and waits up to `back_seconds` until it is ready again with none of its old processes left; `command`
    runs `run`, a program with its arguments.
    """

    action: Literal["swap", "register", "rollout", "abort", "kill_replica", "command"]
    adapter: str = ""
    version: int | None = Field(default=None, ge=1)
    policy: str = "fast"
    keep: int = Field(default=4, ge=2)
    run: tuple[str, ...] = ()
    process: Literal["server", "engine"] = "server"
    back_seconds: Seconds = 0.0
    at_seconds: float | None = Field(default=None, ge=0)
    every_seconds: float | None = Field(default=None, ge=0.1)

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if (self.at_seconds is None) == (self.every_seconds is None):
            raise ValueError("give either at_seconds or every_seconds")
        if self.action in {"swap", "register", "rollout", "abort"}:
            check_adapter_name(self.adapter)
        if (self.action == "command") != bool(self.run):
            raise ValueError("action command and run belong together")
        return self


class Threshold(Strict):
    """A bar: `metric` (`ttft_ms.p95`, `errors.rate`, …) at most or at least so much.

    `adapter` and `arm` narrow it to one group, `reason` to rollouts that moved for it. A figure that cannot
    be computed misses its bar.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    adapter: str | None = None
    arm: str | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give either at_most or at_least")
        return self


class Prepare(Strict):
    """What `loadtest prepare` registers for each name: `versions` of random weights of `rank`."""

    versions: int = Field(default=1, ge=1, le=100)
    rank: int = Field(default=8, ge=1)


class Scenario(Strict):
    """A whole scenario. Requests due in the first `warmup_seconds` are sent, shown, and not measured."""

    name: str
    about: str
    needs: str = ""
    seed: int = Field(default=1, ge=0, lt=2**32)
    warmup_seconds: Seconds = 5.0
    duration_seconds: float = Field(default=30.0, gt=0, le=7 * 86_400)
    api: Literal["chat", "completions"] = "chat"
    arrival: Arrival = Arrival()
    adapters: Adapters
    prompts: Prompts = Prompts()
    max_tokens: Length = Length(mean=32)
    ignore_eos: bool = True
    stream_ratio: Share = 1.0
    sessions: Sessions = Sessions()
    cancel: Cancel = Cancel()
    timeout_seconds: float = Field(default=120.0, gt=0)
    max_in_flight: int = Field(default=4_096, ge=1)
    saturation_ms: float = Field(default=50.0, gt=0)
    feedback: RatingPlan | None = None
    expect: dict[str, str] = Field(default={}, description="By version, a text that its answers must hold")
    actions: tuple[Action, ...] = ()
    slo: Slo = Slo()
    thresholds: tuple[Threshold, ...] = ()
    prepare: Prepare | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sessions.turns > 1 and self.api != "chat":
            raise ValueError("sessions.turns belongs to api chat")
        for model in self.adapters.models:
            if "@" in model and model.rpartition("@")[2].isdigit():
                parse_version(model)
        return self

    @property
    def total_seconds(self) -> float:
        """Return how long requests are begun: warm-up and measured time."""
        return self.warmup_seconds + self.duration_seconds
