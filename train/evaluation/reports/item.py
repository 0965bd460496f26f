"""One item with the arms' answers side by side, as markup for the pages of an evaluation and of a gate."""

from __future__ import annotations

import json
from collections.abc import Sequence

from markupsafe import Markup

from registry.report.parts import block, html, joined
from train.evaluation.grading.grades import Grade
from train.evaluation.results import EvaluationResult
from train.evaluation.runner import ArmResult

_FOUND = 120
_LONGEST = 2_000
_KEPT = 500  # graders keep so many characters of what they read


def item_of(evaluation: EvaluationResult, index: int, arms: Sequence[ArmResult], remark: str = "") -> Markup:
    """Return question, expected answers, and what each of `arms` said and how that was judged."""
    item, question = evaluation.suite.items[index], evaluation.suite.questions[index]
    asked = "\n\n".join(f"{message.role}: {message.said}" for message in question)
    tags = " ".join(f"{name}={value}" for name, value in sorted(item.tags.items()))
    told = " · ".join(part for part in (tags, remark) if part)
    wanted = [*item.answers, *(f"{call.name}({json.dumps(call.arguments)})" for call in item.calls or ())]
    expected = html("<p>expected: {}</p>", " | ".join(wanted)) if wanted else ""
    answers = joined(_answer(arm, index) for arm in arms)
    same = len({arm.samples[index].said for arm in arms}) == 1
    scores = [grades[index].score for arm in arms for grades in arm.grades.values()]
    fine = all(score in {None, 1.0} for score in scores)
    return html(
        '<div class="item{}{}"><h3>{} <span class="dim">{}</span></h3>{}{}<div class="arms">{}</div></div>',
        " same" if same else "", " fine" if fine else "", item.id, told,
        block(asked, _LONGEST), expected, answers,
    )  # fmt: skip


def _answer(arm: ArmResult, index: int) -> Markup:
    sample = arm.samples[index]
    lost = sample.error is not None
    said = html('<p class="error">no answer: {}</p>', sample.error) if lost else block(sample.said, _LONGEST)
    grades = joined(
        _grade(name, found[index], sample.said)
        for name, found in arm.grades.items()
        if found[index].score is not None
    )
    return html('<div><b>{}</b>{}<p class="grades">{}</p></div>', arm.label, said, grades)


def _grade(name: str, grade: Grade, answer: str) -> Markup:
    kind = {1.0: "right", 0.0: "wrong"}.get(grade.score if grade.score is not None else -1.0, "")
    found = "" if _is_whole(grade.found, answer) else grade.found
    read = f" {found[:_FOUND]}{'…' if len(found) > _FOUND else ''}" if found else ""
    return html('<span><b class="{}">{} {}</b>{}</span> ', kind, name, f"{grade.score:.3g}", read)


def _is_whole(found: str, answer: str) -> bool:
    """Tell whether a grader read the whole answer: it stands above already."""
    read, said = (_letters(text) for text in (found, answer))
    return read == said or (len(found) >= _KEPT and said.startswith(read))


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())
