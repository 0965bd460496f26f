"""The arithmetic of the benchmarks: medians, intervals and pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.bench.results import at_least, at_most, median_interval, pair_ratio, publish


def test_the_interval_holds_the_median_and_shrinks_with_more_samples() -> None:
    few = median_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    many = median_interval([1.0, 2.0, 3.0, 4.0, 5.0] * 40)
    assert few.median == many.median == 3.0
    assert few.low <= 3.0 <= few.high
    assert many.high - many.low < few.high - few.low


def test_a_ratio_is_taken_pair_by_pair_so_a_common_drift_cancels() -> None:
    drifting = [100.0, 50.0, 10.0, 200.0]
    ratio = pair_ratio([value * 0.9 for value in drifting], drifting)
    assert ratio.median == pytest.approx(0.9)
    assert ratio.high - ratio.low < 1e-9


def test_pairs_of_unequal_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        pair_ratio([1.0], [1.0, 2.0])


def test_a_bar_is_held_against_the_median() -> None:
    value = median_interval([0.97, 0.99, 0.99])
    assert at_least("share", value, 0.98).reached
    assert not at_least("share", value, 0.995).reached
    assert not at_most("seconds", value, 0.5, "s").reached


def test_publishing_writes_both_files_and_tells_a_missed_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    good = at_most("quick", median_interval([1.0]), 2, "s")
    bad = at_most("slow", median_interval([3.0]), 2, "s")
    assert publish("sample", [good], notes=["a note"])
    assert not publish("sample", [good, bad])
    written = json.loads((tmp_path / "bench-results/sample.json").read_text())
    assert [figure["reached"] for figure in written["figures"]] == [True, False]
    assert "| slow | 3 [3, 3] | s | 1 | ≤ 2 | NO |" in (tmp_path / "bench-results/sample.md").read_text()
    assert "| quick |" in capsys.readouterr().out
