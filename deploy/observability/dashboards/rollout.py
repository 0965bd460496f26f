"""The dashboard of one adapter's rollout. Every replica exposes all of it, so gauges are taken by `max`."""

from __future__ import annotations

from deploy.observability.dashboards.panels import Dashboard, Panel, PanelQuery, PanelRow, Variable
from deploy.observability.dashboards.queries import ARMS, HERE, RATE, REPLICAS, quantiles, series, stat

_ADAPTER = Variable("adapter", "wardrobe_rollout_state", "adapter", "Adapter", several=False)
_ROLL = 'adapter="$adapter"'
_ROLLOUT_ARM = f'{_ROLL}, arm=~"$arm", {HERE}'

ROLLOUT = Dashboard(
    uid="wardrobe-rollout",
    title="Wardrobe / Rollout",
    text="One adapter's rollout: where it stands, what both arms show, what was decided.",
    variables=(_ADAPTER, ARMS, REPLICAS),
    rows=(
        PanelRow(
            "Where it stands",
            (
                Panel(
                    "State",
                    (PanelQuery(f"max by (state) (wardrobe_rollout_state{{{_ROLL}}}) == 1", "{{state}}"),),
                    "state-timeline",
                    width=12,
                    height=6,
                ),
                stat("Step", f"max(wardrobe_rollout_step{{{_ROLL}}})"),
                stat(
                    "At this step for",
                    f"time() - max(wardrobe_rollout_step_started_timestamp_seconds{{{_ROLL}}})",
                    "s",
                ),
                stat(
                    "Canary's weight",
                    f'max(wardrobe_rollout_target_weight_ratio{{{_ROLL}, arm="canary"}})',
                    "percentunit",
                ),
                Panel(
                    "The canary's share: meant and seen",
                    (
                        PanelQuery(
                            f"max by (arm) (wardrobe_rollout_target_weight_ratio{{{_ROLL}}})", "{{arm}} meant"
                        ),
                        PanelQuery(
                            f"max by (arm) (wardrobe_rollout_observed_weight_ratio{{{_ROLL}}})",
                            "{{arm}} seen",
                        ),
                    ),
                    unit="percentunit",
                    width=12,
                ),
                series(
                    "Units that each arm has served",
                    f"max by (arm) (wardrobe_rollout_samples{{{_ROLL}}})",
                    "{{arm}}",
                    width=12,
                ),
            ),
        ),
        PanelRow(
            "What both arms show",
            (
                series(
                    "What the arms are compared by",
                    f"max by (check, arm) (wardrobe_rollout_analysis_value{{{_ROLL}}})",
                    "{{check}} {{arm}}",
                ),
                series(
                    "Share of bad answers, 10 min",
                    f'adapter_arm:wardrobe_bad_answers:ratio_rate10m{{{_ROLL}, arm=~"$arm"}}',
                    "{{arm}}",
                    "percentunit",
                ),
                Panel(
                    "Time to the first token",
                    quantiles("wardrobe_inference_ttft_seconds", _ROLLOUT_ARM, "arm", "{{arm}}", 0.5, 0.95),
                    unit="s",
                ),
                series(
                    "Looks at the evidence",
                    f"sum by (check, verdict) (increase(wardrobe_rollout_analysis_total{{{_ROLL}}}[{RATE}]))",
                    "{{check}} {{verdict}}",
                    stacked=True,
                ),
                series(
                    "Failed by the canary, answered by stable",
                    "sum by (reason, outcome) (rate(wardrobe_upstream_retries_total"
                    f"{{{_ROLL}, {HERE}}}[{RATE}]))",
                    "{{reason}} → {{outcome}}",
                    "reqps",
                ),
                series(
                    "Where requests were sent and why",
                    f"sum by (arm, reason) (rate(wardrobe_route_decisions_total{{{_ROLLOUT_ARM}}}[{RATE}]))",
                    "{{arm}} {{reason}}",
                    "reqps",
                    stacked=True,
                ),
            ),
        ),
        PanelRow(
            "What was decided",
            (
                series(
                    "Changes of state",
                    f"max by (to, trigger) (increase(wardrobe_rollout_transitions_total{{{_ROLL}}}[{RATE}]))",
                    "{{to}} by {{trigger}}",
                    width=12,
                ),
                Panel(
                    "Seconds from a rollback's decision to its arrival everywhere (all adapters)",
                    quantiles("wardrobe_rollback_duration_seconds", HERE, "trigger", "{{trigger}}", 0.95),
                    unit="s",
                    width=12,
                ),
            ),
        ),
    ),
)
