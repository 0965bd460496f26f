"""What a run made: its measurements, and how what was saved compares with what was trained. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from train.loop.watching import TrainingEvaluation

if TYPE_CHECKING:
    from train.merging.extraction import ModuleResidual

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


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run measured; `eval_loss` is that of the step that was taken.

    `taken` is the step whose weights are the result and `why` says so in words. `warnings` are for a person.
    `peak_memory_bytes` is of the process, or of the GPU where there is one. `outcome` compares what was
    trained with what was saved.
    """

    steps: int
    seconds: float
    tokens: int
    losses: tuple[float, ...]
    eval_loss: float | None
    device: str
    evaluations: tuple[TrainingEvaluation, ...] = ()
    taken: int = 0
    why: str = "the last step"
    resumed: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    peak_memory_bytes: int = 0
    outcome: ConversionResult | None = None

    @property
    def tokens_per_second(self) -> float:
        """Return the training speed; prompt tokens count, padding does not."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def first_loss(self) -> float:
        """Return the mean loss over the first tenth of the steps."""
        return _mean(self.losses[: max(1, len(self.losses) // 10)])

    @property
    def last_loss(self) -> float:
        """Return the mean loss over the last tenth of the steps."""
        return _mean(self.losses[-max(1, len(self.losses) // 10) :])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
