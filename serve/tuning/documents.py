"""A fine-tuning job as OpenAI's API tells it. Pure.

Invariant: every key that OpenAI's description requires is there, null where nothing is known; what is ours
stands under `x_wardrobe` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry.tuning.jobs import TuningJob
from registry.tuning.machine import JobEvent, JobState
from registry.tuning.records import JobEntry
from serve.tuning.parameters import AUTO, EXTRAS

_HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")


@dataclass(frozen=True, slots=True)
class JobSurroundings:
    """What is known of a job beside its files; `waits_for` is a sentence, empty where for nothing."""

    organization: str
    waits_for: str = ""
    seconds_left: float | None = None
    now: float = 0.0


def job_document(job: TuningJob, log: Sequence[JobEntry], around: JobSurroundings) -> dict[str, Any]:
    """Return the job, of which `log` are all entries."""
    request, last = job.request, log[-1]
    kind = str(request.method["type"])
    block = request.method.get(kind)
    asked = block.get("hyperparameters") if isinstance(block, dict) else None
    told = {**(asked if isinstance(asked, dict) else {}), **_mapping(last.facts.get("hyperparameters"))}
    done = last.state is JobState.SUCCEEDED
    left = around.seconds_left if last.state is JobState.RUNNING else None
    return {
        "object": "fine_tuning.job",
        "id": request.id,
        "created_at": request.created,
        "finished_at": int(last.at) if last.state.final else None,
        "status": last.state.value,
        "error": _error(last),
        "model": request.model,
        "fine_tuned_model": last.facts.get("fine_tuned_model") if done else None,
        "organization_id": around.organization,
        "hyperparameters": {key: told.get(key, AUTO) for key in _HYPERPARAMETERS},
        "method": dict(request.method),
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "result_files": last.facts.get("result_files", []) if done else [],
        "trained_tokens": last.facts.get("trained_tokens") if done else None,
        "seed": request.seed,
        "estimated_finish": None if left is None else int(around.now + left),
        "integrations": [dict(one) for one in request.integrations] or None,
        "metadata": None if request.metadata is None else dict(request.metadata),
        EXTRAS: _ours(job, log, around),
    }


def _ours(job: TuningJob, log: Sequence[JobEntry], around: JobSurroundings) -> dict[str, Any]:
    request, last = job.request, log[-1]
    version = last.facts.get("version")
    validated = next((entry for entry in reversed(log) if entry.event is JobEvent.VALIDATED), None)
    told: dict[str, Any] = {
        "adapter": request.adapter,
        "version": f"{request.adapter}@{version}" if isinstance(version, int) else version,
        "digest": last.facts.get("digest"),
        "start": request.start or request.base_model,
        "asked": dict(request.extras),
        "gate": last.facts.get("gate"),
        "dataset_report": None if validated is None else dict(validated.facts) or None,
        "worker": last.worker,
        "waits_for": around.waits_for or None,
    }
    rest = {key: value for key, value in last.facts.items() if key not in _TOLD}
    return {**rest, **told} if last.state.final else told


_TOLD = frozenset({"error", "result_files", "trained_tokens", "hyperparameters", "fine_tuned_model"})
"""Facts of the end that stand elsewhere in the job."""


def _error(last: JobEntry) -> dict[str, Any] | None:
    if last.state is not JobState.FAILED:
        return None
    found = _mapping(last.facts.get("error"))
    return {
        "code": str(found.get("code") or "job_failed"),
        "message": str(found.get("message") or last.message or "The job failed."),
        "param": found.get("param"),
    }


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
