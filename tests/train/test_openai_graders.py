"""OpenAI's graders: templates, metrics, formulas and rewards; and as a suite's grader."""

from __future__ import annotations

from typing import Any

import pytest

from registry.errors import UsageError
from registry.tuning.graders import parse_grader
from train.evaluation.grading.openai import formula
from train.evaluation.grading.openai.rewards import ALONE, JudgeReply, check, questions, reward, scaled
from train.evaluation.grading.openai.service import answer
from train.evaluation.grading.openai.similarity import similarity
from train.evaluation.grading.openai.templates import GradedSample, NoValue, fill

SAMPLE = GradedSample('{"city": "Paris", "n": [1, 2]}', {"answer": "Paris", "deep": {"a": [{"b": 3}]}})
SCORE: dict[str, Any] = {
    "type": "score_model", "name": "judge", "model": "base", "range": [1, 5],
    "input": [
        {"role": "developer", "content": "Be strict."},
        {"role": "user", "content": "{{sample.output_text}}"},
    ],
}  # fmt: skip
LABEL: dict[str, Any] = {
    "type": "label_model", "name": "label", "model": "base",
    "labels": ["good", "bad"], "passing_labels": ["good"],
    "input": [{"role": "user", "content": {"type": "input_text", "text": "{{item.answer}}?"}}],
}  # fmt: skip


def string_check(
    operation: str, text: str = "{{sample.output_json.city}}", reference: str = "{{item.answer}}"
) -> Any:
    grader = {
        "type": "string_check",
        "name": "same",
        "operation": operation,
        "input": text,
        "reference": reference,
    }
    return parse_grader(grader)


def python(source: str) -> Any:
    return parse_grader({"type": "python", "name": "code", "source": source})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ item.answer }}!", "Paris!"),
        ("{{item.deep.a[0].b}}", "3"),
        ("{{sample.output_json.n}}", "[1, 2]"),
        ("{{sample.output_text}}", SAMPLE.output_text),
        ("{{item.deep}} {x} {{", '{"a": [{"b": 3}]} {x} {{'),
    ],
)
def test_places_are_filled_with_texts_and_json(template: str, text: str) -> None:
    assert fill(template, SAMPLE) == text


def test_a_value_is_never_a_template_and_one_that_is_not_there_is_told() -> None:
    assert fill("{{item.a}}", GradedSample("", {"a": "{{item.b}}", "b": "secret"})) == "{{item.b}}"
    for place in ("item.b", "item.a.b", "item.a[0]"):
        with pytest.raises(NoValue, match="there is no"):
            fill("{{" + place + "}}", GradedSample("", {"a": "x"}))
    with pytest.raises(NoValue) as found:
        fill("{{sample.output_json.a}}", GradedSample("no JSON", {}))
    assert found.value.parsing


@pytest.mark.parametrize(
    ("operation", "reference", "value"),
    [
        ("eq", "Paris", 1), ("eq", "paris", 0), ("ne", "paris", 1), ("like", "ari", 1), ("like", "ARI", 0),
        ("ilike", "ARI", 1),
    ],
)  # fmt: skip
def test_strings_are_compared(operation: str, reference: str, value: float) -> None:
    assert reward(string_check(operation, reference=reference), SAMPLE, {}).value == value


@pytest.mark.parametrize(
    ("metric", "text", "reference", "value"),
    [
        ("fuzzy_match", "kitten", "sitting", 8 / 13),  # rapidfuzz 3: ratio 61.538
        ("fuzzy_match", "", "", 1.0),
        ("gleu", "the the the the the the the", "the cat is on the mat", 2 / 22),  # nltk 3.9: 0.0909
        ("rouge_1", "the cat sat", "the cat ran", 2 / 3),
        ("rouge_2", "the cat sat", "the cat ran", 1 / 2),
        ("rouge_5", "the cat sat", "the cat sat", 0.0),
        ("rouge_l", "a b c d", "a c d", 6 / 7),
        ("bleu", "the cat sat on the mat", "the cat sat on the mat", 1.0),
        ("meteor", "the cat sat on the mat", "the cat sat on the mat", 1 - 0.5 * (1 / 6) ** 3),
        ("meteor", "on the mat sat the cat", "the cat sat on the mat", 0.5),  # as the paper counts chunks
        ("meteor", "x", "y", 0.0),
    ],
)
def test_texts_are_as_alike_as_the_reference_implementations_say(
    metric: str, text: str, reference: str, value: float
) -> None:
    found = similarity(metric, text, reference)
    if metric == "meteor" and value == 0.5:
        assert 0.5 <= found < 1
    else:
        assert found == pytest.approx(value, abs=1e-3)


