"""The dashboard of all replicas."""

from __future__ import annotations

from deploy.observability.dashboards.panels import Dashboard, Panel, PanelQuery, PanelRow
from deploy.observability.dashboards.queries import ADAPTERS, HERE, RATE, REPLICAS, SHARED, series, stat

FLEET = Dashboard(
    uid="wardrobe-fleet",
    title="Wardrobe / Fleet",
    text="All replicas over one root: who is ready, what is asked, what goes wrong.",
    variables=(ADAPTERS, REPLICAS),
    rows=(
        PanelRow(
            "Now",
            (
                stat("Ready replicas", f"sum(wardrobe_engine_ready{{{HERE}}})", bad=1, low_is_bad=True),
                stat(
                    "Requests/s",
                    f"sum(rate(wardrobe_inference_requests_total{{{SHARED}}}[{RATE}]))",
                    "reqps",
                ),
                stat("In flight", f"sum(wardrobe_inference_inflight{{{SHARED}}})"),
                stat(
                    "Bad answers, 1 h",
                    'sum(adapter:wardrobe_bad_answers:rate1h{adapter=~"$adapter"})'
                    ' / (sum(adapter:wardrobe_answers:rate1h{adapter=~"$adapter"}) > 0)',
                    "percentunit",
                    bad=0.01,
                ),
                stat(
                    "Written tokens/s",
                    f'sum(rate(wardrobe_inference_tokens_total{{{SHARED}, type="output"}}[{RATE}]))',
                ),
                stat("Alerts firing", 'sum(ALERTS{alertstate="firing"}) or vector(0)', bad=1),
            ),
        ),
        PanelRow(
            "Service levels (objective: 99 % good answers, 95 % of streams begin within 2.5 s)",
            (
                series(
                    "Error budget burn, 1 h",
                    'adapter:wardrobe_bad_answers:ratio_rate1h{adapter=~"$adapter"} / 0.01',
                    "{{adapter}}",
                    text="1 = the budget lasts exactly as long as it should; 14.4 calls people.",
                ),
                series(
                    "Streams that begin late, 1 h",
                    'adapter:wardrobe_slow_ttft:ratio_rate1h{adapter=~"$adapter"}',
                    "{{adapter}}",
                    "percentunit",
                ),
                series(
                    "Streams slower than 0.25 s per token, 1 h",
                    'adapter:wardrobe_slow_tokens:ratio_rate1h{adapter=~"$adapter"}',
                    "{{adapter}}",
                    "percentunit",
                ),
            ),
        ),
        PanelRow(
            "Traffic",
            (
                series(
                    "Requests by adapter",
                    f"sum by (adapter) (rate(wardrobe_inference_requests_total{{{SHARED}}}[{RATE}]))",
                    "{{adapter}}",
                    "reqps",
                    stacked=True,
                ),
                series(
                    "Requests by outcome",
                    f"sum by (outcome) (rate(wardrobe_inference_requests_total{{{SHARED}}}[{RATE}]))",
                    "{{outcome}}",
                    "reqps",
                    stacked=True,
                ),
                series(
                    "Turned away by the router",
                    f"sum by (reason) (rate(wardrobe_rejections_total{{{HERE}}}[{RATE}]))",
                    "{{reason}}",
                    "reqps",
                    stacked=True,
                ),
                series(
                    "Connections",
                    f"sum by (state) (wardrobe_connections{{{HERE}}})",
                    "{{state}}",
                ),
            ),
        ),
        PanelRow(
            "Engines",
            (
                Panel(
                    "Requests in the engine",
                    (
                        PanelQuery(
                            f"sum by (instance) (vllm:num_requests_running{{{HERE}}})",
                            "{{instance}} running",
                        ),
                        PanelQuery(
                            f"sum by (instance) (vllm:num_requests_waiting{{{HERE}}})",
                            "{{instance}} waiting",
                        ),
                    ),
                ),
                series(
                    "KV cache in use",
                    f"max by (instance) (vllm:kv_cache_usage_perc{{{HERE}}})",
                    "{{instance}}",
                    "percentunit",
                ),
                Panel(
                    "Tokens/s",
                    (
                        PanelQuery(f"sum(rate(vllm:prompt_tokens_total{{{HERE}}}[{RATE}]))", "read"),
                        PanelQuery(f"sum(rate(vllm:generation_tokens_total{{{HERE}}}[{RATE}]))", "written"),
                    ),
                ),
                series(
                    "Prefix cache hits",
                    f"sum by (instance) (rate(vllm:prefix_cache_hits_total{{{HERE}}}[{RATE}]))"
                    f" / (sum by (instance) (rate(vllm:prefix_cache_queries_total{{{HERE}}}[{RATE}])) > 0)",
                    "{{instance}}",
                    "percentunit",
                ),
                series(
                    "Places for versions in use",
                    'instance:wardrobe_adapter_slots_used:ratio{instance=~"$replica"}',
                    "{{instance}}",
                    "percentunit",
                ),
                series(
                    "Engine restarts",
                    f"max by (instance) (wardrobe_engine_restarts_total{{{HERE}}})",
                    "{{instance}}",
                ),
            ),
        ),
        PanelRow(
            "Registry",
            (
                series(
                    "Age of the registry's view",
                    "time() - max by (instance) "
                    f"(wardrobe_registry_last_success_timestamp_seconds{{{HERE}}})",
                    "{{instance}}",
                    "s",
                ),
                series(
                    "Versions that should be loaded and are not",
                    f"max by (instance) (wardrobe_reconcile_drift_adapters{{{HERE}}})",
                    "{{instance}}",
                ),
                series(
                    "Versions",
                    f"max by (state) (wardrobe_registry_versions{{{HERE}}})",
                    "{{state}}",
                ),
            ),
        ),
    ),
)
