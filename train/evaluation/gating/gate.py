"""The gate: does a version reach its goal, and is nothing else worse? Pure.

Owns the checks and how they make one verdict. Rules: `pass` needs every check to pass, each at level alpha
(so a version that misses any one of them passes with a probability of at most alpha, whatever the number
of checks); `fail` needs one check that is shown to be missed, at alpha divided by the number of checks;
everything else is `cannot_tell`, with the number of items still needed. Two runs of the candidate itself
(the A/A replicate) show the noise floor: where they differ beyond chance, nothing is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry.errors import UsageError
from registry.validation.requirements import GateVerdict
from train.evaluation.formats.specs import LOWER_IS_BETTER, Judge, Spec
from train.evaluation.gating.goal import Goal, GoalGuard
from train.evaluation.grading.grades import Grade
from train.evaluation.results import EvaluationResult
from train.evaluation.runner import ArmResult
from train.evaluation.statistics.comparison import PairedComparison, compare, items_needed
from train.evaluation.statistics.figures import ALL, slices

CANDIDATE, REPLICATE, BASE, REPLACED = "candidate", "candidate again", "base", "replaced"
_NOISE_ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One question to the data and its answer; `needed` is the number of items still missing.

    `kind` is `gain`, `guard` or `noise`; `against` the arm that was compared with.
    """

    kind: str
    suite: str
    metric: str
    slice: str
    against: str
    verdict: GateVerdict
    needed: int
    sentence: str
    comparison: PairedComparison | None


@dataclass(frozen=True, slots=True)
class GateResult:
    """The verdict of a gate with everything it stands on."""

    verdict: GateVerdict
    needed: int
    sentence: str
    checks: tuple[GateCheck, ...]


