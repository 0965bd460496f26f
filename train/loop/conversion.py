"""From "trained" to "saved": what a server loads is always a plain LoRA on the unquantised base.

Owns the conversion of DoRA, PiSSA and full fine-tuning, and the comparison of the loss as it was trained
with the loss as it will be served, wherever the two differ (a conversion, a quantised base). Invariant:
both losses are measured by the method's own trainer, on the same rows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from train.loop.result import Conversion, ConversionResult
from train.methods import TrainerInputs, method_of
from train.model.loading import ADAPTER, load_base, load_start, precision_of
from train.settings.adapter import Quantization

_SAMPLE_ROWS = 64


def save_result(inputs: TrainerInputs, trainer: Any, out: Path) -> ConversionResult:
    """Write what `trainer` trained to the new folder `out`, as it will be served, and compare both.

    Raises: InvalidAdapter: the conversion leaves out more than `lora.accept_residual`.
    """
    config, method = inputs.run.config, method_of(inputs.run.config)
    precision = precision_of(config)
    if not method.servable:
        method.save(trainer, out)
        return ConversionResult(precision)
    conversion = None
    if config.lora.kind == "lora":
        method.save(trainer, out)
    else:
        conversion = _convert(inputs, trainer, out)
    if conversion is None and config.quantization is None:
        return ConversionResult(precision)
    outcome = ConversionResult(describe_precision(precision, config.quantization), conversion)
    return outcome if config.method.draws_answers else _compared(outcome, inputs, trainer, out)


def describe_precision(precision: str, quantization: Quantization | None) -> str:
    """Return the precision of the base's weights in words: `bf16`, or `nf4 (double), bf16 products`."""
    if quantization is None:
        return precision
    double = " (double)" if quantization.double else ""
    return f"{quantization.type}{double}, {quantization.compute} products"


def _convert(inputs: TrainerInputs, trainer: Any, out: Path) -> Conversion:
    from train.merging.extraction import extract_lora

    lora = inputs.run.config.lora
    accepted = 1.0 if lora.accept_residual is None else lora.accept_residual
    rank = lora.converted_rank
    model = trainer.accelerator.unwrap_model(trainer.model)
    found = extract_lora(inputs.run.base.path, model, out, rank=rank, max_rank=rank, accept_residual=accepted)
    return Conversion(lora.kind, found.rank, found.residual, found.modules)


def _compared(outcome: ConversionResult, inputs: TrainerInputs, trainer: Any, out: Path) -> ConversionResult:
    run = inputs.run
    rows = run.held_out or run.items[:_SAMPLE_ROWS]
    same = dataclasses.replace(inputs, run=run.with_rows(run.items, rows), callbacks=())
    served = _served_trainer(same, out)
    return dataclasses.replace(
        outcome,
        trained_loss=_loss(trainer, served.eval_dataset),
        served_loss=_loss(served, served.eval_dataset),
        measured_on="held-out" if run.held_out else "training",
        rows=len(rows),
    )


def _served_trainer(inputs: TrainerInputs, out: Path) -> Any:
    """Return the method's trainer with the adapter of `out` on the unquantised base; it only measures.

    It is built as for training and gets the weights afterwards, so that what a method compares with (the
    start of DPO) is what it was in training.
    """
    from peft import PeftConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    config = inputs.run.config.model_copy(update={"quantization": None})
    run = dataclasses.replace(inputs.run, config=config)
    model, shape = load_base(run.base.path, precision_of(config)), None
    if run.start is not None:
        model = load_start(model, config, run.start)
    else:
        shape = PeftConfig.from_pretrained(str(out))
        shape.inference_mode = False
    built = dataclasses.replace(inputs, run=run, model=model, peft_config=shape)
    trainer = method_of(config).build(built)
    adapted = trainer.accelerator.unwrap_model(trainer.model)
    set_peft_model_state_dict(adapted, load_file(out / "adapter_model.safetensors"), ADAPTER)
    return trainer


def _loss(trainer: Any, rows: Any) -> float:
    # Asked of the loop itself: `evaluate` would tell the run's callbacks of it.
    loader = trainer.get_eval_dataloader(rows)
    return float(
        trainer.evaluation_loop(loader, "comparison", prediction_loss_only=True).metrics["eval_loss"]
    )
