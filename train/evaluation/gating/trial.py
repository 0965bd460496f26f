"""Running a gate: every suite that the goal names, over the candidate twice, the base and what it replaces.

Owns the order of a gate and what is stored of it. Invariants: all arms of one suite are asked in one run of
this process; the attestations are written together, after everything is judged; the gate's names its goal,
its suites and its answers by hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from registry.api.documents import Document
from registry.errors import UsageError
from registry.names import BASE as BASE_MODEL
from registry.names import parse_version
from registry.records import Version
from registry.settings.file import read_text
from registry.store import Registry
from registry.validation.requirements import FORMATS, Requirement
from train.evaluation.formats.library import find_suite
from train.evaluation.formats.suites import Suite
from train.evaluation.gating.gate import BASE, CANDIDATE, REPLACED, REPLICATE, GateResult, hold
from train.evaluation.gating.goal import Goal
from train.evaluation.models.roster import Roster
from train.evaluation.results import EvaluationDocument, EvaluationResult, load, save
from train.evaluation.runner import Effort, EvaluatedArm, evaluate

EVALUATION = "evaluation"
GATE_FILE = "gate.json"


class GateCheckDocument(Document):
    """One check of a gate; `gain`, `low` and `high` are null where nothing could be compared."""

    kind: str
    suite: str
    metric: str
    slice: str
    against: str
    verdict: str
    needed: int
    sentence: str
    items: int
    mine: float | None
    other: float | None
    gain: float | None
    low: float | None
    high: float | None
    margin: float | None
    p_above: float | None
    p_below: float | None
    test: str | None


class GateDocument(Document):
    """A gate: the body of the attestation `gate`."""

    format: str
    verdict: str
    sentence: str
    needed: int
    candidate: str
    digest: str | None
    replaces: int | None
    replaces_digest: str | None
    base: str
    base_fingerprint: str | None
    goal: dict[str, Any]
    goal_sha256: str
    suites: dict[str, str]
    items_sha256: dict[str, str]
    via: str
    checks: list[GateCheckDocument]


@dataclass(frozen=True, slots=True)
class GateTrial:
    """What a gate is held over: `candidate` and `replaced` are `NAME@N`."""

    goal: Goal
    candidate: str
    replaced: str | None


def suites_of(goal: Goal, folder: Path) -> dict[str, Suite]:
    """Return every suite of a goal once, by the name the goal gives it.

    Raises: UsageError.
    """
    names = dict.fromkeys([goal.suite, *(guard.suite for guard in goal.guards)])
    found = {name: find_suite(name, folder) for name in names}
    called = [suite.name for suite in found.values()]
    for name in called:
        if called.count(name) > 1:
            raise UsageError("goal", f"names two suites that are both called {name}", "rename one of them")
    return found


def run_trial(
    trial: GateTrial, suites: dict[str, Suite], roster: Roster, effort: Effort
) -> tuple[GateResult, dict[str, EvaluationResult]]:
    """Ask every arm every suite and judge the candidate.

    Raises: WardrobeError: what an arm or a grader needs is missing.
    """
    arms = _arms(trial, roster)
    evaluations = {
        name: EvaluationResult.finished(suite, evaluate(suite, arms, roster.model, effort), roster.via)
        for name, suite in suites.items()
    }
    return hold(trial.goal, evaluations), evaluations


def questions(trial: GateTrial, suites: dict[str, Suite]) -> int:
    """Return how many answers a trial asks for."""
    arms = 3 + (trial.replaced is not None)
    return arms * sum(len(suite.items) for suite in suites.values())


def keep(evaluations: dict[str, EvaluationResult], folder: Path) -> dict[str, EvaluationDocument]:
    """Keep every evaluation in a folder of its own under `folder`; return their documents."""
    return {name: save(found, folder / found.suite.name) for name, found in evaluations.items()}


def load_gate(folder: Path) -> tuple[GateDocument, dict[str, EvaluationResult]] | None:
    """Return the gate that `folder` keeps, with its evaluations by the goal's names; None if it keeps none.

    Raises: UsageError: an answer or the gate's file was changed, or a suite's folder is gone.
    """
    path = folder / GATE_FILE
    if not path.is_file():
        return None
    try:
        document = GateDocument.model_validate_json(read_text(path))
    except ValidationError as error:
        raise UsageError(str(path), "holds no gate", "hold the gate again") from error
    found = [load(run.parent) for run in sorted(folder.glob("*/run.json"))]
    by_answers = {one.items_sha256: one for one in found}
    missing = [name for name, digest in document.items_sha256.items() if digest not in by_answers]
    if missing:
        raise UsageError(str(folder), f"lacks the answers of {', '.join(missing)}", "hold the gate again")
    return document, {name: by_answers[digest] for name, digest in document.items_sha256.items()}


def describe(
    trial: GateTrial,
    result: GateResult,
    kept: dict[str, EvaluationDocument],
    registry: Registry | None,
    via: str,
) -> GateDocument:
    """Return the gate's document."""
    version, replaced = _version(registry, trial.candidate), _version(registry, trial.replaced)
    return GateDocument(
        format=FORMATS[Requirement.GATE],
        verdict=result.verdict.value,
        sentence=result.sentence,
        needed=result.needed,
        candidate=trial.candidate,
        digest=version.digest if version else None,
        replaces=None if trial.replaced is None else parse_version(trial.replaced)[1],
        replaces_digest=replaced.digest if replaced else None,
        base=registry.base.name if registry else BASE_MODEL,
        base_fingerprint=registry.base.fingerprint if registry else None,
        goal=trial.goal.model_dump(mode="json"),
        goal_sha256=trial.goal.sha256,
        suites={name: found.suite_sha256 for name, found in kept.items()},
        items_sha256={name: found.items_sha256 for name, found in kept.items()},
        via=via,
        checks=[_check(check) for check in result.checks],
    )


