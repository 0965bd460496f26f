"""Counters: closed label sets, room for two hundred versions, and a real exposition."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serve.exposition import Histogram
from serve.outcomes import Outcome
from serve.rollout.assignment import Arm
from serve.router.streams import TokenUsage
from serve.router.telemetry.metrics import (
    BuildInfo,
    Reason,
    ResidencyFacts,
    RouterMetrics,
    register,
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(metrics: RouterMetrics) -> Samples:
    """Return what Prometheus would read."""
    registry = CollectorRegistry()
    remove = register((metrics,), registry)
    text = generate_latest(registry).decode()
    remove()
    families = text_string_to_metric_families(text)
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def count(metrics: RouterMetrics, adapter: str, version: str, arm: Arm = Arm.STABLE) -> None:
    metrics.bind(adapter, version, arm).outcomes["chat", Outcome.OK] += 1


def requests(samples: Samples, adapter: str, version: str, arm: str = "stable") -> float | None:
    labels = {"adapter": adapter, "version": version, "arm": arm, "operation": "chat", "outcome": "ok"}
    return value(samples, "wardrobe_inference_requests_total", **labels)


def test_everything_of_a_version_is_exposed_under_its_labels() -> None:
    metrics = RouterMetrics(
        "r1", BuildInfo("0.1", "0.32", "sha256:0"), lambda: ResidencyFacts(("a@1",), 4, 2), lambda: True
    )
    series = metrics.bind("a", "1", Arm.STABLE)
    series.outcomes["chat", Outcome.OK] += 2
    series.inflight.value += 1
    series.duration.observe(0.3)
    series.ttft.observe(0.02)
    series.per_token.observe(0.01)
    series.count_tokens(TokenUsage(10, 5, 3))
    metrics.rejections["auth"] += 1
    metrics.count_load("ok", "", "disk", 0.04)
    samples = scrape(metrics)
    labels = {"adapter": "a", "version": "1", "arm": "stable"}
    assert requests(samples, "a", "1") == 2
    assert value(samples, "wardrobe_inference_inflight", adapter="a", arm="stable") == 1
    assert value(samples, "wardrobe_inference_duration_seconds_sum", **labels) == 0.3
    assert value(samples, "wardrobe_inference_duration_seconds_bucket", le="0.25", **labels) == 0
    assert value(samples, "wardrobe_inference_duration_seconds_bucket", le="0.5", **labels) == 1
    assert value(samples, "wardrobe_inference_ttft_seconds_count", **labels) == 1
    assert value(samples, "wardrobe_inference_time_per_output_token_seconds_bucket", le="0.01", **labels) == 1
    assert value(samples, "wardrobe_inference_tokens_total", type="cached", **labels) == 3
    assert value(samples, "wardrobe_rejections_total", reason="auth") == 1
    assert value(samples, "wardrobe_adapter_loads_total", replica="r1", outcome="ok", reason="") == 1
    assert value(samples, "wardrobe_adapter_load_seconds_count", tier="disk", outcome="ok") == 1
    assert (
        value(samples, "wardrobe_adapter_resident", replica="r1", adapter="a", version="1", tier="cpu") == 1
    )
    assert value(samples, "wardrobe_adapter_slots", replica="r1", tier="gpu", kind="max") == 2
    assert value(samples, "wardrobe_draining") == 1
    assert (
        value(samples, "wardrobe_build_info", version="0.1", vllm_version="0.32", base_digest="sha256:0") == 1
    )


def test_a_histogram_has_lines_once_it_holds_a_value() -> None:
    metrics = RouterMetrics("r1")
    series = metrics.bind("a", "1", Arm.STABLE)
    labels = {"adapter": "a", "version": "1", "arm": "stable"}
    assert value(scrape(metrics), "wardrobe_inference_duration_seconds_count", **labels) is None
    series.duration.observe(0.3)
    assert value(scrape(metrics), "wardrobe_inference_duration_seconds_count", **labels) == 1
    assert value(scrape(metrics), "wardrobe_inference_ttft_seconds_count", **labels) is None


def test_the_least_recent_versions_beyond_the_cap_become_other_and_lose_no_count() -> None:
    metrics = RouterMetrics("r1", max_versions=3)
    for number in range(1, 6):
        count(metrics, "a", str(number))
    samples = scrape(metrics)
    assert [requests(samples, "a", version) for version in ("1", "2", "3", "4", "5", "other")] == [
        None, None, 1, 1, 1, 2,
    ]  # fmt: skip
    assert value(samples, "wardrobe_metric_label_overflow_total", label="version") == 2


def test_a_version_used_again_is_not_the_least_recent() -> None:
    metrics = RouterMetrics("r1", max_versions=2)
    for version in ("1", "2", "1", "3"):
        count(metrics, "a", version)
    assert requests(scrape(metrics), "a", "1") == 2
    assert requests(scrape(metrics), "a", "2") is None


def test_stables_keep_their_own_series_beyond_the_cap() -> None:
    metrics = RouterMetrics("r1", max_versions=2)
    metrics.protect(lambda adapter, version: (adapter, version) == ("a", "1"))
    for number in range(1, 9):
        count(metrics, "a", str(number))
    assert requests(scrape(metrics), "a", "1") == 1
    assert requests(scrape(metrics), "a", "other") == 5


def test_a_request_in_flight_when_its_version_is_folded_still_counts() -> None:
    metrics = RouterMetrics("r1", max_versions=1)
    early = metrics.bind("a", "1", Arm.STABLE)
    early.inflight.value += 1
    count(metrics, "a", "2")
    early.outcomes["chat", Outcome.OK] += 1
    early.duration.observe(1.0)
    early.inflight.value -= 1
    samples = scrape(metrics)
    assert requests(samples, "a", "other") == 1
    assert value(samples, "wardrobe_inference_inflight", adapter="a", arm="stable") == 0


def test_arms_of_one_version_count_as_one_version() -> None:
    metrics = RouterMetrics("r1", max_versions=1)
    count(metrics, "a", "1", Arm.STABLE)
    count(metrics, "a", "1", Arm.DIRECT)
    samples = scrape(metrics)
    assert requests(samples, "a", "1") == requests(samples, "a", "1", "direct") == 1


def test_an_unregistered_version_takes_its_series_with_it() -> None:
    metrics = RouterMetrics("r1")
    for adapter, version in (("a", "1"), ("a", "2"), ("b", "1")):
        count(metrics, adapter, version)
    count(metrics, "base", "0", Arm.BASE)
    metrics.decisions("a", Arm.STABLE, Reason.WEIGHT).value += 1
    metrics.decisions("b", Arm.STABLE, Reason.WEIGHT).value += 1
    metrics.forget(lambda *version: version in {("a", "2"), ("base", "0")})
    samples = scrape(metrics)
    assert requests(samples, "a", "1") is None
    assert requests(samples, "a", "2") == 1
    assert requests(samples, "base", "0", "base") == 1
    assert value(samples, "wardrobe_inference_inflight", adapter="b", arm="stable") is None
    decided = {"arm": "stable", "reason": "weight"}
    assert value(samples, "wardrobe_route_decisions_total", adapter="a", **decided) == 1
    assert value(samples, "wardrobe_route_decisions_total", adapter="b", **decided) is None


def test_a_value_on_a_buckets_edge_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for one in (0.5, 1.0, 1.5, 2.0, 99.0):
        histogram.observe(one)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 104.0


def test_the_base_as_an_arm_keeps_its_own_series_beyond_the_cap() -> None:
    metrics = RouterMetrics("r1", max_versions=1)
    count(metrics, "a", "0", Arm.STABLE)
    for number in range(1, 4):
        count(metrics, "a", str(number))
    assert requests(scrape(metrics), "a", "0") == 1
    assert requests(scrape(metrics), "a", "other") == 2
