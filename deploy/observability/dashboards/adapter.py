"""The dashboard of an adapter: version by version and arm by arm."""

from __future__ import annotations

from deploy.observability.dashboards.panels import Dashboard, Panel, PanelQuery, PanelRow
from deploy.observability.dashboards.queries import (
    ADAPTERS,
    ARMS,
    HERE,
    MINE,
    RATE,
    REPLICAS,
    SHARED,
    VERSIONS,
    quantiles,
    series,
)

_WHOSE = "{{adapter}}@{{version}} {{arm}}"

ADAPTER = Dashboard(
    uid="wardrobe-adapter",
    title="Wardrobe / Adapter",
    text="One adapter or a few, version by version and arm by arm.",
    variables=(ADAPTERS, VERSIONS, ARMS, REPLICAS),
    rows=(
        PanelRow(
            "Traffic",
            (
                series(
                    "Requests",
                    "sum by (adapter, version, arm) "
                    f"(rate(wardrobe_inference_requests_total{{{MINE}}}[{RATE}]))",
                    _WHOSE,
                    "reqps",
                    stacked=True,
                ),
                series(
                    "Share of failures",
                    "(sum by (adapter, version, arm) (rate(wardrobe_inference_requests_total"
                    f'{{{MINE}, outcome=~"engine_error|timeout|rejected"}}[{RATE}]))'
                    " or 0 * sum by (adapter, version, arm) "
                    f"(rate(wardrobe_inference_requests_total{{{MINE}}}[{RATE}])))"
                    " / (sum by (adapter, version, arm) (rate(wardrobe_inference_requests_total"
                    f'{{{MINE}, outcome!~"client_error|cancelled"}}[{RATE}])) > 0)',
                    _WHOSE,
                    "percentunit",
                ),
                series(
                    "Where requests were sent and why",
                    "sum by (arm, reason) (rate(wardrobe_route_decisions_total"
                    f'{{adapter=~"$adapter", arm=~"$arm", {HERE}}}[{RATE}]))',
                    "{{arm}} {{reason}}",
                    "reqps",
                    stacked=True,
                ),
            ),
        ),
        PanelRow(
            "Times",
            (
                Panel(
                    "Time to the first token (streams)",
                    quantiles(
                        "wardrobe_inference_ttft_seconds", MINE, "adapter, version, arm", _WHOSE, 0.5, 0.95
                    ),
                    unit="s",
                ),
                Panel(
                    "Time per token after the first",
                    quantiles(
                        "wardrobe_inference_time_per_output_token_seconds",
                        MINE,
                        "adapter, version, arm",
                        _WHOSE,
                        0.5,
                        0.95,
                    ),
                    unit="s",
                ),
                Panel(
                    "Whole requests",
                    quantiles(
                        "wardrobe_inference_duration_seconds",
                        MINE,
                        "adapter, version, arm",
                        _WHOSE,
                        0.5,
                        0.99,
                    ),
                    unit="s",
                ),
                Panel(
                    "Time to the first token, all of them",
                    (
                        PanelQuery(
                            "sum by (le) "
                            f"(increase(wardrobe_inference_ttft_seconds_bucket{{{MINE}}}[{RATE}]))",
                            "{{le}}",
                        ),
                    ),
                    "heatmap",
                    "s",
                    width=12,
                ),
                series(
                    "In flight",
                    f'sum by (adapter, arm) (wardrobe_inference_inflight{{{SHARED}, arm=~"$arm"}})',
                    "{{adapter}} {{arm}}",
                    width=12,
                ),
            ),
        ),
        PanelRow(
            "Tokens and places",
            (
                series(
                    "Tokens/s",
                    f"sum by (type) (rate(wardrobe_inference_tokens_total{{{MINE}}}[{RATE}]))",
                    "{{type}}",
                ),
                series(
                    "Loaded at replicas",
                    'sum by (adapter, version) (wardrobe_adapter_resident{adapter=~"$adapter", '
                    f'version=~"$version", {HERE}}})',
                    "{{adapter}}@{{version}}",
                ),
                Panel(
                    "Loads and evictions (of all adapters)",
                    (
                        PanelQuery(
                            f"sum by (outcome) (increase(wardrobe_adapter_loads_total{{{HERE}}}[{RATE}]))",
                            "loads {{outcome}}",
                        ),
                        PanelQuery(
                            f"sum(increase(wardrobe_adapter_evictions_total{{{HERE}}}[{RATE}]))",
                            "evictions",
                        ),
                    ),
                ),
                Panel(
                    "Seconds to load a version (of all adapters)",
                    quantiles("wardrobe_adapter_load_seconds", HERE, "outcome", "{{outcome}}", 0.5, 0.95),
                    unit="s",
                ),
            ),
        ),
    ),
)