def hold(goal: Goal, evaluations: Mapping[str, EvaluationResult]) -> GateResult:
    """Judge a candidate; `evaluations` are by the goal's and guards' `suite`, with the arms named above.

    Raises: UsageError: a metric that the suite has not, or a direction that contradicts it.
    """
    task = evaluations[goal.suite]
    spec = _metric(task, goal.metric)
    _check_direction(goal, spec)
    asked = {goal.suite: _Asked(spec, goal.direction == "lower", goal.seed)}
    guarded = [_asked_of(goal, guard, evaluations[guard.suite], asked[goal.suite]) for guard in goal.guards]
    for guard, figure in zip(goal.guards, guarded, strict=True):
        asked.setdefault(guard.suite, figure)
    drafts = [*_noise(asked, evaluations), *_gains(goal, asked[goal.suite], task)]
    for guard, figure in zip(goal.guards, guarded, strict=True):
        drafts += _guarded(guard, figure, evaluations[guard.suite])
    alpha_fail = goal.alpha / max(1, sum(draft.kind != "noise" for draft in drafts))
    return _conclude(tuple(_decide(draft, goal.alpha, alpha_fail) for draft in drafts))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A figure and which way is better."""

    spec: Spec
    lower: bool
    seed: int


@dataclass(frozen=True, slots=True)
class _Draft:
    """A comparison before it is decided; `floor` is the gain that two runs of one model showed."""

    kind: str
    suite: str
    metric: str
    slice: str
    against: str
    found: PairedComparison | None
    floor: float = 0.0
    problem: str = ""


def _noise(asked: Mapping[str, _Asked], evaluations: Mapping[str, EvaluationResult]) -> Iterator[_Draft]:
    for name, evaluation in evaluations.items():
        found = _compare(evaluation, asked[name], REPLICATE, 0.0, _every(evaluation))
        label = asked[name].spec.label
        yield _Draft("noise", name, label, ALL, REPLICATE, found, problem=_missing(evaluation))


def _gains(goal: Goal, asked: _Asked, task: EvaluationResult) -> Iterator[_Draft]:
    replica = _compare(task, asked, REPLICATE, 0.0, _every(task))
    floor = abs(replica.gain) if replica is not None else 0.0
    wanted = {BASE: goal.minimum_gain, REPLACED: goal.gain_over_replaced}
    for against, margin in wanted.items():
        if _has(task, against):
            found = _compare(task, asked, against, margin, _every(task))
            yield _Draft("gain", goal.suite, asked.spec.label, ALL, against, found, floor, _missing(task))


def _guarded(guard: GoalGuard, asked: _Asked, evaluation: EvaluationResult) -> Iterator[_Draft]:
    problem = _missing(evaluation)
    for name, indices in slices(evaluation.suite):
        if name == ALL or guard.slices == "all" or name.partition("=")[0] in guard.slices:
            for against in (BASE, REPLACED):
                if _has(evaluation, against):
                    found = _compare(evaluation, asked, against, -guard.margin, indices)
                    label = asked.spec.label
                    yield _Draft("guard", guard.suite, label, name, against, found, 0.0, problem)


def _compare(
    evaluation: EvaluationResult, asked: _Asked, against: str, margin: float, indices: Sequence[int]
) -> PairedComparison | None:
    spec = asked.spec
    mine, other = (_grades(evaluation.arm(label), spec, indices) for label in (CANDIDATE, against))
    return compare(spec, mine, other, margin=margin, seed=asked.seed, lower=asked.lower)


def _grades(arm: ArmResult, spec: Spec, indices: Sequence[int]) -> list[Grade]:
    return [arm.grades[spec.label][index] for index in indices]


def _decide(draft: _Draft, alpha: float, alpha_fail: float) -> GateCheck:
    verdict, sentence = _verdict(draft, alpha, alpha_fail)
    needed = 0
    if verdict is GateVerdict.CANNOT_TELL and draft.found is not None and draft.kind != "noise":
        needed = items_needed(draft.found, alpha)
        sentence += f"; about {needed:,} more items would probably tell"
    return GateCheck(
        draft.kind,
        draft.suite,
        draft.metric,
        draft.slice,
        draft.against,
        verdict,
        needed,
        sentence,
        draft.found,
    )


def _verdict(draft: _Draft, alpha: float, alpha_fail: float) -> tuple[GateVerdict, str]:
    found = draft.found
    if draft.problem:
        return GateVerdict.CANNOT_TELL, draft.problem
    if found is None or found.missing:
        count = 0 if found is None else found.missing
        fact = f"{count} items were judged in one arm only" if count else "no item was judged in both arms"
        return GateVerdict.CANNOT_TELL, fact
    if draft.kind == "noise":
        return _noise_verdict(found)
    shown = f"gain {found.gain:+.4f} ({found.low:+.4f} to {found.high:+.4f}), asked for > {found.margin:+.4f}"
    if found.p_above <= alpha:
        if draft.kind == "gain" and found.margin >= 0 and found.gain <= draft.floor:
            return (
                GateVerdict.CANNOT_TELL,
                f"{shown}; two runs of one model differ by as much ({draft.floor:.4f})",
            )
        return GateVerdict.PASS, f"{shown}, p {found.p_above:.4f}"
    if found.p_below <= alpha_fail:
        return GateVerdict.FAIL, f"{shown}, missed for sure (p {found.p_below:.4f})"
    return GateVerdict.CANNOT_TELL, f"{shown}, p {found.p_above:.4f}"


def _noise_verdict(found: PairedComparison) -> tuple[GateVerdict, str]:
    p_value = min(1.0, 2 * min(found.p_above, found.p_below))
    floor = 1.645 * found.spread / found.items**0.5
    shown = (
        f"two runs of the candidate: {found.changed} of {found.items} items changed, gain {found.gain:+.4f}"
    )
    if p_value <= _NOISE_ALPHA:
        return (
            GateVerdict.CANNOT_TELL,
            f"{shown}, more than chance (p {p_value:.4f}): the server does not answer steadily",
        )
    return GateVerdict.PASS, f"{shown}; gains below {floor:.4f} are noise"


def _conclude(checks: tuple[GateCheck, ...]) -> GateResult:
    for verdict in (GateVerdict.FAIL, GateVerdict.CANNOT_TELL):
        stopping = [check for check in checks if check.verdict is verdict]
        if stopping:
            needed = max(check.needed for check in stopping) if verdict is GateVerdict.CANNOT_TELL else 0
            first = stopping[0]
            place = first.suite if first.slice == ALL else f"{first.suite} {first.slice}"
            more = f" (and {len(stopping) - 1} more)" if len(stopping) > 1 else ""
            against = f" against {first.against}" if first.kind != "noise" else ""
            return GateResult(
                verdict, needed, f"{place}, {first.metric}{against}: {first.sentence}{more}", checks
            )
    return GateResult(GateVerdict.PASS, 0, f"all {len(checks)} checks passed", checks)


def _metric(evaluation: EvaluationResult, name: str | None) -> Spec:
    suite = evaluation.suite
    spec = suite.graders[0] if name is None else suite.grader(name)
    if isinstance(spec, Judge) and spec.versus == "against":
        fact = f"{spec.label} compares two models, so it is not a figure of one"
        raise UsageError(f"suite {suite.name}", fact, "use a judge with versus: score or expected")
    return spec


def _asked_of(goal: Goal, guard: GoalGuard, evaluation: EvaluationResult, task: _Asked) -> _Asked:
    spec = _metric(evaluation, guard.metric)
    same = guard.suite == goal.suite and spec.label == task.spec.label
    return task if same else _Asked(spec, spec.type in LOWER_IS_BETTER, goal.seed)


def _check_direction(goal: Goal, spec: Spec) -> None:
    if spec.type in LOWER_IS_BETTER and goal.direction != "lower":
        raise UsageError("goal.direction", f"is higher, and {spec.label} is better when lower", "write lower")


def _missing(evaluation: EvaluationResult) -> str:
    failed = [f"{arm.label} {arm.errors}" for arm in evaluation.arms if arm.errors]
    return f"questions without an answer: {', '.join(failed)}" if failed else ""


def _every(evaluation: EvaluationResult) -> list[int]:
    return list(range(len(evaluation.suite.items)))


def _has(evaluation: EvaluationResult, label: str) -> bool:
    return any(arm.label == label for arm in evaluation.arms)
