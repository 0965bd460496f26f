"""Every metric by name, kind, labels and meaning: what rules, dashboards and the reference may name.

The server's are asked of its own collectors, so a metric that is renamed there is renamed here. A training
run exposes nothing; it writes a text file for node_exporter, whose names are fixed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client.metrics_core import Metric


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric: `name` is what a query says, without the suffixes of a histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Return the names that samples have."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        return (self.name,)


TRAINING = (
    MetricFamily(
        "wardrobe_train_info",
        "gauge",
        ("job_id", "adapter", "method", "base"),
        "1 for a run: what it trains, how, on which base.",
    ),
    MetricFamily(
        "wardrobe_train_state",
        "gauge",
        ("job_id", "adapter", "state"),
        "1 for the state that the run is in: queued, running, interrupted, succeeded, failed, cancelled.",
    ),
    MetricFamily("wardrobe_train_step", "gauge", ("job_id", "adapter"), "Optimizer steps that are done."),
    MetricFamily("wardrobe_train_steps", "gauge", ("job_id", "adapter"), "Optimizer steps that are planned."),
    MetricFamily(
        "wardrobe_train_last_step_timestamp_seconds",
        "gauge",
        ("job_id", "adapter"),
        "When the last step ended, UNIX seconds.",
    ),
    MetricFamily("wardrobe_train_step_seconds", "gauge", ("job_id", "adapter"), "Seconds of the last step."),
    MetricFamily("wardrobe_train_loss", "gauge", ("job_id", "adapter"), "Loss of the last step."),
    MetricFamily("wardrobe_train_eval_loss", "gauge", ("job_id", "adapter"), "Held-out loss, last measured."),
    MetricFamily(
        "wardrobe_train_learning_rate", "gauge", ("job_id", "adapter"), "Learning rate of the last step."
    ),
    MetricFamily(
        "wardrobe_train_grad_norm", "gauge", ("job_id", "adapter"), "Gradient norm of the last step."
    ),
    MetricFamily("wardrobe_train_tokens_total", "counter", ("job_id", "adapter"), "Tokens trained on."),
    MetricFamily("wardrobe_train_memory_bytes", "gauge", ("job_id", "adapter"), "Peak memory of the run."),
    MetricFamily(
        "wardrobe_train_eval_score",
        "gauge",
        ("job_id", "adapter", "suite"),
        "Score on a suite, last measured.",
    ),
)
"""What a training run writes with `tracking: {to: [prometheus]}`: `<root>/jobs/metrics/<job>.prom`."""

ENGINE = MappingProxyType(
    {
        "vllm:num_requests_running": "Requests that the engine works on.",
        "vllm:num_requests_waiting": "Requests that wait for the engine.",
        "vllm:kv_cache_usage_perc": "Share of the KV cache in use, 0 to 1.",
        "vllm:num_preemptions_total": "Requests that were put back for want of cache.",
        "vllm:prompt_tokens_total": "Tokens read.",
        "vllm:generation_tokens_total": "Tokens written.",
        "vllm:prefix_cache_queries_total": "Tokens looked up in the prefix cache.",
        "vllm:prefix_cache_hits_total": "Tokens found there.",
    }
)
"""vLLM's own metrics on the same page that rules and dashboards use, under vLLM's names."""

PROMETHEUS = frozenset({"up", "ALERTS"})
"""What Prometheus makes itself."""


def server_families() -> tuple[MetricFamily, ...]:
    """Return what a replica exposes, by name."""
    from serve.batches.metrics import BatchMetrics, LineTally
    from serve.connections.census import Census
    from serve.connections.metrics import ConnectionMetrics
    from serve.groups.usage import GroupMetrics, UsageLedger
    from serve.rollout.decision.metrics import RolloutMetrics
    from serve.router.telemetry.metrics import RouterMetrics
    from serve.router.telemetry.vitals import Vitals
    from serve.settings import ConnectionLimits

    metrics = RouterMetrics("r1")
    vitals = Vitals("r1", _Watched(), bool, bool, int)
    connections = ConnectionMetrics(Census(ConnectionLimits()))
    batches = BatchMetrics(int, int, LineTally())
    found = [
        family
        for one in (metrics, RolloutMetrics(), vitals, connections, batches, GroupMetrics(UsageLedger()))
        for family in one.collect()
    ]
    return tuple(sorted((_family(one) for one in found), key=lambda one: one.name))


def sample_names(families: Iterable[MetricFamily]) -> frozenset[str]:
    """Return every name that a query may use of `families`."""
    return frozenset(name for family in families for name in family.sample_names)


class _Watched:
    """A registry without an adapter, read just now."""

    last_success = 0.0
    problems: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        from registry.views.view import EMPTY

        self.view = EMPTY


def _family(metric: Metric) -> MetricFamily:
    labels: tuple[str, ...] = getattr(metric, "_labelnames")  # noqa: B009 - a family without rows names them nowhere else
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return MetricFamily(name, metric.type, tuple(labels), metric.documentation)
