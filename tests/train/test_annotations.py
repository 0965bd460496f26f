"""Several annotators' labels: agreement as the books count it, consensus by rule, mistakes with their row."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from registry.cli.main import run as wardrobe
from registry.errors import UsageError
from train.annotations.agreement import MeasurementLevel, alpha, labels_in_order, point
from train.annotations.consensus import ConsensusRule, decide
from train.annotations.reading import AnnotationColumns, parse_keys, read_annotations

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", sections A, B and C; "." is not a label.
BINARY = ["0100000010", "1110010000"]
NOMINAL = ["aabbdcccedda", "babbbcccedda"[:-1] + "d"]
MISSING = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
LONG = [
    {"item": "1", "annotator": "ann", "label": "cat", "prompt": "What is it?"},
    {"item": "1", "annotator": "ben", "label": "cat"},
    {"item": "2", "annotator": "ann", "label": "cat", "prompt": "And this?"},
    {"item": "2", "annotator": "ben", "label": "dog"},
    {"item": "2", "annotator": "cleo", "label": "dog"},
    {"item": "3", "annotator": "ben", "label": "dog", "prompt": "Here?"},
]


def units_of(rows: list[str]) -> list[list[str]]:
    return [[mark for mark in column if mark != "."] for column in zip(*rows, strict=True)]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert wardrobe(["data", "annotations", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert wardrobe(["data", "annotations", *map(str, arguments)]) in {1, 2}
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "level", "expected"),
    [
        (BINARY, MeasurementLevel.NOMINAL, 0.095),
        (NOMINAL, MeasurementLevel.NOMINAL, 0.692),
        (MISSING, MeasurementLevel.NOMINAL, 0.743),
        (MISSING, MeasurementLevel.ORDINAL, 0.815),
        (MISSING, MeasurementLevel.INTERVAL, 0.849),
    ],
)
def test_alpha_is_that_of_krippendorffs_own_examples(
    rows: list[str], level: MeasurementLevel, expected: float
) -> None:
    units = units_of(rows)
    order = sorted({label for unit in units for label in unit})
    found = alpha(units, order, level)
    assert found.value is not None
    assert found.value == pytest.approx(expected, abs=0.0006)
    assert found.value == point(units, order, level)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_ordinal_alpha_by_mid_ranks_is_that_of_the_sums_in_the_book() -> None:
    units = units_of(MISSING)
    paired = [unit for unit in units if len(unit) > 1]
    counts = {label: sum(unit.count(label) for unit in paired) for label in "12345"}

    def difference(one: str, other: str) -> float:
        low, high = sorted((one, other))
        between = sum(counts[label] for label in "12345" if low <= label <= high)
        return (between - (counts[low] + counts[high]) / 2) ** 2

    total = sum(counts.values())
    observed = sum(
        difference(a, b) / (len(unit) - 1)
        for unit in paired
        for i, a in enumerate(unit)
        for j, b in enumerate(unit)
        if i != j
    )
    by_chance = sum(counts[a] * counts[b] * difference(a, b) for a in counts for b in counts) / (total - 1)
    assert point(units, list("12345"), MeasurementLevel.ORDINAL) == pytest.approx(1 - observed / by_chance)


def test_equal_annotators_agree_wholly_and_alpha_is_undefined_without_anything_to_tell_apart() -> None:
    assert alpha([["a", "a"], ["b", "b"], ["a", "a"]], ["a", "b"]).value == 1.0
    assert alpha([["a", "a"], ["a", "a"]], ["a"]).value is None
    assert alpha([["a"], ["b"]], ["a", "b"]).value is None
    assert alpha([], []).value is None
    one = alpha([["a", "b"]], ["a", "b"])
    assert (one.value, one.low) == (0.0, None)


def test_the_interval_holds_the_true_alpha_about_as_often_as_it_says() -> None:
    import random

    draw = random.Random(3)

    def sample(count: int) -> list[list[str]]:
        truths = [draw.choice("ab") for _ in range(count)]
        return [[t if draw.random() < 0.8 else draw.choice("ab") for _ in range(3)] for t in truths]

    truth = point(sample(20_000), ["a", "b"])
    assert truth == pytest.approx(0.64, abs=0.01)  # 0.8 squared
    hits = 0
    for seed in range(40):
        found = alpha(sample(60), ["a", "b"], seed=seed)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.64 <= found.high
    assert hits >= 34  # binomial: 38 of 40 are expected, 33 and fewer have a probability of 0.003


def test_alpha_does_not_depend_on_the_scale_of_numbers() -> None:
    small = [["1", "2"], ["3", "3"], ["2", "1"]]
    large = [[f"{label}e300" for label in unit] for unit in small]
    found = point(large, ["1e300", "2e300", "3e300"], MeasurementLevel.INTERVAL)
    assert found == pytest.approx(point(small, ["1", "2", "3"], MeasurementLevel.INTERVAL))


@pytest.mark.parametrize(
    ("labels", "rule", "expected"),
    [
        ("aab", ConsensusRule.MAJORITY, "a"),
        ("aabc", ConsensusRule.MAJORITY, None),
        ("aabc", ConsensusRule.PLURALITY, "a"),
        ("aabb", ConsensusRule.PLURALITY, None),
        ("aaa", ConsensusRule.UNANIMOUS, "a"),
        ("aab", ConsensusRule.UNANIMOUS, None),
        ("abc", ConsensusRule.MEDIAN, "b"),
        ("aabc", ConsensusRule.MEDIAN, None),
        ("abbc", ConsensusRule.MEDIAN, "b"),
        ("a", ConsensusRule.MAJORITY, None),
    ],
)
def test_each_rule_decides_or_leaves_the_item_disputed(
    labels: str, rule: ConsensusRule, expected: str | None
) -> None:
    given = {str(place): label for place, label in enumerate(labels)}
    found = decide(given, rule, 2, ["a", "b", "c"])
    assert found.label == expected
    assert bool(found.why) is (expected is None)


def test_long_rows_become_items_with_a_consensus_and_what_is_disputed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(capsys, write(tmp_path / "long.jsonl", *LONG))
    assert (found["items"], found["annotations"], found["compared"], found["decided"]) == (3, 6, 2, 2)
    assert found["consensus"] == {"cat": 1, "dog": 1}
    assert found["disputed"] == [{"item": "3", "row": 6, "why": "1 of 2 labels", "labels": {"ben": "dog"}}]
    ann, ben, cleo = found["annotators"]
    assert [one["name"] for one in (ann, ben, cleo)] == ["ann", "ben", "cleo"]
    assert (ann["labels"], ann["decided"], ann["agreed"], ann["share"]) == (2, 2, 1, 0.5)
    assert (ben["share"], cleo["share"]) == (1.0, 1.0)
    assert found["confused"] == [{"labels": ["cat", "dog"], "pairs": 2}]
    # By hand: cat 3, dog 2 of 5; observed (2·2/2)/5 = 0.4, by chance 2·3·2/(5·4) = 0.6.
    assert found["alpha"] == pytest.approx(1 - 0.4 / 0.6)


FORMS: dict[str, list[Any]] = {
    "by annotator": [
        {"id": 7, "text": "t", "labels": {"ann": "x", "ben": "y"}},
        {"id": 8, "labels": {"ann": "x", "ben": None}},
    ],
    "a list": [{"id": 7, "text": "t", "labels": ["x", "y"]}, {"id": 8, "labels": ["x", ""]}],
    "annotations": [
        {"text": "t", "annotations": [{"annotator": 1, "label": "x"}, {"annotator": 2, "label": "y"}]},
        {"text": "u", "annotations": [{"annotator": 1, "label": " x "}]},
    ],
    "long by text": [
        {"text": "t", "annotator": "ann", "label": "x"},
        {"text": "u", "annotator": "ann", "label": "x"},
        {"text": "t", "annotator": "ben", "label": "y"},
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_items(tmp_path: Path, form: str) -> None:
    items = read_annotations(write(tmp_path / "rows.jsonl", *FORMS[form]))
    assert [sorted(item.labels.values()) for item in items] == [["x", "y"], ["x"]]
    assert items[0].content == {"text": "t"}


def test_columns_and_annotators_may_have_any_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"task": {"id": 1}, "who": "ann", "rating": 3, "frage": "f"})
    columns = AnnotationColumns(parse_keys(["item=task.id,annotator=who", "label=rating,prompt=frage"]))
    (item,) = read_annotations(path, columns)
    assert (item.id, item.labels, item.content) == ("1", {"ann": "3"}, {"prompt": "f"})
    path = write(tmp_path / "b.jsonl", {"text": "t", "anna": True, "ben": 1.0, "note": "no label"})
    (item,) = read_annotations(path, AnnotationColumns(annotators=["anna", "ben"]))
    assert item.labels == {"anna": "true", "ben": "1"}


def test_a_table_with_a_column_for_each_annotator_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("frage,anna,ben,cleo\nWhere?,here,here,\nWhen?,now,later,now\nWho?,me,you,\n")
    out = tmp_path / "out.jsonl"
    found = report(capsys, path, "--annotators", "anna,ben,cleo", "--columns", "prompt=frage", "--out", out)
    assert (found["annotations"], found["consensus"]) == (7, {"here": 1, "now": 1})
    assert [json.loads(line)["prompt"] for line in out.read_text().splitlines()] == ["Where?", "When?"]


def test_the_consensus_is_rows_that_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = {"ann": "yes", "ben": "yes"}
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    rated = {"ann": True, "ben": True}
    kinds: dict[str, list[dict[str, Any]]] = {
        "prompt": [{"id": 1, "prompt": "p", "context": "c", "labels": both}],
        "turns as a prompt": [{"id": 1, "prompt": turns, "labels": both}],
        "text": [{"id": 1, "text": "What does this text say?", "labels": both}],
        "messages": [{"id": 1, "messages": turns, "labels": both}],
        "rating": [{"id": 1, "prompt": "p", "completion": "c", "labels": rated}],
    }
    for name, rows in kinds.items():
        out = tmp_path / f"{name}.jsonl"
        report(capsys, write(tmp_path / "in.jsonl", *rows), "--out", out)
        assert wardrobe(["data", "check", str(out), "--json"]) == 0, name
        checked = json.loads(capsys.readouterr().out)
        assert (checked["rows"], checked["unreadable"]) == (1, 0), name
    rating = json.loads((tmp_path / "rating.jsonl").read_text())
    assert rating == {"id": "1", "prompt": "p", "completion": "c", "label": True}
    text = json.loads((tmp_path / "text.jsonl").read_text())
    assert text == {"id": "1", "prompt": "What does this text say?", "completion": "yes"}


def test_what_is_disputed_can_be_settled_and_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": "a", "prompt": "half \udc80", "labels": {"ann": "x", "ben": "y"}}]
    left = tmp_path / "new" / "disputed.jsonl"
    report(capsys, write(tmp_path / "in.jsonl", *rows), "--disputed", left)
    row = json.loads(left.read_text())
    assert row == rows[0]
    row["labels"]["cleo"] = "y"
    settled = report(capsys, write(tmp_path / "again.jsonl", row))
    assert (settled["consensus"], settled["disputed"]) == ({"y": 1}, [])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([7], "row 1: is no JSON object"),
        ([{"id": 1, "labels": ["x"]}, {"id": 2}], "row 2: has no `annotator` with `label`"),
        ([{"id": 1, "labels": "x"}], "row 1: labels is 'x', not a list"),
        ([{"id": 1, "labels": {"ann": ["x", "y"]}}], "row 1: a label is a list"),
        ([{"id": 1, "labels": {"ann": {"x": 1}}}], "row 1: a label is an object"),
        ([{"id": 1, "labels": {" ": "x"}}], "row 1: annotator is ' ', not a name"),
        ([{"id": {}, "labels": ["x"]}], "row 1: item is an object"),
        ([{"id": True, "labels": ["x"]}], "row 1: item is true or false"),
        ([LONG[0], {"id": 1, "annotations": [{"label": "x"}]}], "row 2: annotations[0] has no `annotator`"),
        ([{"annotator": "ann", "label": "x"}], "row 1: does not say what is labelled"),
        ([{"id": 1, "annotations": {"ann": "x"}}], "row 1: annotations is an object"),
        ([{"item": 1, "annotator": None, "label": "x"}], "row 1: annotator is null"),
        ([LONG[0], LONG[1], LONG[0]], "row 3: is the second label of 'ann' for '1' (the first: row 1)"),
        ([LONG[0], {**LONG[1], "prompt": "Other?"}], "row 2: gives '1' another prompt than row 1"),
        ([{"id": 1, "labels": {"ann": None}}], "holds no label"),
        ([], "holds no label"),
    ],
)
def test_a_row_that_is_no_annotation_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[Any], words: str
) -> None:
    assert words in complaint(capsys, write(tmp_path / "rows.jsonl", *rows))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"id": 1, "labels": {"a": "x", "a": "y"}}',
        '{"id": 1, "labels": ["x"]}\n{"torn',
        '{"id": 1, "labels": ' + "[" * 100_000,
    ],
)
def test_hostile_bytes_are_an_error_with_their_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert "row" in complaint(capsys, path)


def test_mistakes_in_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", {"id": 1, "labels": ["low", "high"]})
    assert "the label 'low' is not a number" in complaint(capsys, path, "--level", "ordinal")
    assert "'high' is not in the order" in complaint(capsys, path, "--level", "ordinal", "--order", "low,mid")
    assert "twice" in complaint(capsys, path, "--order", "low,high,low")
    assert "is not a number" in complaint(capsys, path, "--level", "interval", "--order", "low,high")
    assert "did you mean label?" in complaint(capsys, path, "--columns", "lable=x")
    assert "maps nothing" in complaint(capsys, path, "--columns", "label")
    assert "has no column 'rating'" in complaint(capsys, path, "--columns", "label=rating")
    assert "has no column 'anna'; there are id, labels" in complaint(capsys, path, "--annotators", "anna")
    assert "exists" in complaint(capsys, path, "--out", path)
    assert path.read_text().startswith("{")
    found = report(capsys, path, "--level", "ordinal", "--order", "low,high")
    assert found["alpha"] == 0.0


def test_the_terminal_says_what_alpha_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = [{"id": n, "labels": {"ann": str(n % 2), "ben": str(n % 2)}} for n in range(20)]
    assert wardrobe(["data", "annotations", str(write(tmp_path / "a.jsonl", *same))]) == 0
    said = capsys.readouterr().out
    assert "1.000 (1.000 to 1.000), nominal: reliable" in said
    assert "20 by majority; 0 disputed" in said
    mixed = [{"id": f"\x1b[31m{n}", "labels": [str(n % 2), str(n % 3)]} for n in range(40)]
    assert wardrobe(["data", "annotations", str(write(tmp_path / "b.jsonl", *mixed))]) == 0
    told = capsys.readouterr()
    assert "not reliable" in told.out
    assert "\x1b" not in told.out
    assert "more are disputed" in told.err


def test_labels_are_ordered_by_number_or_as_given() -> None:
    labels = {"10": 1, "9": 1, "-1": 1}
    assert labels_in_order(labels, MeasurementLevel.ORDINAL, []) == ["-1", "9", "10"]
    assert labels_in_order(labels, MeasurementLevel.NOMINAL, []) == ["-1", "10", "9"]
    assert labels_in_order({"b": 1}, MeasurementLevel.ORDINAL, ["b", "a"]) == ["b", "a"]
    with pytest.raises(ValueError, match="is not a number"):
        labels_in_order({"nan": 1}, MeasurementLevel.INTERVAL, [])


def test_a_cell_without_a_number_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "labels": {"ann": NaN, "ben": 2}}\n')
    (item,) = read_annotations(path)
    assert item.labels == {"ben": "2"}
    assert not math.isnan(float(item.labels["ben"]))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_annotations(tmp_path / "none.jsonl")
