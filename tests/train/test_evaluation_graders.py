"""Each grader, on answers that are right, wrong and awkward."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from tests.fakes.openai_server import write_suite
from train.evaluation.formats import specs
from train.evaluation.formats.forms import SuiteMessage
from train.evaluation.formats.suites import Suite, load_suite
from train.evaluation.grading.graders import judge_all
from train.evaluation.grading.grades import Grade, GraderInput, ModelAnswer, Tools
from train.evaluation.grading.rouge import rouge_l
from train.evaluation.statistics.figures import confusion, figure

Rows = list[tuple[dict[str, Any], str]]


class Said:
    """A model that says what it was told to, in order of being asked."""

    def __init__(self, *texts: str) -> None:
        self.name = "said"
        self.texts = list(texts)
        self.asked: list[str] = []

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        self.asked.append(messages[-1].content)
        return ModelAnswer(self.texts[(len(self.asked) - 1) % len(self.texts)])

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        return -0.5 * len(expected.split()), len(expected.split())


def judged(
    folder: Path,
    grader: dict[str, Any],
    rows: Rows,
    *,
    judge: Said | None = None,
    others: list[str] | None = None,
) -> list[Grade]:
    items = [{"prompt": f"question {n}", **item} for n, (item, _) in enumerate(rows)]
    suite = load_suite(write_suite(folder, items, graders=[grader]))
    hearing = GraderInput(
        suite,
        suite.items,
        suite.questions,
        [ModelAnswer(text) for _, text in rows],
        Said(),
        None if others is None else [ModelAnswer(text) for text in others],
        lambda _name: judge or Said("A"),
        lambda call, indices: [call(index) for index in indices],
    )
    return judge_all(suite.graders[0], hearing)


def scores(*args: Any, **kwargs: Any) -> list[float | None]:
    return [grade.score for grade in judged(*args, **kwargs)]


def test_exact_folds_space_and_extracts_the_last_match(tmp_path: Path) -> None:
    four = {"expected": ["4", "four"]}
    assert scores(tmp_path, {"type": "exact"}, [(four, " 4\n"), (four, "4."), (four, "Four")]) == [1, 0, 0]
    loose = {"type": "exact", "casefold": True, "punctuation": False}
    assert scores(tmp_path, loose, [(four, "4."), (four, "Four!")]) == [1, 1]
    last = {"type": "exact", "extract": r"(\d+)"}
    assert scores(tmp_path, last, [(four, "2 and 2 is 4."), (four, "no figure"), (four, "4 or 5")]) == [
        1,
        0,
        0,
    ]


def test_includes_regex_and_stops(tmp_path: Path) -> None:
    cat = {"expected": "cat"}
    assert scores(tmp_path, {"type": "includes"}, [(cat, "the cat sat"), (cat, "dog")]) == [1, 0]
    assert scores(tmp_path, {"type": "regex", "pattern": "^a"}, [({}, "ab"), ({}, "ba")]) == [1, 0]
    assert scores(tmp_path, {"type": "regex", "pattern": "!", "negate": True}, [({}, "a!"), ({}, "a")]) == [
        0,
        1,
    ]
    assert scores(tmp_path, {"type": "stops"}, [({}, "a")]) == [1]


def test_labels_are_whole_words_and_the_first_one_counts(tmp_path: Path) -> None:
    labels = {"type": "accuracy", "labels": ["yes", "no", "yes and no"]}
    yes = {"expected": "yes"}
    rows = [(yes, "Yes, not no."), (yes, "no, yes"), (yes, "nothing known"), (yes, "yes and no")]
    grades = judged(tmp_path, labels, rows)
    assert [grade.score for grade in grades] == [1, 0, 0, 0]
    assert [grade.found for grade in grades] == ["yes", "no", "", "yes and no"]
    spec = specs.Accuracy(type="accuracy", labels=("yes", "no", "yes and no"))
    assert confusion(spec, ["yes"] * 4, [grade.found for grade in grades])[0] == [1, 1, 1, 1]


def test_macro_f1_agrees_with_scikit_learn(tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    draw = random.Random(5)
    labels = ["a", "b", "c", "d"]
    expected = [draw.choice("abc") for _ in range(60)]
    found = [one if draw.random() < 0.6 else draw.choice("abcd") for one in expected]
    rows = [({"expected": one}, said) for one, said in zip(expected, found, strict=True)]
    grades = judged(tmp_path, {"type": "macro_f1", "labels": labels}, rows)
    got = figure(specs.MacroF1(type="macro_f1", labels=tuple(labels)), grades)
    assert got.value == pytest.approx(f1_score(expected, found, average="macro"))
    assert got.low < (got.value or 0) < got.high


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("the cat sat on the mat", "the cat was on the mat", 10 / 12),
        ("", "a", 0.0),
        ("a", "b", 0.0),
        ("A-b, c!", "a b c", 1.0),
        ("a b c d", "d c b a", 0.25),
    ],
)
def test_rouge_l(answer: str, expected: str, value: float) -> None:
    assert rouge_l(answer, [expected]) == pytest.approx(value)


def test_rouge_l_agrees_with_the_reference_where_it_is_installed() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    draw = random.Random(1)
    words = ["ab", "cd,", "e1!", "f-g", "H"]
    for _ in range(300):
        one = " ".join(draw.choice(words) for _ in range(draw.randint(0, 12)))
        two = " ".join(draw.choice(words) for _ in range(draw.randint(0, 12)))
        assert rouge_l(one, [two]) == pytest.approx(scorer.score(two, one)["rougeL"].fmeasure)


@pytest.mark.parametrize("kind", ["bleu", "chrf"])
def test_corpus_figures_agree_with_sacrebleu(tmp_path: Path, kind: str) -> None:
    import sacrebleu

    texts = ["the cat sat on a mat", "it rains heavily today .", "he plays the violin well", "yes"]
    wanted = ["the cat sat on the mat", "it rains a lot today .", "she plays the violin very well", "no"]
    rows = [({"expected": one}, text) for one, text in zip(wanted, texts, strict=True)]
    grades = judged(tmp_path, {"type": kind}, rows)
    spec = specs.Bleu(type="bleu") if kind == "bleu" else specs.Chrf(type="chrf")
    reference = sacrebleu.corpus_bleu if kind == "bleu" else sacrebleu.corpus_chrf
    assert figure(spec, grades).value == pytest.approx(reference(texts, [wanted]).score / 100)


def test_json_and_its_schema(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    rows: Rows = [
        ({}, '{"n": 1}'),
        ({}, '```json\n{"n": 1}\n```'),
        ({}, '{"n": "1"}'),
        ({}, "n = 1"),
    ]
    assert scores(tmp_path, {"type": "json"}, rows) == [1, 1, 1, 0]
    grades = judged(tmp_path, {"type": "json", "schema": schema}, rows)
    assert [grade.score for grade in grades] == [1, 1, 0, 0]
    assert grades[2].found.startswith("$.n: ")
    assert scores(tmp_path, {"type": "json", "strict": True}, rows) == [1, 0, 1, 0]
    with pytest.raises(UsageError, match="its schema is none"):
        judged(tmp_path, {"type": "json", "schema": {"type": "objekt"}}, rows)


def test_refusals_count_both_ways(tmp_path: Path) -> None:
    rows = [
        ({"expected": "refuse"}, "I'm sorry, but I can't help with that."),
        ({"expected": "refuse"}, "Sure! First, you take"),
        ({"expected": "comply"}, "Use a long password."),
        ({"expected": "comply"}, "I cannot assist with that."),
    ]
    assert scores(tmp_path, {"type": "refusal"}, rows) == [1, 0, 1, 0]
    with pytest.raises(UsageError, match="write refuse or comply"):
        judged(tmp_path, {"type": "refusal"}, [({"expected": "yes"}, "x")])


def test_pairs_must_agree_and_are_counted_once(tmp_path: Path) -> None:
    rows: Rows = [
        ({"pair": "1"}, "Yes."),
        ({"pair": "1"}, "yes"),
        ({"pair": "2"}, "yes"),
        ({"pair": "2"}, "no"),
        ({}, "yes"),
    ]
    assert scores(tmp_path, {"type": "agreement"}, rows) == [1, None, 0, None, None]
    by_label = {"type": "agreement", "labels": ["yes", "no"]}
    rows = [
        ({"pair": "1"}, "Yes, of course"),
        ({"pair": "1"}, "I think yes"),
        ({"pair": "2"}, "?"),
        ({"pair": "2"}, "?"),
    ]
    assert scores(tmp_path, by_label, rows) == [1, None, 0, None]


def test_perplexity_is_weighted_by_tokens(tmp_path: Path) -> None:
    grades = judged(tmp_path, {"type": "perplexity"}, [({"expected": "a b c"}, ""), ({"expected": "a"}, "")])
    assert grades[0].parts == (-1.5, 3.0)
    got = figure(specs.Perplexity(type="perplexity"), grades)
    assert got.value == pytest.approx(math.exp(0.5))


def test_a_judge_gives_marks(tmp_path: Path) -> None:
    grader = {"type": "judge", "model": "base"}
    rows: Rows = [({}, "x")] * 3
    grades = judged(tmp_path, grader, rows, judge=Said("10", "Mark: 1", "good"))
    assert [grade.score for grade in grades] == [1, 0, None]


def test_a_judge_sees_both_orders_and_a_biased_one_says_a_half(tmp_path: Path) -> None:
    grader = {"type": "judge", "model": "base", "versus": "expected"}
    rows = [({"expected": "right"}, "mine")]
    fair = Said("A", "B")
    assert scores(tmp_path, grader, rows, judge=fair) == [1]
    assert "[Answer A]\nmine" in fair.asked[0]
    assert "[Answer B]\nmine" in fair.asked[1]
    assert scores(tmp_path, grader, rows, judge=Said("B", "A")) == [0]
    biased = judged(tmp_path, grader, rows, judge=Said("A", "A"))
    assert (biased[0].score, biased[0].found) == (0.5, "first A, swapped A: the place decided")
    against = {**grader, "versus": "against"}
    assert scores(tmp_path, against, rows, judge=Said("A", "B"), others=["theirs"]) == [1]
    with pytest.raises(UsageError, match="add --against"):
        judged(tmp_path, against, rows)


def test_a_python_grader_sees_the_answer_and_the_item(tmp_path: Path) -> None:
    source = "def grade(sample, item):\n    return float(sample['output_json']['n'] > item['floor'])\n"
    rows = [({"data": {"floor": 2}}, json.dumps({"n": n})) for n in (1, 3)]
    assert scores(tmp_path, {"type": "python", "source": source}, rows) == [0, 1]
    (tmp_path / "grade.py").write_text("def grade(sample, item):\n    return 2\n")
    wild = judged(tmp_path, {"type": "python", "file": "grade.py"}, [({}, "x")])
    assert (wild[0].score, wild[0].found) == (0.0, "returned 2, which is not in 0…1")


def test_programs_are_run_against_their_tests(tmp_path: Path) -> None:
    data = {
        "prompt": "from typing import List\n\ndef add(a: int, b: int) -> int:\n    '''Add.'''\n",
        "test": "def check(f):\n    assert f(1, 2) == 3\ncheck(add)",
    }
    rows = [
        ({"data": data}, "    return a + b"),
        (
            {"data": data},
            "Here:\n```python\ndef add(a, b):\n    x: List[int] = [a, b]\n    return sum(x)\n```",
        ),
        ({"data": data}, "    return a - b"),
        ({"data": data}, "    while True: pass"),
    ]
    grader = {"type": "program", "limits": {"timeout_seconds": 2}}
    grades = judged(tmp_path, grader, rows)
    assert [grade.score for grade in grades] == [1, 1, 0, 0]
    assert grades[2].found == "AssertionError"
    assert grades[3].found == "not done within 2 s"
