"""The page of metrics, from the catalogue, with what is recorded and who uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.observability.catalogue import ENGINE, TRAINING, MetricFamily, server_families
from deploy.reference.tables import code, page, sentence, table

RULES = Path(__file__).resolve().parents[1] / "observability" / "rules"

_SERVER = """\
On `/metrics` of every replica, beside vLLM's own. `adapter` is a name, `version` its number (`0` the
base; beyond 200 versions the least recent ones are `other`), `arm` one of stable, canary, shadow, direct,
base, `replica` the replica's name. Labels are closed sets: nothing that a client wrote is ever one.
Histograms have `_bucket`, `_count` and `_sum`."""

_TRAINING = """\
A training run exposes nothing. With `tracking: {to: [prometheus]}` it writes `<root>/jobs/metrics/<job>.prom`
for the `textfile` collector of node_exporter, replaced every few seconds; `job_id` and `adapter`
say whose."""

_ENGINE = "vLLM's own, under vLLM's names, as far as rules and dashboards use them."

_DROPPED = """\
Not there, and why: per-path HTTP counters (vLLM's `http_requests_total` is on the same page); counters of
exact service levels (their thresholds are edges of the histograms' buckets, so rules get the same
numbers); the router's own time per phase (a clock on the hot path costs more than it tells; `make
bench-router` measures it)."""


def render() -> str:
    """Return the page."""
    rules = list(_rules())
    recorded = [(code(one.name), code(sentence(one.expression))) for one in rules if not one.severity]
    alerts = [
        (f"[{one.name}](../how-to/operate.md#{one.name.lower()})", one.severity)
        for one in rules
        if one.severity
    ]
    return page(
        "Metrics",
        "## Server",
        _SERVER,
        _table(server_families()),
        _DROPPED,
        "## Engine",
        _ENGINE,
        table(("metric", ""), ((code(name), text) for name, text in ENGINE.items())),
        "## Training",
        _TRAINING,
        _table(TRAINING),
        "## Recorded by Prometheus' rules",
        table(("series", "expression"), recorded),
        "## Alerts",
        table(("alert", "severity"), alerts),
    )


def _table(families: Iterable[MetricFamily]) -> str:
    rows = ((code(one.name), one.kind, " ".join(map(code, one.labels)), one.text) for one in families)
    return table(("metric", "kind", "labels", ""), rows)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of Prometheus; what is recorded has no severity."""

    name: str
    expression: str
    severity: str


def _rules() -> Iterator[_Rule]:
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("record") or rule["alert"]
                yield _Rule(name, rule["expr"], rule.get("labels", {}).get("severity", ""))
