"""The three things that a source can be made into, each compared with the source before it is kept.

Owns the order of the steps, so that one model at a time is in memory, and the tolerances.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import InvalidAdapter, UsageError
from registry.validation.canonical import readable_json
from train.merging.documents import REPORT_NAME, MergeReport
from train.merging.loading import load_adapted, load_model
from train.merging.losses import LARGE_RISE, Losses, count, mean_loss, read_examples
from train.merging.sources import MergeSource, SourceKind
from train.merging.staging import new_file, new_folder
from train.model.recorded_base import check_base

if TYPE_CHECKING:
    from torch import Tensor

    from registry.records import BaseModelInfo
    from train.epoch.encoding import Example
    from train.merging.extraction import Extraction
    from train.merging.parity import LogitParity

# The mean KL divergence (nats) up to which a merged model is the same as base and adapter, by its dtype; and
# the largest share of the adapter's effect that may be lost. Measured: README, Parity.
TOLERANCES = {"float32": 1e-8, "float16": 1e-4, "bfloat16": 1e-2}
LOST = 0.3
EXACT = "float32"
"""The default: a merge into it loses nothing. bf16 lost 6 % of a small adapter's loss (README, Parity)."""
_WEIGHTS = frozenset({".safetensors", ".gguf"})
_PACKAGES = ("wardrobe-llm", "torch", "transformers", "peft")

