"""One item with the arms' answers side by side, as markup for the pages of an evaluation and of a gate."""

from __future__ import annotations

import json
from collections.abc import Sequence

from train.evaluation.grading.grades import Grade
from train.evaluation.results import EvaluationResult
from train.evaluation.runner import ArmResult
from train.pages.parts import Html, block, safe

_FOUND = 120
_LONGEST = 2_000
_KEPT = 500  # graders keep so many characters of what they read


def item_of(evaluation: EvaluationResult, index: int, arms: Sequence[ArmResult], remark: str = "") -> Html:
    """Return question, expected answers, and what each of `arms` said and how that was judged."""
    item, question = evaluation.suite.items[index], evaluation.suite.questions[index]
    asked = "\n\n".join(f"{message.role}: {message.said}" for message in question)
    tags = " ".join(f"{name}={value}" for name, value in sorted(item.tags.items()))
    told = " · ".join(part for part in (tags, remark) if part)
    wanted = [*item.answers, *(f"{call.name}({json.dumps(call.arguments)})" for call in item.calls or ())]
    expected = f"<p>expected: {safe(' | '.join(wanted))}</p>" if wanted else ""
    answers = "".join(_answer(arm, index) for arm in arms)
    same = len({arm.samples[index].said for arm in arms}) == 1
    scores = [grades[index].score for arm in arms for grades in arm.grades.values()]
    fine = all(score in {None, 1.0} for score in scores)
    return Html(
        f'<div class="item{" same" if same else ""}{" fine" if fine else ""}">'
        f'<h3>{safe(item.id)} <span class="dim">{safe(told)}</span></h3>'
        f'{block(asked, _LONGEST)}{expected}<div class="arms">{answers}</div></div>'
    )


def _answer(arm: ArmResult, index: int) -> str:
    sample = arm.samples[index]
    said = (
        block(sample.said, _LONGEST)
        if sample.error is None
        else f'<p class="error">no answer: {safe(sample.error)}</p>'
    )
    grades = "".join(
        _grade(name, found[index], sample.said)
        for name, found in arm.grades.items()
        if found[index].score is not None
    )
    return f'<div><b>{safe(arm.label)}</b>{said}<p class="grades">{grades}</p></div>'


def _grade(name: str, grade: Grade, answer: str) -> str:
    kind = {1.0: "right", 0.0: "wrong"}.get(grade.score if grade.score is not None else -1.0, "")
    found = "" if _is_whole(grade.found, answer) else grade.found
    read = f" {safe(found[:_FOUND])}{'…' if len(found) > _FOUND else ''}" if found else ""
    return f'<span><b class="{kind}">{safe(name)} {grade.score:.3g}</b>{read}</span> '


def _is_whole(found: str, answer: str) -> bool:
    """Tell whether a grader read the whole answer: it stands above already."""
    read, said = (_letters(text) for text in (found, answer))
    return read == said or (len(found) >= _KEPT and said.startswith(read))


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())
