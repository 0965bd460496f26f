"""Blind ratings: nobody can see who is who, and agreement is counted as the books do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.cli.main import run as wardrobe
from registry.errors import UsageError
from tests.fakes.openai_server import last, openai_server, write_suite
from train.evaluation.blind import read_ratings, write_blind
from train.evaluation.results import EvaluationResult, load
from train.evaluation.statistics.agreement import cohen_kappa, krippendorff_alpha

ITEMS = [{"prompt": f"{n}"} for n in range(20)]
GRADERS = [{"type": "stops"}]


@pytest.fixture
def evaluation(tmp_path: Path) -> EvaluationResult:
    suite = write_suite(tmp_path / "suite", ITEMS, graders=GRADERS)
    models = {
        "new@1": lambda chat: "same" if last(chat) == "7" else f"good {last(chat)}",
        "old@1": lambda chat: "same" if last(chat) == "7" else f"poor {last(chat)}",
    }
    with openai_server(models) as (url, _):
        options = ["--root", str(tmp_path / "none"), "--url", url, "eval", "run", str(suite)]
        arms = ["--model", "new@1", "--against", "old@1", "--out", str(tmp_path / "run")]
        assert wardrobe([*options, *arms]) == 0
    return load(tmp_path / "run")


def rate(source: Path, target: Path, *, wrong: int = 0) -> None:
    """Prefer the good answer, but for the first `wrong` items."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for index, row in enumerate(rows):
        good = "A" if row["a"].startswith("good") else "B"
        row["rating"] = good if index >= wrong else {"A": "B", "B": "A"}[good]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_file_names_nobody_and_leaves_equal_answers_out(
    tmp_path: Path, evaluation: EvaluationResult
) -> None:
    target = tmp_path / "blind.jsonl"
    assert write_blind(evaluation, "new@1", "old@1", target, seed=3) == 19
    text = target.read_text()
    assert "new@1" not in text
    assert "old@1" not in text
    first = [json.loads(line)["a"].split()[0] for line in text.splitlines()]
    assert 4 < first.count("good") < 15
    key = json.loads((tmp_path / "blind.key.json").read_text())
    assert sorted(key["a"]) == sorted(str(n) for n in range(1, 21) if n != 8)


def test_ratings_come_back_as_shares_and_agreement(
    tmp_path: Path, evaluation: EvaluationResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wardrobe(["eval", "blind", str(tmp_path / "run"), "--out", str(tmp_path / "b.jsonl")]) == 0
    rate(tmp_path / "b.jsonl", tmp_path / "r1.jsonl")
    rate(tmp_path / "b.jsonl", tmp_path / "r2.jsonl", wrong=3)
    raters = [str(tmp_path / "r1.jsonl"), str(tmp_path / "r2.jsonl")]
    capsys.readouterr()
    assert wardrobe(["eval", "agreement", str(tmp_path / "b.key.json"), *raters, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["wins"] == {"new@1": 35, "old@1": 3, "tie": 0, "both_bad": 0}
    assert found["share"] == pytest.approx(35 / 38)
    assert found["low"] < 35 / 38 < found["high"]
    # The first rater always preferred one arm, so chance agrees as often as they do.
    assert found["cohen_kappa"] == pytest.approx(0.0)
    assert wardrobe(["eval", "agreement", str(tmp_path / "b.key.json"), raters[0]]) == 0
    assert "new@1 preferred" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"item": "99"}, "rates '99', which the key does not know"),
        ({"rating": "C"}, "rating"),
        ({"ratng": "A"}, "did you mean rating?"),
    ],
)
def test_a_mistake_of_a_rater_is_named(
    tmp_path: Path, evaluation: EvaluationResult, row: dict[str, str], words: str
) -> None:
    write_blind(evaluation, "new@1", "old@1", tmp_path / "b.jsonl", seed=0)
    lines = (tmp_path / "b.jsonl").read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), **row})
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    with pytest.raises(UsageError) as error:
        read_ratings(tmp_path / "b.key.json", [tmp_path / "b.jsonl"])
    assert ".jsonl:3: " in str(error.value)
    assert words in str(error.value)


def test_cohens_kappa_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import cohen_kappa_score

    first = dict(zip("abcdefgh", "AABBAtBA", strict=True))
    second = dict(zip("abcdefgx", "ABBBAttA", strict=True))
    common = sorted(first.keys() & second.keys())
    expected = cohen_kappa_score([first[item] for item in common], [second[item] for item in common])
    assert cohen_kappa(first, second) == pytest.approx(expected)
    assert cohen_kappa({"a": "A"}, {"b": "A"}) is None


def test_krippendorffs_alpha_is_that_of_his_own_example() -> None:
    # Krippendorff (2011), section D: four observers, twelve units, missing ratings; nominal alpha 0.743.
    rows = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    raters = [{str(unit): mark for unit, mark in enumerate(row) if mark != "."} for row in rows]
    assert krippendorff_alpha(raters) == pytest.approx(0.743, abs=0.001)
    assert krippendorff_alpha([{"a": "A"}]) is None
    assert krippendorff_alpha([{"a": "A"}, {"a": "A"}]) == 1.0
