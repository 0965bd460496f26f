"""`wardrobe train merge`. Imports nothing heavy at its top."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import UsageError
from train.process.interruption import Interruption

if TYPE_CHECKING:
    from train.merging.documents import MergeReport

_FILE = UserPath()
_AUTO = "auto"


@click.command()
@click.argument("source")
@click.argument("out", type=_FILE)
@click.option(
    "--as",
    "form",
    type=click.Choice(["model", "lora", "gguf", "gguf-lora"]),
    default="model",
    show_default=True,
    help="A model folder, a plain LoRA that `wardrobe register` takes, a GGUF file, or a GGUF adapter.",
)
@click.option("--rank", default=_AUTO, metavar="R|auto", show_default=True, help="Rank of the LoRA.")
@click.option(
    "--accept-residual",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Largest share of what was learnt that the LoRA may lose (Frobenius norm; default 0.05).",
)
@click.option(
    "--dtype",
    type=click.Choice([_AUTO, "float32", "bfloat16", "float16"]),
    default=_AUTO,
    show_default=True,
    help="Precision of the merged weights; auto is float32, which keeps everything learnt.",
)
@click.option(
    "--quantize",
    type=click.Choice(["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]),
    help="Write the GGUF file's matrices in 8, 5 or 4 bits (llama.cpp's names).",
)
@click.option(
    "--data", type=_FILE, metavar="FILE", help="Rows on which the loss is measured before and after."
)
@click.option(
    "--initial",
    type=_FILE,
    metavar="DIR",
    help="The adapter before its first step, if its initialisation changed the base (LoRA-GA, CorDA).",
)
@local_options
@pass_session
def merge(
    session: Session,
    source: str,
    out: Path,
    form: str,
    rank: str,
    accept_residual: float | None,
    dtype: str,
    quantize: str | None,
    data: Path | None,
    initial: Path | None,
) -> None:
    """Merge or convert SOURCE and write the result to OUT.

    SOURCE is NAME@N or a folder; OUT is a new folder, or a file that ends in .gguf. --as model puts an
    adapter into the base's weights. --as lora turns what vLLM cannot hot-swap (DoRA,
    PiSSA, OLoRA, or a model whose weights were all trained) into a plain LoRA, by SVD of the difference to
    the base. --as gguf-lora writes a LoRA for llama.cpp and Ollama without merging it. Logits on probe
    prompts are compared with the source's; what misses the tolerance is refused. With --data the loss is
    measured before and after, too.
    """
    _check_options(form, rank, accept_residual, dtype, quantize)
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars; this command shows its own
    from registry.store import Registry
    from train.merging.extraction import ACCEPTED_RESIDUAL
    from train.merging.products import MergeRequest, make_gguf, make_gguf_lora, make_lora, make_model
    from train.merging.sources import find_source
    from train.merging.staging import check_free

    registry = Registry.open(session.require_local("train merge"))
    check_free(out)
    found = find_source(source, registry, initial)
    with Interruption(), output.progress(f"{source} as {form}", None):
        order = MergeRequest(found, registry.base, out, output.print_notice, data)
        chosen = None if dtype == _AUTO else dtype
        if form == "model":
            report = make_model(order, chosen)
        elif form == "gguf":
            report = make_gguf(order, quantize or chosen)
        elif form == "gguf-lora":
            report = make_gguf_lora(order)
        else:
            residual = ACCEPTED_RESIDUAL if accept_residual is None else accept_residual
            report = make_lora(order, _rank(rank), registry.limits.max_lora_rank, residual)
    _show(session, report)


def _check_options(
    form: str, rank: str, accept_residual: float | None, dtype: str, quantize: str | None
) -> None:
    for option, given, forms in (
        ("--rank", rank != _AUTO, ("lora",)),
        ("--accept-residual", accept_residual is not None, ("lora",)),
        ("--dtype", dtype != _AUTO, ("model", "gguf")),
        ("--quantize", quantize is not None, ("gguf",)),
    ):
        if given and form not in forms:
            fact = f"is for --as {' and '.join(forms)}, not --as {form}"
            told = " (a LoRA is stored in float32; the server casts it)" if option == "--dtype" else ""
            raise UsageError(option, f"{fact}{told}", "leave it out", param=option.strip("-"))
    if quantize is not None and dtype != _AUTO:
        fact = f"is {dtype}, and --quantize {quantize} says what the matrices are"
        raise UsageError("--dtype", fact, "leave one of them out", param="dtype")
    _rank(rank)


def _rank(text: str) -> int | None:
    if text == _AUTO:
        return None
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 10_000:
        raise UsageError("--rank", f"is {text!r}", "give a whole number of at least 1, or auto", param="rank")
    return int(text)


def _show(session: Session, report: MergeReport) -> None:
    if session.as_json:
        output.print_json(report)
        return
    output.print_line(report.out)
    if (found := report.extraction) is not None:
        largest = max(found.modules, key=lambda one: one.residual)
        output.print_notice(
            f"rank {found.rank} on {len(found.modules)} modules leaves out {found.residual:.4f} of what was "
            f"learnt (accepted {found.accepted_residual:g}); most on {largest.module}: {largest.residual:.4f}"
        )
        for one in found.unheld[:5]:
            output.print_warning(
                f"{one.name} changed, which no LoRA holds ({one.norm / found.norm:.4f} of it)"
            )
        if len(found.unheld) > 5:
            output.print_warning(f"{len(found.unheld) - 5} more such weights are in merge.json")
    parity = report.parity
    output.print_notice(
        f"logits on {parity.probes} prompts, {parity.positions} positions: largest difference "
        f"{parity.max_difference:.3g}, mean {parity.mean_difference:.3g} ({parity.lost:.1%} of what training "
        f"changed), KL {parity.kl:.2g} nats, first choice equal at {parity.top1:.1%}"
    )
    if (loss := report.loss) is not None:
        output.print_notice(
            f"loss on {loss.file} ({loss.rows} rows, {loss.tokens} learnt tokens): "
            f"{loss.before:.4f} before, {loss.after:.4f} after (the base {loss.base:.4f})"
        )
    output.print_notice(f"{report.dtype}, {output.amount(report.size_bytes)}{_smaller(report)}")
    for text in report.warnings:
        output.print_warning(text)


def _smaller(report: MergeReport) -> str:
    if report.dtype != "float32" or report.form not in {"model", "gguf"}:
        return ""
    half = "--dtype bfloat16 takes half and loses some of it"
    eighth = "; --quantize q8_0 takes a quarter" if report.form == "gguf" else ""
    return f": nothing that was learnt is lost; {half}{eighth}"
