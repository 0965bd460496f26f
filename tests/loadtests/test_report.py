"""The report: what is measured, what is left out, what is judged, and the files that say it."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from loadtests.runner.actions import ActionEvent, RolloutChange
from loadtests.runner.records import CANCELLED, ERROR, RecordFile, read_records
from loadtests.runner.results import tables
from loadtests.runner.results.documents import Report
from loadtests.runner.results.junit import junit
from loadtests.runner.results.markdown import markdown
from loadtests.runner.results.page import page
from loadtests.runner.results.report import digest
from loadtests.runner.run import ReservoirSample, write
from tests.loadtests.making import record, report_of, scenario

SCHEMA = files("loadtests.runner.results") / "report.schema.json"


def steady(count: int = 100, **fields: Any) -> list[Any]:
    return [record(index * 0.1, **fields) for index in range(count)]


def test_the_schema_in_the_repository_is_that_of_the_report() -> None:
    found = json.loads(SCHEMA.read_text("utf-8"))
    assert found == Report.model_json_schema(), "run: python -m loadtests.runner.results.schema"


def test_a_written_report_keeps_the_schema_and_is_read_back(tmp_path: Path) -> None:
    from loadtests.runner.results.report import Facts

    with RecordFile(tmp_path / "requests.jsonl") as sink:
        for one in [*steady(), record(5.0, outcome=ERROR, error="cut", first=None)]:
            sink.write(one)
    facts = Facts(scenario(duration_seconds=10), "test", "http://h", 0.0, 10.0)
    report = write(facts, tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text("utf-8")))
    assert Report.model_validate(document) == report
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"requests.jsonl", "report.json", "report.md", "report.html", "junit.xml"}


def test_latency_counts_from_the_intended_start_and_service_from_the_sending() -> None:
    late = [record(index * 0.1, sent=index * 0.1 + 0.04) for index in range(100)]
    spreads = report_of(late).overall.distributions
    found = {name: spread.p50 for name, spread in spreads.items() if spread is not None}
    assert found["ttft_ms"] == pytest.approx(100)
    assert found["ttft_service_ms"] == pytest.approx(60)
    assert found["e2e_ms"] == pytest.approx(1_000)
    assert found["e2e_service_ms"] == pytest.approx(960)
    assert found["lag_ms"] == pytest.approx(40)
    assert found["tpot_ms"] == pytest.approx(900 / 9)


def test_what_is_due_in_the_warm_up_is_shown_and_in_no_figure() -> None:
    slow = [record(index * 0.1, ended=index * 0.1 + 50) for index in range(50)]
    made = scenario(warmup_seconds=5, duration_seconds=5)
    report = report_of([*slow, *[record(5 + index * 0.05) for index in range(100)]], made)
    assert (report.warmup.requests, report.overall.requests) == (50, 100)
    spread = report.overall.distributions["e2e_ms"]
    assert spread is not None
    assert spread.max == pytest.approx(1_000)
    assert [one.figures.requests for one in report.adapters] == [100]
    assert report.overall.requests_per_second == pytest.approx(100 / (9.95 + 1 - 5))


def test_a_quantile_that_rests_on_nothing_has_no_value() -> None:
    def quantiles(count: int) -> tuple[bool, bool, bool]:
        spread = report_of(steady(count)).overall.distributions["e2e_ms"]
        assert spread is not None
        return spread.p90 is not None, spread.p99 is not None, spread.p99_9 is not None

    assert quantiles(9) == (False, False, False)
    assert quantiles(10) == (True, False, False)
    assert quantiles(100) == (True, True, False)
    assert quantiles(1_000) == (True, True, True)


def test_tokens_of_one_have_no_time_between_them() -> None:
    assert report_of(steady(20, output_tokens=1)).overall.distributions["tpot_ms"] is None


def test_goodput_needs_every_slo_and_failures_are_bad() -> None:
    made = scenario(duration_seconds=10, slo={"ttft_ms": 150, "e2e_ms": 1_100})
    records = [
        *steady(6),
        record(1.0, first=1.2),
        record(1.0, ended=2.5),
        record(2.0, outcome=ERROR, error="cut"),
        record(3.0, stream=False, first=None),
        record(4.0, outcome=CANCELLED),
    ]
    goodput = report_of(records, made).overall.goodput
    assert (goodput.kept, goodput.rate) == (7, 7 / 10)


@pytest.mark.parametrize(("lag", "shed", "saturated"), [(0.04, 0, False), (0.06, 0, True), (0.0, 1, True)])
def test_a_generator_that_was_late_or_shed_fails_the_run(lag: float, shed: int, saturated: bool) -> None:
    made = scenario(duration_seconds=10, saturation_ms=50)
    report = report_of([record(i * 0.1, sent=i * 0.1 + lag) for i in range(100)], made, shed=shed)
    assert report.generator.saturated is saturated
    assert report.passed is not saturated


@pytest.mark.parametrize(("late", "saturated"), [(1, False), (4, True)])
def test_of_few_requests_one_that_was_held_up_saturates_nothing(late: int, saturated: bool) -> None:
    records = [record(at / 10, sent=at / 10 + (0.3 if at < late else 0.0)) for at in range(40)]
    generator = report_of(records, scenario(duration_seconds=10, saturation_ms=50)).generator
    assert (generator.lag_statistic, generator.saturated) == ("p95", saturated)


def test_one_late_request_in_two_hundred_saturates_nothing() -> None:
    records = [record(index * 0.05, sent=index * 0.05 + (0.5 if index == 7 else 0)) for index in range(200)]
    assert not report_of(records, scenario(duration_seconds=10, saturation_ms=50)).generator.saturated


def test_an_interrupted_run_and_one_without_answers_do_not_pass() -> None:
    assert not report_of(steady(), partial=True).passed
    assert not report_of([record(1.0, outcome=ERROR, error="refused")]).passed
    assert not report_of([]).passed


def test_a_server_that_falls_behind_is_told_by_its_growing_times() -> None:
    falling = [record(i * 0.1, ended=i * 0.1 + 1 + i * 0.1) for i in range(100)]
    assert report_of(falling).keeping_up.kept_up is False
    assert report_of(steady()).keeping_up.kept_up is True
    assert report_of(steady(5)).keeping_up.kept_up is None


def test_in_flight_is_counted_at_its_peak_and_over_time() -> None:
    report = report_of([record(0.0), record(0.5), record(1.0, sent=1.0, ended=1.2)])
    assert report.generator.peak_in_flight == 2
    assert sum(one.due for one in report.timeline) == 3
    assert [one.in_flight for one in report.timeline[:8]] == [1, 1, 2, 2, 2, 1, 1, 0]
    assert len(report.timeline) <= 120


@pytest.mark.parametrize(
    ("bar", "passed", "words"),
    [
        ({"metric": "ttft_ms.p95", "at_most": 101}, True, "ttft_ms.p95 = 100"),
        ({"metric": "ttft_ms.p95", "at_most": 99}, False, "ttft_ms.p95 = 100"),
        ({"metric": "requests_per_second", "at_least": 5}, True, "requests_per_second = 9.17"),
        ({"metric": "errors.rate", "at_most": 0.0}, True, "errors.rate = 0"),
        ({"metric": "ttft_ms.p99_9", "at_most": 1e9}, False, "needs 1000 values, found 100"),
        ({"metric": "e2e_ms.max", "at_most": 5, "arm": "canary"}, False, "no measured request belongs there"),
        (
            {"metric": "e2e_ms.p50", "at_most": 1001, "adapter": "support", "arm": "stable"},
            True,
            "arm stable",
        ),
        ({"metric": "rollout.canary_answers", "at_most": 5}, False, "the run saw no rollout"),
    ],
)
def test_a_bar_is_held_or_missed_with_a_sentence(bar: dict[str, Any], passed: bool, words: str) -> None:
    report = report_of(steady(), scenario(duration_seconds=10, thresholds=[bar]))
    check = report.checks[-1]
    assert (check.passed, report.passed) == (passed, passed)
    assert words in check.sentence


def test_junit_has_a_case_for_each_check_and_a_failure_for_each_missed_one() -> None:
    bars = [{"metric": "errors", "at_most": 0}, {"metric": "e2e_ms.p50", "at_most": 5}]
    report = report_of(steady(), scenario(duration_seconds=10, thresholds=bars))
    root = ET.fromstring(junit(report))
    suite = root[0]
    assert (root.tag, suite.get("tests"), suite.get("failures")) == ("testsuites", "4", "1")
    assert [case.get("name") for case in suite] == [
        "generator kept time", "run is whole", "errors", "e2e_ms.p50",
    ]  # fmt: skip
    failures = [case.find("failure") for case in suite]
    assert [one is not None for one in failures] == [False, False, False, True]
    assert failures[3] is not None
    assert "bar: ≤ 5" in (failures[3].get("message") or "")


def rollout_run() -> tuple[list[Any], dict[str, Any]]:
    """A canary that answers from 2 s to 4 s, when it is taken back; one request meets it late."""
    records = [record(i * 0.1, version="support@1") for i in range(100)]
    for i in range(20, 41):
        records[i].arm, records[i].version = "canary", "support@2"
    records[30].outcome, records[30].error = ERROR, "timeout"
    records[45].arm = "canary"

    def change(at: float, state: str, weight: int) -> RolloutChange:
        return RolloutChange(
            at, "support", "support@2", state, weight, state, "A sentence.", 1_000.0, 999.0 + at
        )

    changes = [change(1.1, "preloading", 0), change(2.0, "ramping", 1_000), change(4.05, "rolled_back", 0)]
    return records, {"changes": changes, "events": [ActionEvent(1.0, "rollout", "support", 0.1)]}


def test_a_rollout_is_told_with_its_detection_and_everybody_it_touched() -> None:
    records, facts = rollout_run()
    (found,) = report_of(records, **facts).rollouts
    assert (found.canary, found.state) == ("support@2", "rolled_back")
    assert found.seconds_to_rolled_back == pytest.approx(3.05)
    assert found.seconds_to_promoted is None
    # It began at 1.0 s, its first answer was at 2.0 s, and it was over 3.05 s after the begin.
    assert found.detection_seconds == pytest.approx(2.05)
    assert (found.canary_answers, found.canary_errors) == (21, 1)
    assert found.late_canary_seconds == pytest.approx(0.45)
    assert [one.state for one in found.changes] == ["preloading", "ramping", "rolled_back"]


def test_errors_of_requests_open_during_a_kill_are_explained_and_refused_ones_never() -> None:
    records = [
        record(1.0, ended=1.5, outcome=ERROR, error="cut"),
        record(1.9, ended=2.3, outcome=ERROR, error="cut"),
        record(2.5, ended=2.6, outcome=ERROR, error="refused"),
        record(9.0),
    ]
    bar = {"metric": "errors.unexplained", "at_most": 1}
    made = scenario(duration_seconds=10, thresholds=[bar])
    report = report_of(records, made, events=[ActionEvent(2.0, "kill_replica", "", 3.0)])
    assert (report.overall.errors, report.overall.unexplained_errors) == (3, 2)
    assert "errors.unexplained = 2" in report.checks[-1].sentence


def test_a_bar_may_ask_why_a_rollout_moved_how_many_weights_it_had_and_that_none_fell() -> None:
    records, facts = rollout_run()
    bars = [
        {"metric": "rollout.seconds_to_rolled_back", "at_most": 5, "reason": "rolled_back"},
        {"metric": "rollout.seconds_to_rolled_back", "at_most": 5, "reason": "format"},
        {"metric": "rollout.weights", "at_least": 1},
        {"metric": "rollout.setbacks", "at_most": 0},
    ]
    report = report_of(records, scenario(duration_seconds=10, thresholds=bars), **facts)
    assert [one.passed for one in report.checks[-4:]] == [True, False, True, True]
    first, second, last = facts["changes"]
    fallen = replace(second, at=3.0, weight=500)
    restarted = replace(fallen, at=3.5, began=second.began + 1)
    facts["changes"] = [first, second, fallen, restarted, last]
    (rollout,) = report_of(records, **facts).rollouts
    assert (rollout.weights, rollout.setbacks) == (2, 3)


def test_the_run_in_brief_names_the_rollout_and_what_was_done_and_a_bar_says_where_it_ended() -> None:
    records, facts = rollout_run()
    facts["events"] = [
        *facts["events"],
        ActionEvent(2.0, "swap", "x", 0.1),
        ActionEvent(3.0, "swap", "x", 0.1, error="no"),
    ]
    bar = {"metric": "rollout.seconds_to_promoted", "at_most": 5}
    report = report_of(records, scenario(duration_seconds=10, thresholds=[bar]), **facts)
    brief = dict(tables.facts(report))
    assert brief["rollout"] == "support@2: rolled back after 3.0 s; 21 answers and 1 errors by the canary"
    assert brief["done to it"] == "rollout, swap 2 times; 1 failed"
    assert "it never came to that; support@2 was last rolled_back (A sentence.)" in report.checks[-1].sentence


def test_a_page_is_one_file_and_holds_no_markup_of_others() -> None:
    evil = "<script>alert(1)</script>"
    records, facts = rollout_run()
    records.append(record(6.0, outcome=ERROR, error="http 500", detail=evil, model=evil))
    facts["events"] = [*facts["events"], ActionEvent(2.0, "swap", evil, 0.1, error=evil)]
    report = report_of(records, scenario(duration_seconds=10, about=evil, name="x"), **facts)
    text = page(report, sorted(records, key=lambda one: one.at))
    assert evil not in text
    assert "&lt;script&gt;" in text
    for word in ("http://", "https://", "<script", "<link", "<img", "url(", "@import"):
        assert word not in text.replace("http://h", ""), word
    assert text.count("<svg") >= 7
    assert "Rollout of support@2: rolled_back" in text
    assert "<script" not in markdown(report)


def test_a_page_and_a_report_of_nothing_can_be_made() -> None:
    report = report_of([])
    assert "FAILED" in page(report, [])
    assert "FAILED" in markdown(report)


def test_the_digest_names_the_traffic_and_not_how_it_is_judged() -> None:
    plain = digest(scenario())
    assert digest(scenario(slo={"ttft_ms": 5}, about="Other.", thresholds=[])) == plain
    assert digest(scenario(seed=2)) != plain
    assert digest(scenario(max_tokens={"mean": 11})) != plain


def test_records_are_read_back_as_written_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with RecordFile(path) as sink:
        sink.write(record(1.0))
        sink.write(record(2.0, first=None, stream=False))
    with path.open("a") as file:
        file.write('{"index": 3, "at"')
    assert list(read_records(path)) == [record(1.0), record(2.0, first=None, stream=False)]


def test_a_sample_is_in_order_and_no_larger_than_wanted() -> None:
    sample = ReservoirSample(40)
    assert len(list(sample.passing(iter(steady(500))))) == 500
    found = sample.records()
    assert len(found) == 40
    assert [one.at for one in found] == sorted(one.at for one in found)
    assert found[-1].at > 30
