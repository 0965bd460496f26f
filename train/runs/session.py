"""One run as a job: its record from the first second to the last, whatever ends it.

Owns which job a run is (a new one, or an interrupted one of the same plan) and what its end is called.
Invariants: every way out of `JobRun` writes a state; a run that can go on is `interrupted`, one that cannot
is `failed`; checkpoints stay only while they are of use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from registry.errors import Conflict, StorageFailed
from registry.records import Published, Version
from registry.storage import files
from train.jobs.plan import RunPlan, make_plan
from train.jobs.records import JobState
from train.jobs.store import REWARD, Job, Jobs
from train.loop.watching import Observer, OptimiserStep, TrainingEvaluation, TrainingResult
from train.process import launching
from train.runs.publish import DataSource
from train.runs.tracking import make_trackers

if TYPE_CHECKING:
    from registry.records import BaseModelInfo
    from train.config import TrainConfig
    from train.loop.trainer import Attempt


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is wanted: by whom, going on with an interrupted one, stoppable by whom.

    `notice` tells a person something that is not a result.
    """

    who: str
    resume: bool = False
    stopping: Callable[[], bool] = lambda: False
    notice: Callable[[str], None] = lambda _text: None


class JobRecorder:
    """Writes a run into its job."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def step(self, step: OptimiserStep) -> None:
        """Take note of a step."""
        self._job.advance(step.number, step.total, step.tokens, step.line())

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Take note of an evaluation and the answers to the sample prompts."""
        answers: list[dict[str, Any]] = [
            {"step": evaluation.step, "prompt": prompt, "answer": answer}
            for prompt, answer in evaluation.samples
        ]
        self._job.evaluated(evaluation.line(), answers)
        self._job.flush()

    def close(self, state: str) -> None:
        """Nothing: the job's own end says it."""


class JobRun:
    """A job while it is worked on; a context manager that gives every ending its state."""

    follows = False

    def __init__(self, job: Job, config: TrainConfig, wish: RunOptions, resume_from: int | None) -> None:
        self.job = job
        self._config = config
        self._wish = wish
        self._resume_from = resume_from
        self._observers: tuple[Observer, ...] = ()

    @property
    def folder(self) -> Path:
        """Return the folder for what is written meanwhile, removed at the end."""
        return self.job.folder / "work"

    @property
    def resumed(self) -> tuple[int, ...]:
        """Return the steps after which the run went on."""
        return self.job.status().resumed

    def attempt(self) -> Attempt:
        """Return what the torch part needs to know of the job."""
        from train.loop.trainer import Attempt

        return Attempt(
            self.job.checkpoints, self._resume_from, self.resumed, self._observers, self._wish.stopping
        )

    def __enter__(self) -> Self:
        self.job.begin(self._resume_from)
        files.remove_tree(self.folder)
        files.make_directory(self.folder)
        try:
            trackers = make_trackers(self._config, self.job)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        self._observers = (JobRecorder(self.job), *trackers)
        launching.announce(self.job.id, self._resume_from)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state = self._state_after(kind, error)
        with suppress(StorageFailed):
            files.remove_tree(self.folder)
        if state is not JobState.INTERRUPTED and not self._config.checkpoints.keep_finished:
            with suppress(StorageFailed):
                self.job.drop_checkpoints()
        told = None if state is JobState.SUCCEEDED else str(error) or (kind.__name__ if kind else None)
        # A full disk may refuse this too; then the process's death says the same.
        with suppress(StorageFailed):
            self.job.end(state, error=told)
        for observer in self._observers:
            observer.close(state.value)

    def succeed(self, result: TrainingResult, published: Published | None, artefact: str | None) -> None:
        """Write the result.

        Raises: StorageFailed.
        """
        from train.runs.estimate import earlier_estimate

        version = published.version if published else None
        told = summary(result)
        root = self.job.folder.parent.parent
        if (before := earlier_estimate(root, self.job.description.plan_sha256)) is not None:
            told["estimate"] = before.model_dump(mode="json")
        self.job.end(
            JobState.SUCCEEDED,
            version=version.number if version else None,
            digest=version.digest if version else None,
            artefact=artefact,
            summary=told,
        )

    def _state_after(self, kind: type[BaseException] | None, error: BaseException | None) -> JobState:
        if kind is None:
            return JobState.SUCCEEDED
        can_go_on = bool(self.job.steps_kept)
        if issubclass(kind, KeyboardInterrupt) or (isinstance(error, StorageFailed) and can_go_on):
            return JobState.INTERRUPTED
        return JobState.FAILED


