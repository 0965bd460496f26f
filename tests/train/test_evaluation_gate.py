"""The gate's rules: three verdicts, guards, noise, and the level of a pass over all checks together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from registry.errors import UsageError
from train.evaluation import GateVerdict
from train.evaluation.formats.forms import SuiteFile, SuiteItem
from train.evaluation.formats.specs import Exact, Perplexity, Spec
from train.evaluation.formats.suites import build_suite
from train.evaluation.gating.gate import BASE, CANDIDATE, REPLACED, REPLICATE, GateResult, hold
from train.evaluation.gating.goal import Goal, GoalGuard
from train.evaluation.grading.grades import Grade, ModelAnswer
from train.evaluation.results import EvaluationResult
from train.evaluation.runner import ArmResult

EXACT = Exact(type="exact")


def evaluation(
    name: str,
    arms: dict[str, Sequence[float]],
    *,
    tags: Sequence[str] = (),
    spec: Spec = EXACT,
    errors: int = 0,
) -> EvaluationResult:
    """Make an evaluation whose arms got these scores; `tags` are the items' kinds."""
    count = len(next(iter(arms.values())))
    kinds = list(tags) or ["one"] * count
    items = [SuiteItem(prompt="x", expected="x", tags={"kind": kind}) for kind in kinds]
    suite = build_suite(name, SuiteFile(name=name, items=(), graders=(spec,), slices=("kind",)), items)
    good, bad = ModelAnswer("x"), ModelAnswer("", error="status 500")
    results = [
        ArmResult(
            label,
            label,
            None,
            0,
            tuple(bad if n < errors and label == BASE else good for n in range(count)),
            {spec.label: tuple(Grade(float(score)) for score in scores)},
        )
        for label, scores in arms.items()
    ]
    return EvaluationResult(suite, tuple(results), "server", 0.0)


def arms(candidate: Sequence[float], base: Sequence[float], **others: Sequence[float]) -> dict[str, Any]:
    named = {CANDIDATE: candidate, BASE: base, REPLICATE: others.pop("again", candidate)}
    return {**named, **others}


def share(right: int, count: int = 200) -> list[float]:
    return [1.0] * right + [0.0] * (count - right)


def test_a_clear_gain_passes_and_a_shown_loss_fails() -> None:
    goal = Goal(suite="task", minimum_gain=0.05)
    good = hold(goal, {"task": evaluation("task", arms(share(160), share(100)))})
    assert (good.verdict, good.needed) == (GateVerdict.PASS, 0)
    assert [check.kind for check in good.checks] == ["noise", "gain"]
    bad = hold(goal, {"task": evaluation("task", arms(share(100), share(160)))})
    assert bad.verdict is GateVerdict.FAIL
    assert "missed for sure" in bad.sentence


def test_a_gain_that_is_smaller_than_asked_for_is_no_pass() -> None:
    found = hold(
        Goal(suite="task", minimum_gain=0.3), {"task": evaluation("task", arms(share(120), share(100)))}
    )
    assert found.verdict is GateVerdict.FAIL


def test_too_few_items_cannot_tell_and_say_how_many_are_missing() -> None:
    goal = Goal(suite="task")
    found = hold(goal, {"task": evaluation("task", arms(share(12, 20), share(10, 20)))})
    assert found.verdict is GateVerdict.CANNOT_TELL
    assert 20 < found.needed < 200
    assert "more items would probably tell" in found.sentence


def test_it_must_beat_the_version_it_replaces_too() -> None:
    goal = Goal(suite="task")
    better_than_base = arms(share(160), share(100), **{REPLACED: share(160)})
    found = hold(goal, {"task": evaluation("task", better_than_base)})
    assert found.verdict is GateVerdict.CANNOT_TELL
    assert f"against {REPLACED}" in found.sentence
    as_good = Goal(suite="task", minimum_gain_over_replaced=-0.05)
    assert hold(as_good, {"task": evaluation("task", better_than_base)}).verdict is GateVerdict.PASS