def test_cosine_and_endless_texts_are_refused() -> None:
    grader = {
        "type": "text_similarity",
        "name": "c",
        "input": "a",
        "reference": "b",
        "evaluation_metric": "cosine",
    }
    with pytest.raises(UsageError, match="embeddings"):
        check(parse_grader(grader))
    with pytest.raises(UsageError, match="characters"):
        similarity("fuzzy_match", "a" * 20_001, "b")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + 2 * b", 2.0),
        ("-(a - b) ** 2", -0.25),
        ("min(a, b) + max(a, b, 3)", 3.5),
        ("floor(1.7) + sqrt(4)", 3.0),
    ],
)
def test_a_formula_is_arithmetic(text: str, value: float) -> None:
    assert formula.calculate(text, {"a": 1.0, "b": 0.5}) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    ["", "a +", "c", "a / 0", "9 ** 9 ** 9 ** 9", "sqrt(-1)", "a.b", "__import__('os')", "[a]",
     "a if b else a", "True", "min()", "1e400", "a(1)", "+".join(["a"] * 300), "(" * 5000],
)  # fmt: skip
def test_what_is_no_arithmetic_has_no_value(text: str) -> None:
    with pytest.raises(formula.BadFormula):
        formula.calculate(text, {"a": 1.0, "b": 0.5})


def test_python_judges_and_its_faults_are_told() -> None:
    found = reward(
        python("def grade(sample, item):\n    return len(sample['output_text']) + 0.5"), SAMPLE, {}
    )
    assert (found.value, found.flag) == (len(SAMPLE.output_text) + 0.5, "")
    failed = reward(python("def grade(sample, item):\n    return 1 / 0"), SAMPLE, {})
    assert (failed.value, failed.flag) == (0.0, "python_grader_runtime_error")
    assert "division by zero" in failed.details
    for source in ("def grade(", "x = 1"):
        with pytest.raises(UsageError):
            check(python(source))


@pytest.mark.parametrize(
    ("grader", "reply", "value", "flag"),
    [
        (SCORE, JudgeReply("4", tokens=9), 4.0, ""),
        (SCORE, JudgeReply("Score: 2.5 of 5"), 2.5, ""),
        (SCORE, JudgeReply("6"), 0.0, "model_grader_parse_error"),
        (SCORE, JudgeReply("none"), 0.0, "model_grader_parse_error"),
        (SCORE, JudgeReply(error="busy"), 0.0, "model_grader_server_error"),
        (LABEL, JudgeReply("It is Good."), 1.0, ""),
        (LABEL, JudgeReply("bad"), 0.0, ""),
        (LABEL, JudgeReply("?"), 0.0, "model_grader_parse_error"),
    ],
)
def test_a_models_word_is_read(grader: dict[str, Any], reply: JudgeReply, value: float, flag: str) -> None:
    parsed = parse_grader(grader)
    (asked,) = questions(parsed, SAMPLE).values()
    assert asked.messages[0][0] in {"system", "user"}
    assert "alone" in asked.messages[-1][1]
    found = reward(parsed, SAMPLE, {ALONE: reply})
    assert (found.value, found.flag) == (value, flag)
    if grader is SCORE and not flag:
        assert scaled(parsed, found.value) == (value - 1) / 4


def test_a_multi_grader_joins_the_others() -> None:
    graders = {"same": string_check("eq").model_dump(), "judge": SCORE}
    multi = {"type": "multi", "name": "m", "graders": graders, "calculate_output": "same + judge / 5"}
    parsed = parse_grader(multi)
    check(parsed)
    assert list(questions(parsed, SAMPLE)) == ["judge"]
    found = reward(parsed, SAMPLE, {"judge": JudgeReply("5", tokens=3)})
    assert (found.value, dict(found.parts), found.tokens) == (2.0, {"same": 1.0, "judge": 5.0}, 3)
    failed = reward(parsed, SAMPLE, {})
    assert (failed.flag, failed.details) == ("model_grader_server_error", "judge: nobody asked")
    with pytest.raises(UsageError, match="no grader"):
        check(parse_grader({**multi, "calculate_output": "other"}))
    alone = parse_grader({**multi, "graders": string_check("eq").model_dump(), "calculate_output": "same"})
    assert reward(alone, SAMPLE, {}).value == 1.0


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"operation": "is"}, "operation"), ({"input": "{{secret}}"}, "input"), ({"name": ""}, "name"),
        ({"more": 1}, "more"), ({"type": "cosine"}, "grader"), ({"input": None}, "input"),
    ],
)  # fmt: skip
def test_a_grader_that_is_none_is_refused_by_its_field(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError, match=place):
        parse_grader({**string_check("eq").model_dump(), **changes})


def test_the_child_answers_a_task_or_says_why_not() -> None:
    task = {
        "grader": string_check("eq").model_dump(),
        "model_sample": SAMPLE.output_text,
        "item": dict(SAMPLE.item),
    }
    assert answer({**task, "ask": "reward", "replies": {}})["reward"]["value"] == 1.0
    assert answer({**task, "ask": "questions"}) == {"questions": {}}
    assert "refused" in answer({**task, "grader": {"type": "nothing"}, "ask": "questions"})