class WorkerRank(JobRun):
    """The same job in a further process of the run: it trains and writes nothing."""

    follows = True

    def __enter__(self) -> Self:
        files.make_directory(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: the first process says how it ended."""


def open_work(
    root: Path,
    config: TrainConfig,
    base: BaseModelInfo,
    sources: Mapping[str, DataSource],
    parent: Version | None,
    wish: RunOptions,
) -> JobRun:
    """Return the job that a run is: a new one or, with `wish.resume`, the newest interrupted one of its plan.

    Raises: Conflict: every interrupted run of the adapter had another plan; the difference is named.
    """
    jobs = Jobs(root)
    if launching.follows():
        name, step = launching.await_announcement()
        return WorkerRank(jobs.find(name), config, wish, step)
    plan = plan_of(config, base, sources, parent)
    waiting = jobs.interrupted(config.name)
    found = _same(waiting, plan) if wish.resume else None
    if found is not None:
        step = found.steps_kept[-1]
        wish.notice(f"going on with job {found.id} from step {step}")
        return JobRun(found, config, wish, step)
    if wish.resume and waiting:
        raise _another_plan(waiting[0], plan)
    if wish.resume:
        wish.notice(f"{config.name}: no interrupted run has a checkpoint; starting afresh")
    elif (left := _same(waiting, plan)) is not None:
        wish.notice(f"job {left.id} was interrupted at step {left.steps_kept[-1]}: `--resume` would go on")
    document = config.model_dump(mode="json", by_alias=True)
    job = jobs.create(config.name, config.method.type, base.name, document, plan, who=wish.who)
    return JobRun(job, config, wish, None)


def plan_of(
    config: TrainConfig, base: BaseModelInfo, sources: Mapping[str, DataSource], parent: Version | None
) -> RunPlan:
    """Return the plan of a run."""
    hashes = {label: source.sha256 for label, source in sources.items()}
    return make_plan(config, base, hashes, parent.digest if parent else None)


def summary(result: TrainingResult) -> dict[str, Any]:
    """Return what a run measured, for the record."""
    return {
        "steps": result.steps,
        "taken": result.taken,
        "why": result.why,
        "first_loss": result.first_loss,
        "last_loss": result.last_loss,
        "eval_loss": result.eval_loss,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 2),
        "tokens_per_second": round(result.tokens_per_second, 1),
        "peak_memory_bytes": result.peak_memory_bytes,
        "device": result.device,
        "warnings": list(result.warnings),
    }


def reward_folder(root: Path, path: Path) -> Path:
    """Return the reward model that a config means: the folder at `path`, or the job that its name is.

    Raises: NotFound: it is neither; Conflict: the job made no reward model.
    """
    if path.is_dir():
        return path
    job = Jobs(root).find(path.name)
    if not (job.folder / REWARD).is_dir():
        fact = f"made no reward model (method {job.description.method}, {job.status().state.value})"
        raise Conflict(f"job {job.id}", fact, "name a job with method: reward that succeeded")
    return job.folder / REWARD


def _same(jobs: list[Job], plan: RunPlan) -> Job | None:
    return next((job for job in jobs if job.description.plan_sha256 == plan.digest), None)


def _another_plan(job: Job, plan: RunPlan) -> Conflict:
    told = plan.differences(job.description.plan)
    more = f" (and {len(told) - 3} more)" if len(told) > 3 else ""
    fact = f"was interrupted with another plan: {'; '.join(told[:3])}{more}"
    return Conflict(f"job {job.id}", fact, "put it back to go on, or run without --resume", param="resume")
