"""One training of a fine-tuning job: by the code of `train run`, under the job's own id.

Owns what a job's run has beside another's: where it goes on, what becomes of its result, the gate of a goal.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.records import Published
from registry.storage import files
from registry.tuning.jobs import TuningJob
from train.loop.checkpoints import WEIGHTS
from train.loop.result import TrainingResult
from train.loop.watching import OptimiserStep, TrainingEvaluation
from train.methods import method_of
from train.prepared import PreparedRun
from train.process.interruption import Interruption
from train.runs.lineage import lineage
from train.runs.run import train_as_job
from train.runs.session import JobRun, RunOptions, summary
from train.worker.checking import prepared
from train.worker.gating import judge
from train.worker.outcome import TaskOutcome
from train.worker.results import (
    TrainedResult,
    checkpoint_adapter,
    keep_result,
    name_result,
    publish_result,
)
from train.worker.settings import resolved

if TYPE_CHECKING:
    from registry.store import Registry


class TaskWatcher:
    """Nobody watches; the moment of publishing is the one from which a signal waits."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def step(self, step: OptimiserStep) -> None:
        """Nothing: the job's own record has it."""

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Nothing: the job's own record has it."""

    def publishing(self) -> None:
        """From now on finish, whoever asks to stop."""
        self._interruption.hold()

    def close(self, state: str) -> None:
        """Nothing."""


def train_job(job: TuningJob, registry: Registry, interruption: Interruption) -> TaskOutcome:
    """Train a job from its newest checkpoint, publish what came of it, and tell how it ended.

    Raises: JobRefusal; Stopped: after a step, with a checkpoint; WardrobeError.
    """
    trained = TrainedResult.find(job)
    if trained is None:
        trained = _train(job, registry, interruption)
    interruption.hold()
    outcome = publish_result(job, registry, trained)
    outcome = judge(job, registry, outcome)
    if outcome.facts.get("fine_tuned_model"):
        name_result(job, registry, outcome)
    return outcome


def _train(job: TuningJob, registry: Registry, interruption: Interruption) -> TrainedResult:
    run = prepared(job, registry)
    options = RunOptions(
        who=job.request.who,
        watcher=TaskWatcher(interruption),
        stopping=lambda: interruption.requested,
        job=job.id,
    )
    interruption.defer(lambda: None)
    kept: list[TrainedResult] = []

    def keep(record: JobRun, trained: Path, result: TrainingResult) -> Published | None:
        folders = dict(_checkpoints(run, record, trained))
        facts: dict[str, Any] = {
            "lineage": lineage(run, record.sources, result, job.id),
            "tokens": result.tokens,
            "hyperparameters": resolved(run.config),
            "summary": summary(result),
        }
        record.job.flush()
        kept.append(keep_result(job, trained, folders, facts))
        record.succeed(result, None, None)
        return None

    train_as_job(run, options, keep)
    return kept[0]


def _checkpoints(run: PreparedRun, record: JobRun, final: Path) -> list[tuple[int, Path]]:
    """Make an adapter folder of each checkpoint that is kept, where what is trained is a plain LoRA."""
    if run.config.lora.kind != "lora" or not method_of(run.config).servable:
        return []
    found = []
    for step in record.job.steps_kept:
        folder = record.folder / "checkpoints" / str(step)
        files.remove_tree(folder)
        if checkpoint_adapter(record.job.checkpoints / str(step) / WEIGHTS, final, folder):
            found.append((step, folder))
    return found
