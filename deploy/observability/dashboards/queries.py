"""What the dashboards share: their variables, the selectors that use them, and the common pictures.

`$replica` is Prometheus' `instance`: every series of a target has it, vLLM's too.
"""

from __future__ import annotations

from deploy.observability.dashboards.panels import Panel, PanelQuery, Variable

ADAPTERS = Variable("adapter", "wardrobe_inference_requests_total", "adapter", "Adapter")
VERSIONS = Variable("version", 'wardrobe_inference_requests_total{adapter=~"$adapter"}', "version", "Version")
ARMS = Variable("arm", "wardrobe_inference_requests_total", "arm", "Arm")
REPLICAS = Variable("replica", "wardrobe_engine_up", "instance", "Replica")

HERE = 'instance=~"$replica"'
SHARED = f'adapter=~"$adapter", {HERE}'
MINE = f'adapter=~"$adapter", version=~"$version", arm=~"$arm", {HERE}'
RATE = "$__rate_interval"


def quantiles(metric: str, chosen: str, by: str, legend: str, *levels: float) -> tuple[PanelQuery, ...]:
    """Return quantiles of a histogram over the series `chosen`, one series for each value of `by`."""
    return tuple(
        PanelQuery(
            f"histogram_quantile({level:g}, sum by (le, {by}) (rate({metric}_bucket{{{chosen}}}[{RATE}])))",
            f"{legend} p{level * 100:g}",
        )
        for level in levels
    )


def stat(
    title: str, expression: str, unit: str = "short", *, bad: float | None = None, low_is_bad: bool = False
) -> Panel:
    """Return one number; it changes its colour at `bad`."""
    return Panel(
        title, (PanelQuery(expression),), "stat", unit, width=4, height=4, bad=bad, low_is_bad=low_is_bad
    )


def series(
    title: str,
    expression: str,
    legend: str,
    unit: str = "short",
    text: str = "",
    *,
    stacked: bool = False,
    width: int = 8,
) -> Panel:
    """Return lines over time."""
    return Panel(title, (PanelQuery(expression, legend),), unit=unit, text=text, stacked=stacked, width=width)