Notice = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What is to be made of which source; `notice` is told of each step.

    The loss on the rows of `data` is measured before and after, where they are given.
    """

    source: MergeSource
    base: BaseModelInfo
    out: Path
    notice: Notice
    data: Path | None = None


@dataclass(frozen=True, slots=True)
class _Original:
    """The answers to copy, and those of the base to tell how much there is to copy; the same of the rows."""

    ids: Sequence[Sequence[int]]
    logits: list[Tensor]
    base: list[Tensor]
    examples: Sequence[Example]
    losses: Losses | None

    def compare(self, model: Any) -> LogitParity:
        from train.merging.parity import compare, probe_logits

        return compare(self.logits, probe_logits(model, self.ids), self.base)

    def loss(self, model: Any) -> Losses | None:
        if self.losses is None:
            return None
        return replace(self.losses, after=mean_loss(model, self.examples))


def make_model(order: MergeRequest, dtype: str | None) -> MergeReport:
    """Merge an adapter into the base and write an ordinary model folder; `dtype` defaults to `EXACT`.

    Takes 4 bytes of memory per parameter of the base, the adapter, and one shard while saving.

    Raises: InvalidAdapter: when the saved model does not answer as base and adapter do; nothing is kept.
    """
    from train.merging.model import merge, save_merged

    if order.source.kind is SourceKind.MODEL:
        fact = "is a whole model already; only an adapter can be merged into one"
        raise UsageError(order.source.name, fact, "give an adapter, or use --as lora", param="source")
    started = time.monotonic()
    check_base(order.base)
    dtype = dtype or EXACT
    with new_folder(order.out) as folder:
        adapted, original = _adapted(order)
        order.notice("merging")
        merged = merge(adapted, order.source.name)
        save_merged(merged, dtype, order.base.path, order.source.folder, folder)
        del adapted, merged
        order.notice("comparing the saved model")
        made = load_model(folder)
        parity = original.compare(made)
        _check_parity(parity, dtype)
        report = _report(order, "model", dtype, parity, original.loss(made), folder, started)
        _write(report, folder)
    return report


def make_lora(order: MergeRequest, rank: int | None, max_rank: int, accept_residual: float) -> MergeReport:
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
        changed = FolderWeights(order.source.folder) if order.source.kind is SourceKind.MODEL else adapted
        found = extract_lora(
            order.base.path, changed, folder, rank=rank, max_rank=max_rank, accept_residual=accept_residual
        )
        del adapted, changed
        order.notice("comparing the LoRA")
        lora = MergeSource(str(order.out), folder, SourceKind.ADAPTER, "")
        made = load_adapted(load_model(order.base.path), lora)
        loss = original.loss(made)
        report = _report(order, "lora", EXACT, original.compare(made), loss, folder, started, found)
        _write(report, folder)
    return report


def make_gguf(order: MergeRequest, dtype: str | None) -> MergeReport:
    """Write base plus adapter, or a fine-tuned model, as a GGUF file; `dtype` may be a kind of blocks.

    The file is `order.out` where that ends in .gguf, else `model.gguf` in a new folder. Takes 4 bytes of
    memory per parameter, and the size of the file.

    Raises: UsageError: for a model that the writer does not know; InvalidAdapter: as `make_model`.
    """
    from train.merging.gguf.gguf_file import GGUF_NAME, check_exportable, load_gguf, write_gguf
    from train.merging.model import merge

    started = time.monotonic()
    check_base(order.base)
    check_exportable(order.base.path)
    dtype = dtype or EXACT
    with _place(order.out) as folder:
        model, original = _adapted(order)
        order.notice("writing")
        if order.source.kind is SourceKind.ADAPTER:
            model = merge(model, order.source.name)
        file = write_gguf(model, order.base.path, dtype, folder / GGUF_NAME)
        del model
        order.notice("comparing the file")
        made = load_gguf(file)
        parity = original.compare(made)
        _check_parity(parity, dtype)
        report = _report(order, "gguf", dtype, parity, original.loss(made), folder, started)
        _write(report, folder)
    return report


def make_gguf_lora(order: MergeRequest) -> MergeReport:
    """Write a plain LoRA as a GGUF adapter for llama.cpp, in fp32; places as `make_gguf`.

    Raises: UsageError: for a base that the writer does not know; InvalidAdapter: no plain LoRA, or the file
        does not answer as base and adapter do.
    """
    from train.merging.gguf.gguf_adapter import ADAPTER_NAME, apply_adapter, check_adapter, write_adapter

    started = time.monotonic()
    check_base(order.base)
    if order.source.kind is SourceKind.MODEL:
        remedy = "give an adapter, or make one: `wardrobe train merge SOURCE LORA --as lora`"
        raise UsageError(order.source.name, "is a whole model, and no adapter", remedy, param="source")
    check_adapter(order.source.folder, order.base.path, order.source.name)
    with _place(order.out) as folder:
        _, original = _adapted(order)
        order.notice("writing")
        file = write_adapter(order.source.folder, order.base.path, folder / ADAPTER_NAME)
        order.notice("comparing the file")
        made = apply_adapter(load_model(order.base.path), file, order.base.path)
        parity = original.compare(made)
        _check_parity(parity, EXACT)
        report = _report(order, "gguf-lora", EXACT, parity, original.loss(made), folder, started)
        _write(report, folder)
    return report


def _place(out: Path) -> AbstractContextManager[Path]:
    return new_file(out, REPORT_NAME) if out.suffix == ".gguf" else new_folder(out)


def _adapted(order: MergeRequest) -> tuple[Any, _Original]:
    """Return the model as it was trained, with its answers."""
    from train.merging.parity import probe_ids, probe_logits

    examples = () if order.data is None else read_examples(order.data, order.base.path)
    order.notice("loading the base")
    ids = probe_ids(order.base.path)
    model = load_model(order.base.path)
    base_logits, base_loss = probe_logits(model, ids), mean_loss(model, examples)
    order.notice(f"loading {order.source.name}")
    if order.source.kind is SourceKind.MODEL:
        del model
        model = load_model(order.source.folder)
    else:
        model = load_adapted(model, order.source)
    losses = None
    if order.data is not None:
        before = mean_loss(model, examples)
        losses = Losses(order.data.name, len(examples), count(examples), base_loss, before)
    return model, _Original(ids, probe_logits(model, ids), base_logits, examples, losses)


def _check_parity(parity: LogitParity, dtype: str) -> None:
    allowed = TOLERANCES.get(dtype)
    if allowed is None or (parity.kl <= allowed and parity.lost <= LOST):
        return
    fact = (
        f"does not answer as base and adapter do: KL {parity.kl:.2g} nats (allowed {allowed:.2g}), "
        f"{parity.lost:.0%} of what the adapter changes is lost (allowed {LOST:.0%}), "
        f"first choice equal at {parity.top1:.1%}"
    )
    remedy = "serve it as an adapter"
    if dtype == "bfloat16":  # its 8 bits swallow small differences to large weights
        remedy = f"keep more digits (--dtype float16 or float32), or {remedy}"
    raise InvalidAdapter(f"merged model in {dtype}", fact, remedy, reason="digest")


def _report(
    order: MergeRequest,
    form: str,
    dtype: str,
    parity: LogitParity,
    loss: Losses | None,
    folder: Path,
    started: float,
    extraction: Extraction | None = None,
) -> MergeReport:
    return MergeReport(
        form=form,
        out=str(order.out),
        source=order.source.name,
        source_digest=order.source.digest,
        base=order.base.name,
        base_fingerprint=order.base.fingerprint,
        dtype=dtype,
        size_bytes=sum(one.stat().st_size for one in folder.iterdir() if one.suffix in _WEIGHTS),
        parity=replace(parity, tolerance=None if form == "lora" else TOLERANCES.get(dtype)),
        loss=loss,
        extraction=extraction,
        warnings=list(_warnings(form, dtype, parity, loss)),
        seconds=round(time.monotonic() - started, 1),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def _warnings(form: str, dtype: str, parity: LogitParity, loss: Losses | None) -> Iterator[str]:
    keeps = "--as gguf-lora keeps all of it" if form == "gguf" else "--dtype float32 keeps all of it"
    remedy = "a larger --accept-residual is no remedy, a higher --rank is" if form == "lora" else keeps
    if loss is not None:
        if loss.after > loss.before * (1 + LARGE_RISE):
            rise = (loss.after - loss.before) / loss.before
            yield f"the loss on {loss.file} rose by {rise:.1%} in {dtype}; {remedy}"
    elif form != "lora" and parity.lost > LARGE_RISE:
        yield f"{parity.lost:.1%} of what training changed is lost in {dtype}; {remedy}"


def _write(report: MergeReport, folder: Path) -> None:
    # Names of this machine's folders are for whoever called, not for whoever is given the folder.
    kept = report.model_copy(update={"out": Path(report.out).name, "source": Path(report.source).name})
    (folder / REPORT_NAME).write_bytes(readable_json(kept.model_dump(mode="json")))
