"""One training run: items and a base model in, a folder with what was trained out.

Owns the order of the torch part: seed, model, trainer, steps, checks, files. Invariants: the same config,
data, base and machine give the same bytes, also when the run was stopped and went on; nothing is written to
the result's folder before the weights have passed their checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry.errors import WardrobeError
from registry.storage import files
from train.loop.arguments import common_arguments
from train.loop.attempt import Attempt, Probe, Stopped
from train.loop.checkpoints import CheckpointManager, load_weights
from train.loop.conversion import save_result
from train.loop.evaluator import TrainingEvaluator, make_best, make_evaluator
from train.loop.guards import check_weights, overfitting, weight_sums
from train.loop.refusals import named_refusals
from train.loop.rehearsal import is_out_of_memory, too_large
from train.loop.result import ConversionResult, TrainingResult
from train.loop.steps import TrainingLoop, callback, quiet_evaluation
from train.loop.watching import StepCollector, TrainingEvaluation
from train.methods import TrainerInputs, method_of
from train.model.head import scored_where_learnt
from train.model.loading import load_tokenizer, make_model
from train.prepared import PreparedRun
from train.process.device import device_name, peak_memory
from train.process.launching import is_lost_process
from train.process.silence import quiet


def train(run: PreparedRun, attempt: Attempt, out: Path) -> TrainingResult:
    """Train, and write the result to the new folder `out`.

    Raises:
        WardrobeError: a guard stops the run, or a checkpoint cannot be written.
        Stopped: `attempt.stopping` said so.
    """
    with quiet(), scored_where_learnt():
        evaluator = make_evaluator(run.config, load_tokenizer(run.base.path), run.root)
        loop = TrainingLoop(run, attempt, evaluator, make_best(run.config))
        inputs, trainer = _build(loop)
        checkpoints = CheckpointManager(attempt.checkpoints, run.config.checkpoints.keep)
        checkpoints.attach(trainer, loop.facts)
        quiet_evaluation(trainer)
        before = weight_sums(trainer.model)
        _train(trainer, loop, checkpoints)
        evaluation, why = _take(trainer, loop, checkpoints)
        check_weights(run.config.name, before, weight_sums(trainer.model))
        outcome = _save(inputs, trainer, out)
    return _result(trainer, loop, evaluation, why, outcome)


def probe(run: PreparedRun, folder: Path) -> Probe:
    """Train the few steps of `run`, keep nothing, and return what they took.

    Raises: WardrobeError: the longest rows do not fit into memory.
    """
    seen = StepCollector()
    attempt = Attempt(folder, folder / "checkpoints", observers=(seen,))
    with quiet(), scored_where_learnt():
        loop = TrainingLoop(run, attempt, TrainingEvaluator(None, None, None), best=None)
        _, trainer = _build(loop)
        trainer.train()
    return Probe(tuple(seen.steps), peak_memory(), device_name(trainer.args.device.type))


def _build(loop: TrainingLoop) -> tuple[TrainerInputs, Any]:
    from transformers import PrinterCallback, set_seed

    run, config, folder = loop.run, loop.run.config, loop.attempt.folder
    set_seed(config.seed)  # before the adapter is made: its first weights are random
    made: list[Any] = []
    with named_refusals(config.name):
        model, peft_config = make_model(config, run.base.path, run.start)
        inputs = TrainerInputs(
            run=run,
            tokenizer=load_tokenizer(run.base.path),  # its own: TRL changes how it pads
            model=model,
            peft_config=peft_config,
            arguments={**common_arguments(config, folder), "max_steps": run.duration.steps},
            callbacks=[callback(loop, lambda: made[0])],
            folder=folder,
        )
        trainer = method_of(config).build(inputs)
    made.append(trainer)
    trainer.remove_callback(PrinterCallback)
    return inputs, trainer


def _train(trainer: Any, loop: TrainingLoop, checkpoints: CheckpointManager) -> None:
    config, resume_from = loop.run.config, loop.attempt.resume_from
    checkpoint = None
    if resume_from is not None:
        loop.restore(checkpoints.facts(resume_from))
        checkpoint = str(checkpoints.folder / str(resume_from))
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except RuntimeError as error:
        if is_lost_process(error):
            fact = "another process of the run ended, and this one cannot go on without it"
            raise WardrobeError(config.name, fact, "look at its error; --resume goes on") from error
        if not is_out_of_memory(error):
            raise
        raise too_large(config.name, config.training.batch_size) from error
    if loop.stopped:
        raise Stopped(loop.step, loop.total)


def _take(
    trainer: Any, loop: TrainingLoop, checkpoints: CheckpointManager
) -> tuple[TrainingEvaluation | None, str]:
    """Load the best checkpoint where one is asked for; return its evaluation and the reason in words."""
    best = loop.best_step
    last = loop.evaluations[-1] if loop.evaluations else None
    over = loop.best is not None and loop.best.is_over and loop.step < loop.total
    ended = f"step {loop.step} of {loop.total}"
    stopped = f"; stopped early at {ended}: no improvement" if over else ""
    if best is None:
        return last, f"the last step{stopped}"
    assert loop.best is not None
    taken = next(one for one in loop.evaluations if one.step == best)
    value = loop.best.best[1] if loop.best.best else float("nan")
    why = f"the best by {loop.best.metric} ({value:.4g}) of {len(loop.best.seen)} evaluations{stopped}"
    if best != loop.step:
        load_weights(trainer.accelerator.unwrap_model(trainer.model), checkpoints.folder / str(best))
    return taken, why


def _save(inputs: TrainerInputs, trainer: Any, out: Path) -> ConversionResult:
    """Write the result, in every process: pieces of weights are gathered and losses are measured by all.

    The first process's stays.
    """
    first = trainer.is_world_process_zero()
    place = out if first else inputs.folder / f"adapter.{trainer.args.process_index}"
    outcome = save_result(inputs, trainer, place)
    if not first:
        files.remove_tree(place)
    trainer.accelerator.wait_for_everyone()
    return outcome


def _result(
    trainer: Any,
    loop: TrainingLoop,
    evaluation: TrainingEvaluation | None,
    why: str,
    outcome: ConversionResult,
) -> TrainingResult:
    warning = overfitting(loop.losses, loop.evaluations) if loop.best_step is None else None
    return TrainingResult(
        steps=len(loop.losses),
        seconds=loop.seconds,
        tokens=loop.tokens,
        losses=tuple(loop.losses),
        eval_loss=evaluation.loss if evaluation is not None else None,
        device=device_name(trainer.args.device.type),
        evaluations=tuple(loop.evaluations),
        taken=loop.best_step or loop.step,
        why=why,
        resumed=loop.attempt.resumed,
        warnings=(*((warning,) if warning else ()), *outcome.warnings),
        outcome=outcome,
        peak_memory_bytes=peak_memory(),
    )
