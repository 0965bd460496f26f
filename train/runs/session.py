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
from typing import Any, Self

from registry.errors import Conflict, StorageFailed
from registry.records import Published
from registry.storage import files
from train.config import TrainConfig
from train.jobs.estimates import earlier_estimate
from train.jobs.plan import RunPlan
from train.jobs.records import RunState
from train.jobs.store import Job, Jobs
from train.loop.attempt import Attempt
from train.loop.result import TrainingResult
from train.loop.watching import Observer, OptimiserStep, RunWatcher, TrainingEvaluation
from train.prepared import DataSource, PreparedRun
from train.process import launching
from train.runs.tracking import make_trackers


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is wanted: by whom, who watches, going on with an interrupted one, stoppable by whom.

    `notice` tells a person something that is not a result. `job` is the id of a job that was asked for
    before: the run is that one, and goes on from its newest checkpoint by itself. `save_seconds` is that
    of `Attempt`.
    """

    who: str
    watcher: RunWatcher
    resume: bool = False
    stopping: Callable[[], bool] = lambda: False
    notice: Callable[[str], None] = lambda _text: None
    job: str | None = None
    save_seconds: float | None = None


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

    def __init__(
        self,
        job: Job,
        config: TrainConfig,
        options: RunOptions,
        resume_from: int | None,
        sources: Mapping[str, DataSource],
    ) -> None:
        self.job = job
        self.sources = sources
        self._config = config
        self._options = options
        self._resume_from = resume_from
        self._observers: tuple[Observer, ...] = (options.watcher,)

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
        return Attempt(
            folder=self.folder,
            checkpoints=self.job.checkpoints,
            resume_from=self._resume_from,
            resumed=self.resumed,
            observers=self._observers,
            stopping=self._options.stopping,
            save_seconds=self._options.save_seconds,
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
        self._observers = (self._options.watcher, JobRecorder(self.job), *trackers)
        launching.announce(self.job.id, self._resume_from)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state = self._state_after(kind, error)
        with suppress(StorageFailed):
            files.remove_tree(self.folder)
        if state is not RunState.INTERRUPTED and not self._config.checkpoints.keep_finished:
            with suppress(StorageFailed):
                self.job.drop_checkpoints()
        told = None if state is RunState.SUCCEEDED else str(error) or (kind.__name__ if kind else None)
        # A full disk may refuse this too; then the process's death says the same.
        with suppress(StorageFailed):
            self.job.end(state, error=told)
        for observer in self._observers:
            observer.close(state.value)

    def succeed(self, result: TrainingResult, published: Published | None, artefact: str | None) -> None:
        """Write the result.

        Raises: StorageFailed.
        """
        version = published.version if published else None
        told = summary(result)
        root = self.job.folder.parent.parent
        if (before := earlier_estimate(root, self.job.description.plan_sha256)) is not None:
            told["estimate"] = before.model_dump(mode="json")
        self.job.end(
            RunState.SUCCEEDED,
            version=version.number if version else None,
            digest=version.digest if version else None,
            artefact=artefact,
            summary=told,
        )

    def _state_after(self, kind: type[BaseException] | None, error: BaseException | None) -> RunState:
        if kind is None:
            return RunState.SUCCEEDED
        can_go_on = bool(self.job.steps_kept)
        if issubclass(kind, KeyboardInterrupt) or (isinstance(error, StorageFailed) and can_go_on):
            return RunState.INTERRUPTED
        return RunState.FAILED


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


def open_job(run: PreparedRun, options: RunOptions) -> JobRun:
    """Return the job of a run: a new one or, with `options.resume`, the newest interrupted one of its plan.

    Raises: Conflict: every interrupted run of the adapter had another plan; the difference is named.
    """
    jobs, config, sources = Jobs(run.root), run.config, run.sources()
    if launching.follows():
        name, step = launching.await_announcement()
        return WorkerRank(jobs.find(name), config, options, step, sources)
    plan = run.plan(sources)
    if options.job is not None:
        return _asked_before(jobs, run, options, plan, sources)
    waiting = jobs.interrupted(config.name)
    found = _same(waiting, plan) if options.resume else None
    if found is not None:
        step = found.steps_kept[-1]
        options.notice(f"going on with job {found.id} from step {step}")
        return JobRun(found, config, options, step, sources)
    if options.resume and waiting:
        raise _another_plan(waiting[0], plan)
    if options.resume:
        options.notice(f"{config.name}: no interrupted run has a checkpoint; starting afresh")
    elif (left := _same(waiting, plan)) is not None:
        options.notice(f"job {left.id} was interrupted at step {left.steps_kept[-1]}: `--resume` would go on")
    return JobRun(_create(jobs, run, options, plan), config, options, None, sources)


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


def _asked_before(
    jobs: Jobs, run: PreparedRun, options: RunOptions, plan: RunPlan, sources: Mapping[str, DataSource]
) -> JobRun:
    assert options.job is not None
    job = jobs.known(options.job)
    if job is not None and job.description.plan_sha256 == plan.digest and job.steps_kept:
        step = job.steps_kept[-1]
        options.notice(f"going on with job {job.id} from step {step}")
        return JobRun(job, run.config, options, step, sources)
    if job is not None:
        job.drop_checkpoints()
        job.forget()
    return JobRun(_create(jobs, run, options, plan), run.config, options, None, sources)


def _create(jobs: Jobs, run: PreparedRun, options: RunOptions, plan: RunPlan) -> Job:
    config = run.config
    document = config.model_dump(mode="json", by_alias=True)
    method = config.method.type
    return jobs.create(config.name, method, run.base.name, document, plan, who=options.who, id=options.job)


def _same(jobs: list[Job], plan: RunPlan) -> Job | None:
    return next((job for job in jobs if job.description.plan_sha256 == plan.digest), None)


def _another_plan(job: Job, plan: RunPlan) -> Conflict:
    told = plan.differences(job.description.plan)
    more = f" (and {len(told) - 3} more)" if len(told) > 3 else ""
    fact = f"was interrupted with another plan: {'; '.join(told[:3])}{more}"
    return Conflict(f"job {job.id}", fact, "put it back to go on, or run without --resume", param="resume")
