"""`wardrobe train average`. Imports nothing heavy at its top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session, user_name
from registry.errors import UsageError
from train.averaging.shares import parse_weights
from train.process.interruption import Interruption

if TYPE_CHECKING:
    from train.averaging.documents import AverageReport


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option("--name", metavar="NAME", help="The adapter that gets the average as its next version.")
@click.option("--out", type=UserPath(), metavar="DIR", help="Write it to the new folder DIR instead.")
@click.option(
    "--weights",
    metavar="W,W…",
    help="One number above 0 per source, or rows, or equal (default: rows, if every lineage records them).",
)
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="Rank of the result (default: what is needed, up to max_lora_rank).",
)
@click.option(
    "--accept-residual",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Largest share of the average that the LoRA may lose (Frobenius norm).",
)
@click.option("--alias", metavar="ALIAS", help="Point this alias to the version.")
@click.option("--note", default="", metavar="TEXT", help="Kept with the version.")
@local_options
@pass_session
def average(
    session: Session,
    sources: tuple[str, ...],
    name: str | None,
    out: Path | None,
    weights: str | None,
    rank: int | None,
    accept_residual: float,
    alias: str | None,
    note: str,
) -> None:
    """Average several adapters into one (federated averaging).

    SOURCE is a version of this root (NAME@N), of another root (ROOT:NAME@N), or a folder with a PEFT LoRA.
    Averages their changes to each weight of the base; ranks, scales and modules may differ. Each source is
    checked as in `register`; all must be made for this root's base.
    """
    _check_target(name, out, alias, note)
    from registry.store import Registry
    from train.averaging.products import AveragingRequest, average_to_folder, average_to_version

    registry = Registry.open(session.require_local("train average"))
    with Interruption() as interruption, output.progress(f"average of {len(sources)}", None):
        order = AveragingRequest(sources, parse_weights(weights), rank, accept_residual, interruption.hold)
        if name is None:
            assert out is not None
            report = average_to_folder(order, registry, out)
        else:
            report = average_to_version(order, registry, name, who=user_name(), alias=alias, note=note)
    _show(session, report)


def _check_target(name: str | None, out: Path | None, alias: str | None, note: str) -> None:
    if (name is None) == (out is None):
        fact = "exclude each other" if name is not None else "are both missing"
        raise UsageError("--name and --out", fact, "give one of them", param="name")
    if out is not None and (alias is not None or note):
        fact = "are for a version, and --out registers none"
        raise UsageError("--alias and --note", fact, "leave them out", param="alias")


def _show(session: Session, report: AverageReport) -> None:
    for warning in report.warnings:
        output.print_warning(warning)
    if session.as_json:
        output.print_json(report)
        return
    if report.digest is None:
        output.print_line(str(report.out))
    else:
        known = "" if report.created else "  (the same content was registered already)"
        output.print_line(f"{report.adapter}@{report.version}  {report.digest}{known}")
    output.print_table(
        ("source", "weight#", "rows#", "rank#", "norm#"),
        [
            (s.name, f"{s.weight:.4f}", "-" if s.rows is None else str(s.rows), str(s.rank), f"{s.norm:.4g}")
            for s in report.sources
        ],
    )
    output.print_notice(
        f"weighed by {report.weighed_by}; rank {report.rank} on {report.modules} modules leaves out "
        f"{report.residual:.4f} of the average (rank {report.exact_rank} leaves out nothing); "
        f"agreement {report.agreement:.2f}"
    )
