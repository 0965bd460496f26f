"""The JSON report of a merge: `merge.json` in the new folder, and what `--json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from registry.api.documents import Document

if TYPE_CHECKING:
    from train.merging.extraction import Extraction
    from train.merging.losses import Losses
    from train.merging.parity import LogitParity

REPORT_NAME = "merge.json"


class ParityReport(Document):
    """The logits of the result against those of base and source together, in fp32 (`parity.Parity`).

    `tolerance` is the mean KL divergence that was allowed; null where the residual was the limit.
    """

    probes: int
    positions: int
    max_difference: float
    mean_difference: float
    kl: float
    top1: float
    effect: float
    lost: float
    tolerance: float | None

    @classmethod
    def of(cls, parity: LogitParity, tolerance: float | None) -> Self:
        """Describe a comparison."""
        return cls(
            probes=parity.probes,
            positions=parity.positions,
            max_difference=parity.max_difference,
            mean_difference=parity.mean_difference,
            kl=parity.kl,
            top1=parity.top1,
            effect=parity.effect,
            lost=parity.lost,
            tolerance=tolerance,
        )


class ModuleReport(Document):
    """One module of an extracted LoRA: the norm of its difference, and the part that is left out."""

    module: str
    norm: float
    residual: float


class UnheldReport(Document):
    """A changed weight that the LoRA does not hold, with the norm of its difference."""

    name: str
    norm: float


class ExtractionReport(Document):
    """What an extracted LoRA holds; `residual` is over everything that changed (Frobenius norm, relative)."""

    rank: int
    norm: float
    residual: float
    accepted_residual: float
    modules: list[ModuleReport]
    unheld: list[UnheldReport]

    @classmethod
    def of(cls, found: Extraction, accepted: float) -> Self:
        """Describe an extraction."""
        return cls(
            rank=found.rank,
            norm=found.norm,
            residual=found.residual,
            accepted_residual=accepted,
            modules=[
                ModuleReport(module=one.module, norm=one.norm, residual=one.residual) for one in found.modules
            ],
            unheld=[UnheldReport(name=one.name, norm=one.norm) for one in found.unheld],
        )


class LossReport(Document):
    """Mean losses (nats per learnt token) on rows of the user's, in fp32: base, source, and what was made."""

    file: str
    rows: int
    tokens: int
    base: float
    before: float
    after: float

    @classmethod
    def of(cls, losses: Losses) -> Self:
        """Describe the losses."""
        return cls(
            file=losses.file,
            rows=losses.rows,
            tokens=losses.tokens,
            base=losses.base,
            before=losses.before,
            after=losses.after,
        )


class MergeReport(Document):
    """What was made of what.

    `form` is `model`, `lora`, `gguf` or `gguf-lora`; `extraction` is only there for `lora`, `loss` where rows
    were given. `dtype` may be a kind of quantised blocks; `size_bytes` is of the weights. `warnings` are for
    a person.
    """

    form: str
    out: str
    source: str
    source_digest: str
    base: str
    base_fingerprint: str
    dtype: str
    size_bytes: int
    parity: ParityReport
    loss: LossReport | None
    extraction: ExtractionReport | None
    warnings: list[str]
    seconds: float
    packages: dict[str, str]
