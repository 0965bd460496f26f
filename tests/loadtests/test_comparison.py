"""Two runs beside each other: real differences are found, none is invented, and some are not comparable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.runner.records import ERROR, RecordFile
from loadtests.runner.results.comparison import COMPARED, Bar, FinishedRun, compare
from loadtests.runner.results.report import Facts
from loadtests.runner.run import write
from registry.errors import NotFound, UsageError
from tests.loadtests.making import record, scenario


def run(folder: Path, seed: int, factor: float = 1.0, errors: int = 0, **facts: Any) -> FinishedRun:
    """A run of 600 requests whose times are lognormal around 1 s, `factor` times as long."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    with RecordFile(folder / "requests.jsonl") as sink:
        for index in range(600):
            at = index * 0.1
            one = record(at, first=at + 0.1 * factor, ended=at + factor * float(rng.lognormal(0, 0.3)))
            if index < errors:
                one.outcome, one.error = ERROR, "cut"
            sink.write(one)
    made = facts.pop("scenario", scenario(duration_seconds=60, slo={"e2e_ms": 1_500}))
    write(
        Facts(**{"tool": "t", "url": "u", "started_at": 0.0, "end_seconds": 61.0, "scenario": made} | facts),
        folder,
    )
    return FinishedRun.read(folder)


def found(tmp_path: Path, b: FinishedRun, *bars: str) -> dict[str, Any]:
    comparison = compare(run(tmp_path / "a", 1), b, [Bar.parse(text) for text in bars])
    return {one.metric: one for one in comparison.ratios} | {"all": comparison}


def test_the_same_server_twice_is_the_same(tmp_path: Path) -> None:
    ratios = found(tmp_path, run(tmp_path / "b", 2))
    assert ratios["all"].comparable
    for metric in ("e2e_ms.p50", "e2e_ms.p95", "errors.rate", "requests_per_second", "goodput.rate"):
        assert ratios[metric].verdict == "same", metric
    one = ratios["e2e_ms.p50"]
    assert one.low < 1 < one.high
    assert len(ratios["all"].ratios) == len(COMPARED) == 19


def test_a_slower_server_is_worse_by_the_true_factor(tmp_path: Path) -> None:
    ratios = found(tmp_path, run(tmp_path / "b", 2, factor=1.3), "e2e_ms.p50>1.1", "e2e_ms.p50>1.5")
    one = ratios["e2e_ms.p50"]
    assert one.verdict == "worse"
    assert one.low < 1.3 < one.high
    assert one.ratio == pytest.approx(1.3, abs=0.08)
    assert ratios["goodput.rate"].verdict == "worse"
    assert len(ratios["all"].failed) == 1
    assert "bar > 1.1" in ratios["all"].failed[0]


def test_a_faster_server_is_better_and_fails_nothing(tmp_path: Path) -> None:
    ratios = found(tmp_path, run(tmp_path / "b", 2, factor=0.7), "e2e_ms.p50>1.1", "goodput.rate<0.9")
    assert (ratios["e2e_ms.p50"].verdict, ratios["goodput.rate"].verdict) == ("better", "better")
    assert ratios["all"].failed == []


def test_errors_where_there_were_none_have_no_ratio_and_are_worse(tmp_path: Path) -> None:
    records = run(tmp_path / "b", 2, errors=300)
    ratios = found(tmp_path, records, "errors.rate>1.1")
    assert (ratios["errors.rate"].ratio, ratios["errors.rate"].verdict) == (None, "worse")
    assert ratios["all"].failed == ["errors.rate: 0 → 0.5, bar > 1.1"]


def test_a_difference_within_the_noise_misses_no_bar(tmp_path: Path) -> None:
    ratios = found(tmp_path, run(tmp_path / "b", 3), "e2e_ms.p99>0.5")
    assert ratios["e2e_ms.p99"].ratio > 0.5
    assert ratios["all"].failed == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"scenario": scenario(name="other", duration_seconds=60, seed=9, slo={"e2e_ms": 1_500})},
            "other traffic: seed differ",
        ),
        ({"scenario": scenario(duration_seconds=60, slo={"e2e_ms": 9})}, "other SLOs"),
        ({"tool": "locust"}, "other tools: t, locust"),
        ({"shed": 4}, "B: 4 requests were not begun"),
        ({"partial": True}, "B was interrupted"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    comparison = found(tmp_path, run(tmp_path / "b", 2, **facts))["all"]
    assert not comparison.comparable
    assert any(words in one for one in comparison.obstacles), comparison.obstacles


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ttft_ms.p95", "does not read METRIC>RATIO"),
        ("ttft>1", "is not a metric"),
        ("lag_ms.p50>1", "not compared"),
    ],
)
def test_a_bar_that_cannot_be_read_is_explained(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Bar.parse(text)


def test_a_folder_that_is_no_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds no report.json"):
        FinishedRun.read(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(UsageError, match="has another format"):
        FinishedRun.read(tmp_path)
