"""From "trained" to "saved": what a server loads is always a plain LoRA on the unquantised base.

Owns the conversion of DoRA, PiSSA and full fine-tuning, and the comparison of the loss as it was trained
with the loss as it will be served, wherever the two differ (a conversion, a quantised base). Invariant:
both losses are measured by the method's own trainer, on the same rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.config import TrainConfig
from train.methods import Method, TrainerInputs, method_of
from train.model.loading import ADAPTER, load_base, load_start, precision_of
from train.settings.adapter import Quantization

if TYPE_CHECKING:
    from pydantic import JsonValue

    from train.merging.extraction import ModuleResidual

_ONLINE = frozenset({"rloo", "grpo"})
_SAMPLE_ROWS = 64
_LARGE_RESIDUAL = 0.05
_LARGE_RISE = 0.01


@dataclass(frozen=True, slots=True)
class Conversion:
    """A plain LoRA made of something else: `residual` is the share of what was learnt that it leaves out.

    Residuals are relative Frobenius norms, of all modules together and of each.
    """

    kind: str
    rank: int
    residual: float
    modules: tuple[ModuleResidual, ...]


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """How what was saved compares with what was trained.

    `precision` is that of the base's weights while it trained, quantised or not. The losses are None where
    both are the same model, or where the method has no loss that could be measured twice (answers that are
    drawn); `rows` of the file `measured_on` were used.
    """

    precision: str
    conversion: Conversion | None = None
    trained_loss: float | None = None
    served_loss: float | None = None
    measured_on: str | None = None
    rows: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know before the version is served."""
        found = []
        conversion = self.conversion
        if conversion is not None and conversion.residual > _LARGE_RESIDUAL:
            found.append(
                f"the plain LoRA of rank {conversion.rank} leaves out {conversion.residual:.3f} of what "
                f"{conversion.kind} learnt (Frobenius norm); a higher lora.convert_rank keeps more"
            )
        if self.trained_loss is not None and self.served_loss is not None:
            rise = self.served_loss - self.trained_loss
            if rise > _LARGE_RISE * abs(self.trained_loss):
                found.append(
                    f"the loss is {self.trained_loss:.4f} as trained ({self.precision} base) and "
                    f"{self.served_loss:.4f} as it will be served ({self.measured_on} rows)"
                )
        return tuple(found)

    def document(self) -> dict[str, JsonValue]:
        """Return it for the lineage."""
        body: dict[str, JsonValue] = {"base_precision": self.precision}
        if self.served_loss is not None:
            body |= {
                "trained_loss": self.trained_loss,
                "served_loss": self.served_loss,
                "measured_on": self.measured_on,
                "measured_rows": self.rows,
            }
        if self.conversion is not None:
            modules: dict[str, JsonValue] = {one.module: one.residual for one in self.conversion.modules}
            body["conversion"] = {
                "from": self.conversion.kind,
                "rank": self.conversion.rank,
                "residual": self.conversion.residual,
                "modules": modules,
            }
        return body


def save_result(
    workshop: TrainerInputs, trainer: Any, out: Path, start: Path | None = None
) -> ConversionResult:
    """Write what `trainer` trained to the new folder `out`, as it will be served, and compare both.

    `start` is the folder of the version that the run went on with.

    Raises: InvalidAdapter: the conversion leaves out more than `lora.accept_residual`.
    """
    config, method = workshop.config, method_of(workshop.config)
    precision = precision_of(config)
    if not method.servable:
        method.save(trainer, out)
        return ConversionResult(precision)
    conversion = None
    if config.lora.kind == "lora":
        method.save(trainer, out)
    else:
        conversion = _convert(workshop, trainer, out)
    if conversion is None and config.quantization is None:
        return ConversionResult(precision)
    outcome = ConversionResult(describe_precision(precision, config.quantization), conversion)
    return outcome if config.method.type in _ONLINE else _compared(outcome, workshop, trainer, out, start)


def describe_precision(precision: str, quantization: Quantization | None) -> str:
    """Return the precision of the base's weights in words: `bf16`, or `nf4 (double), bf16 products`."""
    if quantization is None:
        return precision
    double = " (double)" if quantization.double else ""
    return f"{quantization.type}{double}, {quantization.compute} products"


def _convert(workshop: TrainerInputs, trainer: Any, out: Path) -> Conversion:
    from train.merging.extraction import extract_lora

    lora = workshop.config.lora
    accepted = 1.0 if lora.accept_residual is None else lora.accept_residual
    rank = lora.converted_rank
    model = trainer.accelerator.unwrap_model(trainer.model)
    found = extract_lora(workshop.base, model, out, rank=rank, max_rank=rank, accept_residual=accepted)
    return Conversion(lora.kind, found.rank, found.residual, found.modules)


def _compared(
    outcome: ConversionResult, workshop: TrainerInputs, trainer: Any, out: Path, start: Path | None
) -> ConversionResult:
    rows = list(workshop.held_out or workshop.items[:_SAMPLE_ROWS])
    same = dataclasses.replace(workshop, held_out=rows, callbacks=())
    served = _served_trainer(same, method_of(workshop.config), out, start)
    return dataclasses.replace(
        outcome,
        trained_loss=_loss(trainer, served.eval_dataset),
        served_loss=_loss(served, served.eval_dataset),
        measured_on="held-out" if workshop.held_out else "training",
        rows=len(rows),
    )


def _served_trainer(workshop: TrainerInputs, method: Method, out: Path, start: Path | None) -> Any:
    """Return the method's trainer with the adapter of `out` on the unquantised base; it only measures.

    It is built as for training and gets the weights afterwards, so that what a method compares with (the
    start of DPO) is what it was in training.
    """
    from peft import PeftConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    config: TrainConfig = workshop.config.model_copy(update={"quantization": None})
    model, shape = load_base(workshop.base, precision_of(config)), None
    if start is not None:
        model = load_start(model, config, start)
    else:
        shape = PeftConfig.from_pretrained(str(out))
        shape.inference_mode = False
    built = dataclasses.replace(workshop, config=config, model=model, peft_config=shape)
    trainer = method.build(built)
    adapted = trainer.accelerator.unwrap_model(trainer.model)
    set_peft_model_state_dict(adapted, load_file(out / "adapter_model.safetensors"), ADAPTER)
    return trainer


def _loss(trainer: Any, rows: Any) -> float:
    # Asked of the loop itself: `evaluate` would tell the run's callbacks of it.
    loader = trainer.get_eval_dataloader(rows)
    return float(
        trainer.evaluation_loop(loader, "comparison", prediction_loss_only=True).metrics["eval_loss"]
    )
