"""What the scenarios' drill keeps of its runs, as figures and as a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.drills import scenarios
from loadtests.drills.outcomes import JSON_FILE, TABLE_FILE, keep, outcome
from loadtests.markers import MARKERS
from loadtests.runner.actions import ActionEvent, RolloutChange
from loadtests.runner.loading import load_scenario, packaged
from serve.rollout.presets import load_policy
from tests.loadtests.making import record, report_of, scenario


def test_a_later_run_replaces_its_own_row_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = report_of([record(at) for at in range(10)])
    broken = report_of([record(at, outcome="error", error="cut") for at in range(10)])
    keep(outcome("first", whole, [], 0.5))
    keep(outcome("second", broken, ["seed=2"], 0.5))
    keep(outcome("second", whole, ["seed=3"], 0.5))
    rows = json.loads(JSON_FILE.read_text())
    assert [(row["scenario"], row["passed"], row["changed"]) for row in rows] == [
        ("first", True, []), ("second", True, ["seed=3"]),
    ]  # fmt: skip
    table = TABLE_FILE.read_text()
    assert "| `second` | 10 | 10 | 0 | 100% | 100 | – |" in table
    assert "Set otherwise than the file: `seed=3`" in table


def test_rows_of_another_form_are_dropped_rather_than_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    JSON_FILE.parent.mkdir()
    JSON_FILE.write_text(json.dumps([{"scenario": "old", "passed": True}]))
    keep(outcome("new", report_of([record(0.0)]), [], 0.0))
    assert [row["scenario"] for row in json.loads(JSON_FILE.read_text())] == ["new"]


def test_the_table_tells_missed_bars_failed_actions_and_what_became_of_a_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events = [
        ActionEvent(1.0, "rollout", "support", 0.1, "support@2"),
        ActionEvent(2.0, "swap", "x", 0.1, "", "no such"),
    ]
    changes = [
        RolloutChange(1.2, "support", "support@2", "ramping", 1_000, "", "", 100.0, 100.0),
        RolloutChange(5.2, "support", "support@2", "rolled_back", 0, "feedback", "", 100.0, 104.0),
    ]
    records = [record(2.0, arm="canary", version="support@2"), record(3.0, outcome="error", error="cut")]
    made = scenario(duration_seconds=10, thresholds=[{"metric": "errors", "at_most": 0}])
    keep(outcome("drill", report_of(records, made, events=events, changes=changes), [], 0.0))
    table = TABLE_FILE.read_text()
    assert "**missed**" in table
    assert "- MISSED: errors = 1 (≤ 0)" in table
    assert "- failed: swap x: no such" in table
    assert "- 1 errors of the kind cut" in table
    assert "- rollout of support@2: rolled_back, 4.0 s to its rollback, 3.0 s from the canary" in table


def test_every_packaged_scenario_has_its_settings_in_the_drill_and_they_are_valid() -> None:
    assert sorted(scenarios.SETTINGS) == packaged()
    for name, changes in scenarios.SETTINGS.items():
        assert load_scenario(name, changes).name == name


def test_every_scene_of_the_drills_is_a_scenario_with_thresholds_whose_adapters_say_who_answered() -> None:
    assert len(scenarios.SCENES) == 8
    for name, path in scenarios.SCENES.items():
        scene = load_scenario(str(path))
        assert scene.name == name
        assert scene.adapters.models[0] in next(iter(scene.expect))
        assert set(scene.expect.values()) <= set(MARKERS.values())
        assert "wrong_text" in {bar.metric for bar in scene.thresholds}
        policies = [Path(one.policy) for one in scene.actions if one.action == "rollout"]
        assert [load_policy(str(one)).name for one in policies] == ["drill"] * (name != "churn")
