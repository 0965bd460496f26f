"""Counters of the router, per adapter version, exposed on the process's own registry.

The event loop alone writes them: plain integers without locks, bound to a version once. They become
Prometheus families only when somebody scrapes. Invariant: labels are a closed set; at most
`max_versions` versions beside the protected ones (stables) have series of their own, the rest is folded
into `version="other"`, and nothing that a client wrote becomes a label.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serve.exposition import LOAD_SECONDS, Histogram, counter, gauge, histogram
from serve.outcomes import Outcome
from serve.rollout.assignment import Arm
from serve.router.streams import TokenUsage

TTFT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
TPOT_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
E2E_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)

OTHER = "other"
BASE = "0"
"""The version of the base model, also as an arm of an adapter's rollout; never folded."""
MAX_VERSIONS = 200


class Reason(StrEnum):
    """Why a request was sent where it was: a closed set of metric labels."""

    WEIGHT = "weight"  # the rollout's split, or stable alone where none is open
    LISTED = "listed"  # the rollout's allow or deny list
    PINNED = "pinned"  # an explicit reference
    FALLBACK = "fallback"  # the canary failed it
    SHADOW = "shadow"  # a copy


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class ArmSeries:
    """The counters of one (adapter, version, arm)."""

    __slots__ = (
        "adapter",
        "arm",
        "duration",
        "inflight",
        "outcomes",
        "per_token",
        "tokens",
        "ttft",
        "version",
    )

    def __init__(self, adapter: str, version: str, arm: Arm, inflight: Gauge) -> None:
        self.adapter = adapter
        self.version = version
        self.arm = arm
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()
        self.inflight = inflight
        self.ttft = Histogram(TTFT_SECONDS)
        self.per_token = Histogram(TPOT_SECONDS)
        self.duration = Histogram(E2E_SECONDS)
        self.tokens = [0, 0, 0]

    @property
    def labels(self) -> list[str]:
        """Return the values of the labels adapter, version, arm."""
        return [self.adapter, self.version, self.arm.value]

    def count_tokens(self, usage: TokenUsage) -> None:
        """Add an answer's token counts."""
        self.tokens[0] += usage.input
        self.tokens[1] += usage.output
        self.tokens[2] += usage.cached

    def add(self, other: ArmSeries) -> None:
        """Take over another series' counts."""
        self.outcomes.update(other.outcomes)
        self.tokens = [mine + its for mine, its in zip(self.tokens, other.tokens, strict=True)]
        for name in ("ttft", "per_token", "duration"):
            getattr(self, name).add(getattr(other, name))


