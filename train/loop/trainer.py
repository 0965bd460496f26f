"""One training run: items and a base model in, a folder with what was trained out.

Owns the order of the torch part: seed, model, trainer, steps, checks, files. Invariants: the same config,
data, base and machine give the same bytes, also when the run was stopped and went on; nothing is written to
the result's folder before the weights have passed their checks.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import WardrobeError
from registry.storage import files
from train.config import TrainConfig
from train.epoch.duration import duration_of
from train.epoch.items import TrainingItem
from train.loop.arguments import common_arguments
from train.loop.checkpoints import CheckpointManager, load_weights
from train.loop.conversion import ConversionResult, save_result
from train.loop.evaluator import TrainingEvaluator, make_looks, make_race
from train.loop.guards import check_weights, overfitting, weight_sums
from train.loop.refusals import named_refusals
from train.loop.rehearsal import is_out_of_memory, too_large
from train.loop.steps import TrainingLoop, callback, quiet_evaluation
from train.loop.watching import Observer, RunWatcher, StepCollector, TrainingEvaluation, TrainingResult
from train.methods import TrainerInputs, method_of
from train.model.head import scored_where_learnt
from train.model.loading import load_tokenizer, make_model
from train.process.launching import is_lost_process, processes
from train.process.silence import quiet

__all__ = [
    "Attempt",
    "RunWatcher",
    "Stopped",
    "TrainingResult",
    "TrainingTask",
    "load_tokenizer",
    "probe_task",
    "run_task",
]

if TYPE_CHECKING:
    from train.runs.estimate import Probe


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """What the torch part of a run gets: everything is checked and rendered.

    `start` is the folder of the version that the run goes on with, None for a fresh adapter.
    `root` says how a server would read calls of tools.
    """

    config: TrainConfig
    base: Path
    items: Sequence[TrainingItem]
    held_out: Sequence[TrainingItem]
    start: Path | None = None
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a task: where its checkpoints are, which step it goes on from, who watches and stops it.

    `resumed` are the steps after which it went on, this one's included.
    """

    checkpoints: Path
    resume_from: int | None = None
    resumed: tuple[int, ...] = ()
    observers: tuple[Observer, ...] = ()
    stopping: Callable[[], bool] = lambda: False


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, did so after a step, and left a checkpoint of it."""

    def __init__(self, step: int, total: int) -> None:
        self.step = step
        self.total = total
        super().__init__(f"stopped at step {step} of {total}")


def run_task(
    task: TrainingTask, folder: Path, out: Path, progress: RunWatcher, attempt: Attempt | None = None
) -> TrainingResult:
    """Train, with `folder` for what is written meanwhile, and write the result to the new folder `out`.

    Raises:
        WardrobeError: a guard stops the run, or a checkpoint cannot be written.
        Stopped: `attempt.stopping` said so.
    """
    attempt = attempt or Attempt(folder / "checkpoints")
    with quiet(), scored_where_learnt():
        course = _make_course(task, progress, attempt)
        workshop, trainer = _build(task, folder, course)
        keeper = CheckpointManager(attempt.checkpoints, task.config.checkpoints.keep)
        keeper.attach(trainer, course.facts)
        quiet_evaluation(trainer)
        before = weight_sums(trainer.model)
        _train(trainer, course, keeper, attempt)
        evaluation, why = _take(trainer, course, keeper)
        check_weights(task.config.name, before, weight_sums(trainer.model))
        outcome = _save(workshop, trainer, out, task.start)
    return _result(trainer, course, attempt, evaluation, why, outcome)


def probe_task(task: TrainingTask, folder: Path) -> Probe:
    """Train the few steps that `task` says, keep nothing, and return what they took.

    Raises: WardrobeError: the longest rows do not fit into memory.
    """
    from train.runs.estimate import Probe

    seen = StepCollector()
    with quiet(), scored_where_learnt():
        course = _make_course(task, seen, Attempt(folder / "checkpoints", observers=(seen,)))
        course.looks = TrainingEvaluator(None, None, None)
        course.race = None
        _, trainer = _build(task, folder, course)
        trainer.train()
    return Probe(tuple(seen.steps), peak_memory(), _device(trainer))


def _make_course(task: TrainingTask, progress: RunWatcher, attempt: Attempt) -> TrainingLoop:
    config = task.config
    length = duration_of(config, task.items, processes())
    return TrainingLoop(
        config=config,
        looks=make_looks(config, load_tokenizer(task.base), task.root),
        race=make_race(config),
        held_out=bool(task.held_out),
        progress=progress,
        observers=attempt.observers,
        stopping=attempt.stopping,
        agree=_agree,
        row_tokens=sum(item.length for item in task.items) / max(1, len(task.items)),
        total=length.steps,
        per_epoch=length.steps_per_epoch,
    )


def _build(task: TrainingTask, folder: Path, course: TrainingLoop) -> tuple[TrainerInputs, Any]:
    from transformers import set_seed

    config = task.config
    set_seed(config.seed)  # before the adapter is made: its first weights are random
    with named_refusals(config.name):
        return _built(task, folder, course)


def _built(task: TrainingTask, folder: Path, course: TrainingLoop) -> tuple[TrainerInputs, Any]:
    from transformers import PrinterCallback

    config = task.config
    model, peft_config = make_model(config, task.base, task.start)
    made: list[Any] = []
    workshop = TrainerInputs(
        config=config,
        base=task.base,
        tokenizer=load_tokenizer(task.base),
        model=model,
        peft_config=peft_config,
        arguments={**common_arguments(config, folder), "max_steps": course.total},
        items=task.items,
        held_out=task.held_out,
        callbacks=[callback(course, lambda: made[0])],
        folder=folder,
        root=task.root,
    )
    trainer = method_of(config).build(workshop)
    made.append(trainer)
    trainer.remove_callback(PrinterCallback)
    return workshop, trainer


def _train(trainer: Any, course: TrainingLoop, keeper: CheckpointManager, attempt: Attempt) -> None:
    checkpoint = None
    if attempt.resume_from is not None:
        course.restore(keeper.facts(attempt.resume_from))
        checkpoint = str(keeper.folder / str(attempt.resume_from))
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except RuntimeError as error:
        if is_lost_process(error):
            fact = "another process of the run ended, and this one cannot go on without it"
            raise WardrobeError(course.config.name, fact, "look at its error; --resume goes on") from error
        if not is_out_of_memory(error):
            raise
        raise too_large(course.config.name, course.config.training.batch_size) from error
    if course.stopped:
        raise Stopped(course.step, course.total)


def _take(
    trainer: Any, course: TrainingLoop, keeper: CheckpointManager
) -> tuple[TrainingEvaluation | None, str]:
    """Load the best checkpoint where one is asked for; return its evaluation and the reason in words."""
    best = course.best_step
    last = course.evaluations[-1] if course.evaluations else None
    over = course.race is not None and course.race.is_over and course.step < course.total
    ended = f"step {course.step} of {course.total}"
    stopped = f"; stopped early at {ended}: no improvement" if over else ""
    if best is None:
        return last, f"the last step{stopped}"
    assert course.race is not None
    taken = next(one for one in course.evaluations if one.step == best)
    value = course.race.best[1] if course.race.best else float("nan")
    why = f"the best by {course.race.metric} ({value:.4g}) of {len(course.race.seen)} evaluations{stopped}"
    if best != course.step:
        load_weights(trainer.accelerator.unwrap_model(trainer.model), keeper.folder / str(best))
    return taken, why


def _save(workshop: TrainerInputs, trainer: Any, out: Path, start: Path | None) -> ConversionResult:
    """Write the result, in every process: pieces of weights are gathered and losses are measured by all.

    The first process's stays.
    """
    first = trainer.is_world_process_zero()
    place = out if first else workshop.folder / f"adapter.{trainer.args.process_index}"
    outcome = save_result(workshop, trainer, place, start)
    if not first:
        files.remove_tree(place)
    trainer.accelerator.wait_for_everyone()
    return outcome


def _result(
    trainer: Any,
    course: TrainingLoop,
    attempt: Attempt,
    evaluation: TrainingEvaluation | None,
    why: str,
    outcome: ConversionResult,
) -> TrainingResult:
    warning = overfitting(course.losses, course.evaluations) if course.best_step is None else None
    return TrainingResult(
        steps=len(course.losses),
        seconds=course.seconds,
        tokens=course.tokens,
        losses=tuple(course.losses),
        eval_loss=evaluation.loss if evaluation is not None else None,
        device=_device(trainer),
        evaluations=tuple(course.evaluations),
        taken=course.best_step or course.step,
        why=why,
        resumed=attempt.resumed,
        warnings=(*((warning,) if warning else ()), *outcome.warnings),
        outcome=outcome,
        peak_memory_bytes=peak_memory(),
    )


def peak_memory() -> int:
    """Return the most memory so far, in bytes: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _agree(flag: bool) -> bool:
    """Return whether any process of the run says so: a signal reaches them at different steps."""
    import torch.distributed as processes

    if not (processes.is_available() and processes.is_initialized()):
        return flag
    found: list[bool | None] = [None] * processes.get_world_size()
    processes.all_gather_object(found, flag)
    return any(found)


def _device(trainer: Any) -> str:
    import torch

    kind = str(trainer.args.device.type)
    return f"{kind}, {torch.get_num_threads()} threads" if kind == "cpu" else kind
