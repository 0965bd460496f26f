"""The parts of a Grafana dashboard: queries, panels, variables, and their layout. Knows no metric.

Grafana's JSON has hundreds of keys; only those that differ from its defaults are written, so a change of a
dashboard is a change that can be read. Invariants: the datasource is always the variable `$datasource`; ids
and places follow from the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from pydantic import JsonValue

SCHEMA_VERSION = 39
"""Grafana 10.4 and later read it as it is; newer ones migrate it when they load it."""

COLUMNS = 24
_SOURCE: JsonValue = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One expression and how its series are called (Grafana's legend format)."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: `kind` is Grafana's panel type, `unit` Grafana's unit id, `text` says how to read it.

    `stacked` piles up series; `bad` colours a number from that value on, `mapping` gives words to values.
    """

    title: str
    queries: tuple[PanelQuery, ...]
    kind: str = "timeseries"
    unit: str = "short"
    text: str = ""
    width: int = 8
    height: int = 8
    stacked: bool = False
    bad: float | None = None
    low_is_bad: bool = False


@dataclass(frozen=True, slots=True)
class PanelRow:
    """A line of panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the head of a dashboard: the values of `label` in the series of `metric`."""

    name: str
    metric: str
    label: str
    title: str
    several: bool = True


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `uid` is what links name."""

    uid: str
    title: str
    text: str
    variables: tuple[Variable, ...]
    rows: tuple[PanelRow, ...]

    def render(self) -> Json:
        """Return Grafana's JSON."""
        panels: list[JsonValue] = []
        panels.extend(_place(self.rows))
        variables: list[JsonValue] = [_datasource()]
        variables.extend(_variable(one) for one in self.variables)
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.text,
            "tags": ["wardrobe"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "timezone": "browser",
            "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": variables},
            "annotations": {"list": [_alerts()]},
            "links": [_other_dashboards()],
            "panels": panels,
        }


def _place(rows: Sequence[PanelRow]) -> Iterator[Json]:
    ids, y = count(1), 0
    for row in rows:
        place: Json = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": next(ids), "type": "row", "title": row.title, "collapsed": False, "gridPos": place}
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            yield {"id": next(ids), "gridPos": place, **_panel(panel)}
            x, height = x + panel.width, max(height, panel.height)
        y += height


def _panel(panel: Panel) -> Json:
    targets: list[JsonValue] = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _SOURCE,
            "expr": query.expression,
            "legendFormat": query.legend or "__auto",
            **_format(panel),
        }
        for number, query in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _format(panel: Panel) -> Json:
    if panel.kind == "heatmap":
        return {"format": "heatmap"}
    if panel.kind == "table":
        return {"format": "table", "instant": True}
    return {"instant": True} if panel.kind == "stat" else {}


def _defaults(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit}
    if panel.kind == "timeseries":
        stacking: Json = {"mode": "normal" if panel.stacked else "none"}
        fill = 30 if panel.stacked else 5
        defaults["custom"] = {
            "fillOpacity": fill,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": stacking,
        }
    elif panel.kind == "state-timeline":
        defaults["custom"] = {"fillOpacity": 70}
    if panel.bad is not None:
        calm, loud = ("red", "green") if panel.low_is_bad else ("green", "red")
        steps: list[JsonValue] = [{"color": calm, "value": None}, {"color": loud, "value": panel.bad}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return defaults


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        coloured = "background" if panel.bad is not None else "none"
        return {"colorMode": coloured, "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {"yAxis": {"unit": panel.unit}} if panel.kind == "heatmap" else {}


def _datasource() -> Json:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.metric}, {variable.label})"
    found: Json = {
        "name": variable.name,
        "type": "query",
        "label": variable.title,
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": variable.name},
        "refresh": 2,
        "sort": 3,
        "multi": variable.several,
        "includeAll": variable.several,
    }
    # A regular expression instead of a list of all values: the adapters may be a thousand.
    return (
        {**found, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}
        if variable.several
        else found
    )


def _alerts() -> Json:
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{ alertname }} {{ adapter }}",
        "step": "60s",
    }


def _other_dashboards() -> Json:
    return {
        "type": "dashboards",
        "title": "Wardrobe",
        "tags": ["wardrobe"],
        "asDropdown": True,
        "keepTime": True,
        "includeVars": True,
    }
