"""The look of all pages: everything is escaped, plots keep what matters and stay small."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from registry.errors import UsageError
from registry.report.parts import banner, block, facts, folded, mark, note, page_of, safe, section, table
from registry.report.plots import (
    Curve,
    ForestRow,
    Plot,
    bars,
    forest,
    histogram,
    round_values,
    stretches,
)
from registry.report.writing import check_target, write_page
from tests.outline import Outline, assert_harmless

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"


def test_every_part_shows_markup_and_control_characters_as_text() -> None:
    curves = [Curve(HOSTILE, [(1, 2.0)]), Curve(HOSTILE, [(1, 1.0)])]
    parts = [
        note(HOSTILE),
        banner("fail", HOSTILE, HOSTILE),
        facts({HOSTILE: HOSTILE}),
        folded(HOSTILE, block(HOSTILE)),
        mark("pass", HOSTILE),
        table((HOSTILE, f"{HOSTILE}#"), [(HOSTILE, HOSTILE)]),
        bars(HOSTILE, [(HOSTILE, 3.0, HOSTILE)]),
        histogram([1, 2, 4], [1, 2], HOSTILE, HOSTILE),
        Plot(HOSTILE, curves, [(1, HOSTILE)], [(1, HOSTILE)], unit=HOSTILE).figure(),
        forest([ForestRow(HOSTILE, HOSTILE, 0.1, 0.0, 0.2, 0.1)], HOSTILE),
    ]
    page = page_of(HOSTILE, [section(HOSTILE, parts)])
    outline = assert_harmless(page)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert sum("<script>alert(1)</script>" in text for text in outline.texts) > 12


def test_a_text_of_others_keeps_its_lines_and_ends_with_what_is_left_out() -> None:
    assert block("one\n\ttwo <b>") == "<pre>one\n\ttwo &lt;b&gt;</pre>"
    assert "995 more characters" in block("x" * 1_000, longest=5)
    assert safe(safe("<")) == "&lt;"


def test_a_curve_of_many_steps_is_small_and_keeps_every_spike() -> None:
    points = [(float(step), 1.0 + 1 / step) for step in range(1, 100_001)]
    points[77_777] = (77_778.0, 50.0)
    drawn = Plot("Loss", [Curve("training", points)]).figure()
    assert len(drawn) < 20_000
    assert Outline(drawn).open == []
    found = stretches(points)
    assert len(found) == 300
    assert max(high for _, _, _, high in found) == 50.0
    total = sum(mean for _, mean, _, _ in found) / 300
    assert total == pytest.approx(sum(value for _, value in points) / 100_000, rel=1e-3)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, math.nan]])
def test_a_curve_without_a_finite_value_is_no_plot(values: list[float]) -> None:
    assert Plot("Loss", [Curve("training", list(enumerate(values)))]).figure() == ""


def test_what_is_not_finite_is_told_beside_the_curve() -> None:
    drawn = Plot("Loss", [Curve("training", [(1, 2.0), (2, math.nan), (3, math.inf)])]).figure()
    assert "training is not a finite number at 2 steps, first at step 2." in drawn
    assert "nan" not in drawn
    assert "inf," not in drawn


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-30, 1e300, 5.0])
def test_a_curve_of_one_value_is_drawn_at_any_size(value: float) -> None:
    assert "<svg" in Plot("x", [Curve("x", [(1, value), (2, value)])]).figure()
    assert "<circle" in Plot("x", [Curve("x", [(1, value)])]).figure()


def test_a_forest_puts_every_limit_and_zero_on_one_axis() -> None:
    rows = [ForestRow("a", "+1", 1.0, 0.5, 1.5, 0.2), ForestRow("b", "none", None, None, None)]
    drawn = forest(rows, "gain")
    positions = [float(part.split('%"')[0]) for part in drawn.split('cx="')[1:]]
    assert len(positions) == 1
    # From -0.09 to 1.59: one sits at (1 + 0.09) / 1.68.
    assert positions[0] == pytest.approx(64.88, abs=0.01)
    assert forest([], "gain") == ""
    assert "<svg" in forest([ForestRow("a", "0", 0.0, 0.0, 0.0)], "gain")


def test_round_values_are_round_and_within_the_axis() -> None:
    assert round_values(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert round_values(-0.11, 0.31, 4) == pytest.approx([0.0, 0.2])
    assert round_values(3, 3, 4) == [3]


def test_a_page_goes_to_a_new_folder_and_never_over_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "page.html"
    write_page(target, "half a character: \udc80")
    assert target.read_bytes() == b"half a character: \\udc80"
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        check_target(target / "page.html")
