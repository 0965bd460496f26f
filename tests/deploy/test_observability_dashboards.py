"""The dashboards: every expression parsed, every metric and label known, each file laid out as one."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.observability.catalogue import ENGINE, PROMETHEUS, TRAINING, server_families
from tests.deploy.watching import GRAFANA, filled, rules, selectors

DASHBOARDS = [json.loads(path.read_text()) for path in GRAFANA]
# Every series has these by how it is scraped; recorded series have what their rule leaves.
SCRAPED = {"instance", "job"}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield target["expr"]


def found(node: Any, key: str) -> Iterator[Any]:
    """Yield every value of `key`, at any depth."""
    if isinstance(node, dict):
        yield from (node[key] for _ in range(key in node))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from found(child, key)


every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one["uid"])


@pytest.mark.parametrize("path", GRAFANA, ids=lambda path: path.stem)
def test_a_file_has_one_layout_so_that_a_diff_shows_what_changed(path: Path) -> None:
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


def test_there_are_four_with_uids_of_their_own() -> None:
    assert len({one["uid"] for one in DASHBOARDS}) == len(DASHBOARDS) == 4
    assert sum(len(panels(one)) for one in DASHBOARDS) >= 45


@every_dashboard
def test_every_expression_parses_and_names_known_metrics_and_labels(dashboard: dict[str, Any]) -> None:
    labels = {
        name: {*one.labels, "le"} for one in (*server_families(), *TRAINING) for name in one.sample_names
    }
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in expressions(dashboard):
        for selector in selectors(filled(expression)):
            name = str(selector.name)
            assert name in labels or name in recorded | ENGINE.keys() | PROMETHEUS, expression
            if name in labels:
                asked = {matcher.name for matcher in selector.matchers.matchers}
                assert asked <= labels[name] | SCRAPED, expression


@every_dashboard
def test_every_range_is_grafanas_rate_interval(dashboard: dict[str, Any]) -> None:
    ranges = {found for one in expressions(dashboard) for found in re.findall(r"\[([^\]]+)\]", one)}
    assert ranges == {"$__rate_interval"}


@every_dashboard
def test_every_datasource_is_the_variable(dashboard: dict[str, Any]) -> None:
    sources = list(found(dashboard, "datasource"))
    assert len(sources) > len(panels(dashboard))
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    first = dashboard["templating"]["list"][0]
    assert (first["name"], first["type"]) == ("datasource", "datasource")


@every_dashboard
def test_every_variable_is_used_and_every_used_one_is_there(dashboard: dict[str, Any]) -> None:
    queries = [one["definition"] for one in dashboard["templating"]["list"] if "definition" in one]
    used = set(re.findall(r"\$(\w+)", " ".join([*expressions(dashboard), *queries])))
    there = {one["name"] for one in dashboard["templating"]["list"]}
    assert used - {"__rate_interval"} == there - {"datasource"}


def test_the_variables_that_were_promised_are_there() -> None:
    there = {one["name"] for dashboard in DASHBOARDS for one in dashboard["templating"]["list"]}
    assert {"datasource", "adapter", "version", "arm", "replica"} <= there


@every_dashboard
def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    every = dashboard["panels"]
    assert len({one["id"] for one in every}) == len(every)
    for one, other in itertools.combinations([panel["gridPos"] for panel in every], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    assert all(one["gridPos"]["x"] + one["gridPos"]["w"] <= 24 for one in every)


@every_dashboard
def test_every_number_has_a_unit_and_every_line_a_name(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        assert panel["fieldConfig"]["defaults"]["unit"]
        if panel["type"] == "timeseries":
            assert all("__auto" not in target["legendFormat"] for target in panel["targets"]), panel["title"]