@dataclass(frozen=True, slots=True)
class ResidencyFacts:
    """What the residency shows at a scrape: engine names, and its limits."""

    resident: tuple[str, ...] = ()
    capacity: int = 0
    slots: int = 0
    waiting_for_room: int = 0
    waiting_for_a_turn: int = 0


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What this process is built of."""

    version: str = ""
    vllm_version: str = ""
    base_digest: str = ""


@dataclass(slots=True, eq=False)
class RouterMetrics:
    """All counters of one router; `residency` and `draining` are asked at each scrape.

    A scrape may come from another thread: it takes a copy of every table in one step.
    """

    replica: str
    build: BuildInfo = BuildInfo()
    residency: Callable[[], ResidencyFacts] = ResidencyFacts
    draining: Callable[[], bool] = bool
    max_versions: int = MAX_VERSIONS
    rejections: Counter[str] = field(default_factory=Counter)
    retries: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    doubts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    loads: Counter[tuple[str, str]] = field(default_factory=Counter)
    load_seconds: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    evictions: int = 0
    overflows: int = 0
    _series: OrderedDict[tuple[str, str, Arm], ArmSeries] = field(default_factory=OrderedDict)
    _inflight: dict[tuple[str, Arm], Gauge] = field(default_factory=dict)
    _decisions: dict[tuple[str, Arm, Reason], Gauge] = field(default_factory=dict)
    _protected: Callable[[str, str], bool] = lambda _adapter, _version: False

    def bind(self, adapter: str, version: str, arm: Arm) -> ArmSeries:
        """Return the counters of a version's arm, making room for them if need be.

        They stay valid for as long as anybody holds them: a series that was folded meanwhile counts
        into `other`.
        """
        key = (adapter, version, arm)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._new(key)
            self._fold_surplus()
        self._series.move_to_end(key)
        return series

    def series(self) -> list[ArmSeries]:
        """Return the counters of every arm that there is now."""
        return list(self._series.values())

    def decisions(self, adapter: str, arm: Arm, reason: Reason) -> Gauge:
        """Return the counter of the requests that were sent to an adapter's arm for a reason."""
        return self._decisions.setdefault((adapter, arm, reason), Gauge())

    def protect(self, protected: Callable[[str, str], bool]) -> None:
        """Say which adapters' versions always keep their own series."""
        self._protected = protected

    def forget(self, known: Callable[[str, str], bool]) -> None:
        """Drop the series of versions that are no longer registered; of the base, ask for version 0."""
        gone = [key for key in self._series if not known(key[0], key[1])]
        for key in gone:
            del self._series[key]
        names = {key[0] for key in self._series}
        for level in [key for key, one in self._inflight.items() if key[0] not in names and not one.value]:
            del self._inflight[level]
        for decision in [key for key in self._decisions if key[0] not in names]:
            del self._decisions[decision]
        for retry in [key for key in self.retries if key[0] not in names]:
            del self.retries[retry]
        for doubt in [key for key in self.doubts if key[0] not in names]:
            del self.doubts[doubt]

    def count_load(self, outcome: str, reason: str, tier: str, seconds: float) -> None:
        """Count one attempt to load a version."""
        self.loads[outcome, reason] += 1
        bound = self.load_seconds.setdefault((tier, outcome), Histogram(LOAD_SECONDS))
        bound.observe(seconds)

    def inflight(self) -> int:
        """Return how many requests are in flight."""
        return sum(level.value for level in self._inflight.values())

    def _new(self, key: tuple[str, str, Arm]) -> ArmSeries:
        return ArmSeries(*key, self._inflight.setdefault((key[0], key[2]), Gauge()))

    def _fold_surplus(self) -> None:
        free = [key for key in self._series if key[1] not in {OTHER, BASE} and not self._protected(*key[:2])]
        versions = list(dict.fromkeys((adapter, version) for adapter, version, _ in free))
        for pair in versions[: max(0, len(versions) - self.max_versions)]:
            self.overflows += 1
            for key in [key for key in free if key[:2] == pair]:
                self._fold(key)

    def _fold(self, key: tuple[str, str, Arm]) -> None:
        series = self._series.pop(key)
        into = (key[0], OTHER, key[2])
        other = self._series.setdefault(into, self._new(into))
        other.add(series)
        # Holders of the old object (requests in flight, a view's targets) count into the folded one.
        for name in ("outcomes", "tokens", "ttft", "per_token", "duration"):
            setattr(series, name, getattr(other, name))

    def collect(self) -> Iterator[Metric]:
        """Yield every family, for a scrape."""
        every = list(self._series.values())
        yield from _requests(every)
        levels = [
            ((adapter, arm.value), level.value) for (adapter, arm), level in list(self._inflight.items())
        ]
        yield gauge("wardrobe_inference_inflight", "Requests in flight.", ("adapter", "arm"), levels)
        decided = [
            ((adapter, arm.value, reason.value), level.value)
            for (adapter, arm, reason), level in list(self._decisions.items())
        ]
        text = "Requests by where they were sent and why."
        yield counter("wardrobe_route_decisions", text, ("adapter", "arm", "reason"), decided)
        retried = [(key, n) for key, n in sorted(self.retries.items())]
        text = "Requests that the canary failed before its first byte, by how stable's answer ended."
        yield counter("wardrobe_upstream_retries", text, ("adapter", "reason", "outcome"), retried)
        doubted = [(key, n) for key, n in sorted(self.doubts.items())]
        text = "Failures under a rollout, by whose they were: engine_error the arm's, else nobody's."
        yield counter("wardrobe_rollout_doubts", text, ("adapter", "arm", "booked"), doubted)
        yield from self._loads()
        rejected = [((reason,), n) for reason, n in sorted(self.rejections.items())]
        yield counter("wardrobe_rejections", "Requests refused by the router.", ("reason",), rejected)
        draining = [((), float(self.draining()))]
        yield gauge("wardrobe_draining", "1 while this replica takes no new requests.", (), draining)
        folded = [(("version",), self.overflows)]
        yield counter("wardrobe_metric_label_overflow", "Versions folded into `other`.", ("label",), folded)
        build = [((self.build.version, self.build.vllm_version, self.build.base_digest), 1.0)]
        names = ("version", "vllm_version", "base_digest")
        yield gauge("wardrobe_build_info", "What this process is built of.", names, build)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: two routers in one process (tests) are no clash."""
        return iter(())

    def _loads(self) -> Iterator[Metric]:
        me, now = self.replica, self.residency()
        loads = [((me, *key), n) for key, n in sorted(self.loads.items())]
        labels: tuple[str, ...] = ("replica", "outcome", "reason")
        yield counter("wardrobe_adapter_loads", "Attempts to load a version.", labels, loads)
        text = "Seconds to have a version verified, loaded and proved."
        seconds = list(self.load_seconds.items())
        yield histogram("wardrobe_adapter_load_seconds", text, ("tier", "outcome"), seconds)
        evicted = [((me,), self.evictions)]
        yield counter("wardrobe_adapter_evictions", "Versions unloaded to make room.", ("replica",), evicted)
        resident = [((me, *name.rsplit("@", 1), "cpu"), 1.0) for name in sorted(now.resident)]
        labels = ("replica", "adapter", "version", "tier")
        yield gauge("wardrobe_adapter_resident", "1 for each version that is loaded.", labels, resident)
        places = (
            ("cpu", "max", now.capacity),
            ("cpu", "used", len(now.resident)),
            ("cpu", "waiting", now.waiting_for_room),
            ("gpu", "max", now.slots),
            ("gpu", "waiting", now.waiting_for_a_turn),
        )
        rows = [((me, tier, kind), n) for tier, kind, n in places]
        labels = ("replica", "tier", "kind")
        text = "Versions that fit, that are there, and that wait."
        yield gauge("wardrobe_adapter_slots", text, labels, rows)


def register(collectors: Sequence[Collector], registry: CollectorRegistry) -> Callable[[], None]:
    """Expose `collectors` on `registry`; return what takes them off again."""
    for collector in collectors:
        registry.register(collector)

    def unregister() -> None:
        for collector in collectors:
            registry.unregister(collector)

    return unregister


_LABELS = ("adapter", "version", "arm")
_HISTOGRAMS = (
    ("wardrobe_inference_ttft_seconds", "Time to the first piece of a streamed answer.", "ttft"),
    ("wardrobe_inference_time_per_output_token_seconds", "Time per token after the first.", "per_token"),
    ("wardrobe_inference_duration_seconds", "Whole requests.", "duration"),
)


def _requests(every: list[ArmSeries]) -> Iterator[Metric]:
    rows = [
        ((*one.labels, operation, outcome.value), n)
        for one in every
        for (operation, outcome), n in list(one.outcomes.items())
    ]
    labels = (*_LABELS, "operation", "outcome")
    yield counter("wardrobe_inference_requests", "Requests by how they ended.", labels, rows)
    for name, text, attribute in _HISTOGRAMS:
        yield histogram(name, text, _LABELS, [(one.labels, getattr(one, attribute)) for one in every])
    tokens = [
        ((*one.labels, kind), n)
        for one in every
        for kind, n in zip(("input", "output", "cached"), one.tokens, strict=True)
    ]
    text = "Tokens as the answers report them."
    yield counter("wardrobe_inference_tokens", text, (*_LABELS, "type"), tokens)