def test_a_guard_slice_that_got_worse_fails_the_gate_whatever_the_gain() -> None:
    kinds = ["a"] * 100 + ["b"] * 100
    kept = [1.0] * 200
    worse_in_b = [1.0] * 100 + [0.0] * 60 + [1.0] * 40
    goal = Goal(suite="task", guards=(GoalGuard(suite="skill", slices="all"),))
    task = evaluation("task", arms(share(180), share(90)))
    passed = hold(goal, {"task": task, "skill": evaluation("skill", arms(kept, kept), tags=kinds)})
    assert passed.verdict is GateVerdict.PASS
    assert {check.slice for check in passed.checks if check.kind == "guard"} == {"all", "kind=a", "kind=b"}
    failed = hold(goal, {"task": task, "skill": evaluation("skill", arms(worse_in_b, kept), tags=kinds)})
    assert failed.verdict is GateVerdict.FAIL
    verdicts = {check.slice: check.verdict for check in failed.checks if check.kind == "guard"}
    assert verdicts == {"all": GateVerdict.FAIL, "kind=a": GateVerdict.PASS, "kind=b": GateVerdict.FAIL}


def test_a_server_that_does_not_answer_steadily_tells_nothing() -> None:
    candidate, again = share(160), share(120)
    found = hold(Goal(suite="task"), {"task": evaluation("task", arms(candidate, share(60), again=again))})
    assert found.verdict is GateVerdict.CANNOT_TELL
    assert "does not answer steadily" in found.sentence


def test_a_gain_within_the_noise_floor_is_none() -> None:
    # 12 items better and none worse is significant; but a rerun of the same model moved by 12 as well,
    # six of them chance.
    base = share(100)
    candidate = share(112)
    again = [1.0] * 94 + [0.0] * 6 + [0.0] * 12 + [1.0] * 4 + [0.0] * 84
    found = hold(Goal(suite="task"), {"task": evaluation("task", arms(candidate, base, again=again))})
    assert found.verdict is GateVerdict.CANNOT_TELL


def test_questions_without_an_answer_are_no_evidence() -> None:
    found = hold(Goal(suite="task"), {"task": evaluation("task", arms(share(160), share(100)), errors=1)})
    assert found.verdict is GateVerdict.CANNOT_TELL
    assert "questions without an answer: base 1" in found.sentence


def test_a_goal_that_contradicts_its_metric_is_refused() -> None:
    found = evaluation("task", arms(share(1), share(1)), spec=Perplexity(type="perplexity"))
    with pytest.raises(UsageError, match="better when lower"):
        hold(Goal(suite="task"), {"task": found})
    with pytest.raises(UsageError, match="has no grader speed"):
        hold(Goal(suite="task", metric="speed"), {"task": evaluation("task", arms(share(1), share(1)))})


def simulate(goal: Goal, runs: int, gain: float, guard_loss: float, seed: int) -> list[GateResult]:
    draws = np.random.default_rng(seed)

    def outcomes(items: int, mine: float, other: float) -> dict[str, Any]:
        hard = draws.random(items)  # the same item is hard for both: paired
        noise = [np.where(draws.random(items) < 0.1, draws.random(items), hard) for _ in range(3)]
        rights = [(mine, noise[0]), (other, noise[1]), (mine, noise[2])]
        candidate, base, again = ((found < right).astype(float).tolist() for right, found in rights)
        return arms(candidate, base, again=again)

    return [
        hold(
            goal,
            {
                "task": evaluation("task", outcomes(100, 0.5 + gain, 0.5)),
                "skill": evaluation("skill", outcomes(100, 0.7 - guard_loss, 0.7)),
            },
        )
        for _ in range(runs)
    ]


@pytest.mark.parametrize(("gain", "loss"), [(0.1, 0.0), (0.4, 0.1)])
def test_a_version_that_misses_one_check_passes_at_most_as_often_as_alpha(gain: float, loss: float) -> None:
    # First on the edge of the gain, then on the edge of the guard; everything else is far from its edge.
    goal = Goal(suite="task", minimum_gain=0.1, alpha=0.1, guards=(GoalGuard(suite="skill", margin=0.1),))
    runs = 60
    passed = sum(found.verdict is GateVerdict.PASS for found in simulate(goal, runs, gain, loss, seed=21))
    assert passed / runs <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / runs)


def test_a_good_version_passes_and_is_rarely_failed() -> None:
    goal = Goal(suite="task", minimum_gain=0.02, guards=(GoalGuard(suite="skill", margin=0.15),))
    verdicts = [found.verdict for found in simulate(goal, 30, 0.25, 0.0, seed=22)]
    assert verdicts.count(GateVerdict.PASS) >= 22
    assert verdicts.count(GateVerdict.FAIL) == 0
