"""Is the new version not worse than the old model was? By the gate's own statistics, on recorded answers.

Owns which questions count (those that the old model answered) and what the verdict says. Invariants: both are
judged by the same graders on the same questions; an answer that was never recorded is never held against
anybody; without any, nothing is told.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from registry.errors import UsageError
from registry.storage import files
from registry.validation.requirements import GateVerdict
from train.evaluation.formats.suites import Suite, load_suite
from train.evaluation.gating.gate import CANDIDATE, REPLACED, REPLICATE, GateResult, hold
from train.evaluation.gating.goal import Goal
from train.evaluation.grading.grades import Model, ModelAnswer, Tools
from train.evaluation.journal import AnswerJournal
from train.evaluation.results import EvaluationResult, save
from train.evaluation.runner import Effort, EvaluatedArm, evaluate
from train.migrating.folder import MigratedJob
from train.migrating.recording import recorded

if TYPE_CHECKING:
    from pydantic import JsonValue

    from train.evaluation.formats.forms import SuiteMessage

_REPORT = "report.html"


class RecordedModel:
    """The old model: it answers what it was asked while it did."""

    def __init__(self, name: str, answers: Mapping[str, ModelAnswer]) -> None:
        self.name = name
        self._answers = answers

    @classmethod
    def of(cls, name: str, suite: Suite, answers: Mapping[str, ModelAnswer]) -> RecordedModel:
        """Return the model of what was recorded for a suite's items."""
        pairs = zip(suite.items, suite.questions, strict=True)
        return cls(name, {_key(question, item.tools): answers[item.id] for item, question in pairs})

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        """Return what was recorded."""
        del suite
        return self._answers[_key(messages, tools)]

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        """Raises: UsageError: nobody asked the old model that."""
        del messages, expected, suite
        raise UsageError(self.name, "was not asked for log-probabilities", "use another grader")


def judge(
    job: MigratedJob,
    old: str,
    candidate: Model,
    digest: str,
    margin: float,
    judges: Callable[[str], Model],
    answered: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, JsonValue]:
    """Hold a version against the old model's recorded answers; return the verdict and its figures.

    `judges` makes a model of the name of one that judges; `answered` is told how many answers there are, of
    how many. The answers stay in the job's folder, with a page.

    Raises: UsageError: a grader that cannot judge here; StorageFailed.
    """
    suite = _answered(job)
    if suite is None:
        return {
            "verdict": GateVerdict.CANNOT_TELL.value,
            "sentence": f"no answer of {old} is recorded, so nothing can be compared",
            "questions": 0,
        }
    files.remove_tree(job.gate)  # of a run that was killed before it had its verdict
    journal = AnswerJournal(job.gate)
    arms = [
        EvaluatedArm(CANDIDATE, candidate, digest=digest),
        EvaluatedArm(REPLICATE, candidate, digest=digest),
        EvaluatedArm(REPLACED, RecordedModel.of(old, suite, recorded(job))),
    ]
    done, of = itertools.count(1), len(arms) * len(suite.items)
    effort = Effort(1, lambda _count: answered(next(done), of), journal)
    results = evaluate(suite, arms, judges, effort)
    evaluation = EvaluationResult.finished(suite, results, "offline")
    goal = Goal(suite=suite.name, minimum_gain_over_replaced=-margin)
    found = hold(goal, {suite.name: evaluation})
    _keep(evaluation, job)
    journal.finish()
    return _told(found, suite, old, margin)


def _answered(job: MigratedJob) -> Suite | None:
    """Return the job's suite, of the questions alone that the old model answered; None without any."""
    answers = {name: one for name, one in recorded(job).items() if one.error is None}
    if not answers:
        return None
    suite = load_suite(job.suite)
    return suite.only(lambda item: item.id in answers)


def _keep(evaluation: EvaluationResult, job: MigratedJob) -> None:
    from registry.report.writing import write_page
    from train.evaluation.reports.evaluation import page

    document = save(evaluation, job.gate)
    write_page(job.gate / _REPORT, page(evaluation, document))


def _told(found: GateResult, suite: Suite, old: str, margin: float) -> dict[str, JsonValue]:
    check = next(one for one in found.checks if one.kind == "gain")
    told: dict[str, JsonValue] = {
        "verdict": found.verdict.value,
        "metric": check.metric,
        "margin": margin,
        "questions": len(suite.items),
        "suite_sha256": suite.sha256,
        "needed": found.needed,
    }
    figures = check.comparison
    if figures is None:
        return {**told, "sentence": found.sentence}
    told |= {
        "mine": figures.mine, "recorded": figures.other, "gain": figures.gain,
        "low": figures.low, "high": figures.high,
    }  # fmt: skip
    seen = (
        f"{check.metric} {figures.mine:.3f} against {figures.other:.3f} of {old}, on {figures.items} "
        f"questions (95 %: {figures.low:+.3f} to {figures.high:+.3f}, allowed {-margin:+g})"
    )
    return {**told, "sentence": f"{_WORDS[found.verdict]}: {seen}{_remedy(found, check.verdict)}"}


_WORDS = {
    GateVerdict.PASS: "not worse",
    GateVerdict.FAIL: "worse",
    GateVerdict.CANNOT_TELL: "cannot tell",
}


def _remedy(found: GateResult, gain: GateVerdict) -> str:
    if found.verdict is GateVerdict.FAIL:
        return "; a larger base, more epochs or more rows may reach it"
    if found.verdict is GateVerdict.PASS:
        return ""
    if gain is GateVerdict.PASS:
        return f"; {found.sentence}"
    return f"; about {found.needed:,} more questions would tell"


def _key(messages: Sequence[SuiteMessage], tools: Tools) -> str:
    return json.dumps([[one.written for one in messages], [dict(tool) for tool in tools]], sort_keys=True)
