"""The gate of a job that names a goal: held over what it published, its verdict part of how the job ended.

The candidate is asked in this process, as no server may have it yet; so the gate says what was learnt, not
how it is served, and is attested as `offline`.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from registry.errors import NotFound
from registry.names import STABLE
from registry.storage import files
from registry.tuning.jobs import TuningJob
from registry.tuning.machine import JobEvent
from train.evaluation.gating.goal import Goal
from train.worker.outcome import TaskOutcome

if TYPE_CHECKING:
    from registry.store import Registry

ALWAYS = "always"
"""The value of `publish` that lets a job succeed whatever its gate says."""
EVALUATIONS = "evaluations"


def judge(job: TuningJob, registry: Registry, outcome: TaskOutcome) -> TaskOutcome:
    """Return the outcome with the verdict of the job's gate; one that did not pass is the job's failure.

    Without a goal, or without a version, nothing changes. With `publish: always` the job has succeeded all
    the same.
    """
    goal, number = job.request.extras.get("goal"), outcome.facts.get("version")
    if goal is None or not isinstance(number, int):
        return outcome
    gate = _hold(job, registry, Goal.model_validate(goal), number)
    facts = {**outcome.facts, "gate": gate}
    if gate["verdict"] == "pass" or job.request.extras.get("publish") == ALWAYS:
        return TaskOutcome(outcome.event, outcome.message, facts)
    message = f"The gate did not pass ({gate['verdict']}): {gate['sentence']}"
    error: dict[str, Any] = {"code": "gate_failed", "message": message, "param": "x_wardrobe.goal"}
    left = {key: value for key, value in facts.items() if key != "fine_tuned_model"}
    return TaskOutcome(JobEvent.FAILED, message, {**left, "error": error})


def _hold(job: TuningJob, registry: Registry, goal: Goal, number: int) -> dict[str, Any]:
    from train.evaluation.gating import trial
    from train.evaluation.models.roster import Roster
    from train.evaluation.runner import Effort

    files.remove_tree(job.folder / EVALUATIONS)  # of a worker that was killed
    candidate = f"{job.request.adapter}@{number}"
    suites = trial.suites_of(goal, job.folder)
    case = trial.GateTrial(goal, candidate, _replaced(job, registry, number))
    with closing(Roster(registry, None, offline=True)) as roster:
        result, evaluations = trial.run_trial(case, suites, roster, Effort(1))
        kept = trial.keep(evaluations, job.folder / EVALUATIONS)
        document = trial.describe(case, result, kept, registry, roster.via)
    who = job.request.who
    trial.attest_evaluations(registry, candidate, list(kept.values()), "candidate", who)
    trial.attest_gate(registry, document, who)
    told = document.model_dump(mode="json")
    return {
        key: told[key]
        for key in ("verdict", "sentence", "needed", "candidate", "replaces", "via", "goal_sha256")
    }


def _replaced(job: TuningJob, registry: Registry, number: int) -> str | None:
    adapter = job.request.adapter
    try:
        stable = registry.aliases(adapter).get(STABLE)
    except NotFound:
        return None
    return None if stable in {None, number} else f"{adapter}@{stable}"
