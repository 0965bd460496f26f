"""The three things that a source can be made into, each compared with the source before it is kept.

Owns the order of the steps, so that one model at a time is in memory, and the tolerances.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.canonical import readable_json
from registry.errors import InvalidAdapter, UsageError
from train.merging.documents import REPORT_NAME, ExtractionReport, MergeReport, ParityReport
from train.merging.loading import load_adapted, load_model
from train.merging.sources import Kind, Source
from train.merging.staging import new_folder
from train.recorded_base import check_base

if TYPE_CHECKING:
    from torch import Tensor

    from registry.records import BaseModel
    from train.merging.parity import Parity

# The mean KL divergence (nats) up to which a merged model is the same as base and adapter, by its dtype; and
# the largest share of the adapter's effect that may be lost. Measured: README, Parity.
TOLERANCES = {"float32": 1e-8, "float16": 1e-4, "bfloat16": 1e-2}
LOST = 0.3
_PACKAGES = ("wardrobe-llm", "torch", "transformers", "peft")

Notice = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made of which source; `notice` is told of each step."""

    source: Source
    base: BaseModel
    out: Path
    notice: Notice


@dataclass(frozen=True, slots=True)
class _Original:
    """The answers to copy, and those of the base to tell how much there is to copy."""

    ids: Sequence[Sequence[int]]
    logits: list[Tensor]
    base: list[Tensor]

    def compare(self, model: Any) -> Parity:
        from train.merging.parity import compare, probe_logits

        return compare(self.logits, probe_logits(model, self.ids), self.base)


def make_model(order: Order, dtype: str | None) -> MergeReport:
    """Merge an adapter into the base and write an ordinary model folder.

    Takes 4 bytes of memory per parameter of the base, the adapter, and one shard while saving.

    Raises: InvalidAdapter: when the saved model does not answer as base and adapter do; nothing is kept.
    """
    from train.merging.model import merge, save_merged, stored_dtype

    if order.source.kind is Kind.MODEL:
        fact = "is a whole model already; only an adapter can be merged into one"
        raise UsageError(order.source.name, fact, "give an adapter, or use --as lora", param="source")
    started = time.monotonic()
    check_base(order.base)
    dtype = dtype or stored_dtype(order.base.path)
    with new_folder(order.out) as folder:
        adapted, original = _adapted(order)
        order.notice("merging")
        merged = merge(adapted, order.source.name)
        save_merged(merged, dtype, order.base.path, order.source.folder, folder)
        del adapted, merged
        order.notice("comparing the saved model")
        parity = original.compare(load_model(folder))
        _check_parity(parity, dtype)
        report = _report(order, "model", dtype, ParityReport.of(parity, TOLERANCES[dtype]), None, started)
        _write(report, folder)
    return report


def make_lora(order: Order, rank: int | None, max_rank: int, accept_residual: float) -> MergeReport:
    """Turn an adapter of any kind, or a full fine-tune, into a plain LoRA folder.

    Raises: InvalidAdapter: when the LoRA would leave out more than `accept_residual`; nothing is kept.
    """
    from train.merging.extraction import extract_lora
    from train.merging.weights import FolderWeights

    started = time.monotonic()
    check_base(order.base)
    with new_folder(order.out) as folder:
        adapted, original = _adapted(order)
        order.notice("taking the difference apart")
        changed = FolderWeights(order.source.folder) if order.source.kind is Kind.MODEL else adapted
        found = extract_lora(
            order.base.path, changed, folder, rank=rank, max_rank=max_rank, accept_residual=accept_residual
        )
        del adapted, changed
        order.notice("comparing the LoRA")
        lora = Source(str(order.out), folder, Kind.ADAPTER, "")
        parity = original.compare(load_adapted(load_model(order.base.path), lora))
        extraction = ExtractionReport.of(found, accept_residual)
        report = _report(order, "lora", "float32", ParityReport.of(parity, None), extraction, started)
        _write(report, folder)
    return report


def make_gguf(order: Order, dtype: str | None) -> MergeReport:
    """Write base plus adapter, or a fine-tuned model, as `model.gguf` into a new folder.

    Takes 4 bytes of memory per parameter, and the size of the file.

    Raises: UsageError: for a model that the writer does not know; InvalidAdapter: as `make_model`.
    """
    from train.merging.gguf_file import check_exportable, load_gguf, write_gguf
    from train.merging.model import merge, stored_dtype

    started = time.monotonic()
    check_base(order.base)
    check_exportable(order.base.path)
    dtype = dtype or stored_dtype(order.base.path)
    with new_folder(order.out) as folder:
        model, original = _adapted(order)
        order.notice("writing")
        if order.source.kind is Kind.ADAPTER:
            model = merge(model, order.source.name)
        file = write_gguf(model, order.base.path, dtype, folder)
        del model
        order.notice("comparing the file")
        parity = original.compare(load_gguf(file))
        _check_parity(parity, dtype)
        report = _report(order, "gguf", dtype, ParityReport.of(parity, TOLERANCES[dtype]), None, started)
        _write(report, folder)
    return report


def _adapted(order: Order) -> tuple[Any, _Original]:
    """Return the model as it was trained, with its answers."""
    from train.merging.parity import probe_ids, probe_logits

    order.notice("loading the base")
    ids = probe_ids(order.base.path)
    model = load_model(order.base.path)
    base_logits = probe_logits(model, ids)
    order.notice(f"loading {order.source.name}")
    if order.source.kind is Kind.MODEL:
        del model
        model = load_model(order.source.folder)
    else:
        model = load_adapted(model, order.source)
    return model, _Original(ids, probe_logits(model, ids), base_logits)


def _check_parity(parity: Parity, dtype: str) -> None:
    if parity.kl <= TOLERANCES[dtype] and parity.lost <= LOST:
        return
    fact = (
        f"does not answer as base and adapter do: KL {parity.kl:.2g} nats (allowed {TOLERANCES[dtype]:.2g}), "
        f"{parity.lost:.0%} of what the adapter changes is lost (allowed {LOST:.0%}), "
        f"first choice equal at {parity.top1:.1%}"
    )
    remedy = "serve it as an adapter"
    if dtype == "bfloat16":  # its 8 bits swallow small differences to large weights
        remedy = f"keep more digits (--dtype float16 or float32), or {remedy}"
    raise InvalidAdapter(f"merged model in {dtype}", fact, remedy, reason="digest")


def _report(
    order: Order,
    form: str,
    dtype: str,
    parity: ParityReport,
    extraction: ExtractionReport | None,
    started: float,
) -> MergeReport:
    return MergeReport(
        form=form,
        out=str(order.out),
        source=order.source.name,
        source_digest=order.source.digest,
        base=order.base.name,
        base_fingerprint=order.base.fingerprint,
        dtype=dtype,
        parity=parity,
        extraction=extraction,
        seconds=round(time.monotonic() - started, 1),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def _write(report: MergeReport, folder: Path) -> None:
    # Names of this machine's folders are for whoever called, not for whoever is given the folder.
    kept = report.model_copy(update={"out": Path(report.out).name, "source": Path(report.source).name})
    (folder / REPORT_NAME).write_bytes(readable_json(kept.model_dump(mode="json")))