def attest_evaluations(
    registry: Registry, reference: str, documents: Sequence[EvaluationDocument], label: str, who: str
) -> None:
    """Attest to a version what one arm of each evaluation found.

    Raises: NotFound: no such version.
    """
    adapter, number = parse_version(reference)
    for document in documents:
        arm = next(arm for arm in document.arms if arm.label == label)
        body = document.model_dump(mode="json", exclude={"arms"}) | {"arm": arm.model_dump(mode="json")}
        registry.attest(adapter, number, EVALUATION, body, who=who)


def attest_gate(registry: Registry, document: GateDocument, who: str) -> None:
    """Attest a gate to its candidate.

    Raises: NotFound: no such version.
    """
    adapter, number = parse_version(document.candidate)
    registry.attest(adapter, number, Requirement.GATE, document.model_dump(mode="json"), who=who)


def _arms(trial: GateTrial, roster: Roster) -> list[EvaluatedArm]:
    arms = [
        roster.arm(trial.candidate, label=CANDIDATE),
        roster.arm(BASE_MODEL, label=BASE),
        roster.arm(trial.candidate, label=REPLICATE),
    ]
    if trial.replaced is not None:
        arms.insert(2, roster.arm(trial.replaced, label=REPLACED))
    return arms


def _version(registry: Registry | None, reference: str | None) -> Version | None:
    if registry is None or reference is None:
        return None
    return registry.version(*parse_version(reference))


def _check(check: Any) -> GateCheckDocument:
    found = asdict(check.comparison) if check.comparison is not None else {}
    names = ("mine", "other", "gain", "low", "high", "margin", "p_above", "p_below", "test")
    return GateCheckDocument(
        kind=check.kind,
        suite=check.suite,
        metric=check.metric,
        slice=check.slice,
        against=check.against,
        verdict=check.verdict.value,
        needed=check.needed,
        sentence=check.sentence,
        items=found.get("items", 0),
        **{name: found.get(name) for name in names},
    )
