"""`wardrobe data annotations`. Imports nothing heavy at its top."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import Conflict, UsageError

if TYPE_CHECKING:
    from train.annotations.agreement import MeasurementLevel
    from train.annotations.documents import AnnotationsDocument
    from train.annotations.reading import AnnotatedItem

_FILE = UserPath()
_SHOWN = 10


@click.command("annotations")
@click.argument("file", type=_FILE)
@click.option(
    "--columns",
    multiple=True,
    metavar="KEY=COLUMN,…",
    help="Columns to read as our keys: item=task,annotator=who,label=rating. May be repeated.",
)
@click.option(
    "--annotators", default="", metavar="COLUMN,…", help="Columns that hold one annotator's labels each."
)
@click.option(
    "--level",
    type=click.Choice(["nominal", "ordinal", "interval"]),
    default="nominal",
    show_default=True,
    help="Scale of the labels for Krippendorff's alpha: nominal, ordinal or interval.",
)
@click.option(
    "--order", default="", metavar="LABEL,…", help="The labels from low to high, where not numbers."
)
@click.option(
    "--rule",
    type=click.Choice(["majority", "plurality", "unanimous", "median"]),
    default="majority",
    show_default=True,
    help="How labels become one: majority (more than half), plurality (most frequent), unanimous, median.",
)
@click.option(
    "--least", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
    help="Labels that an item needs for a consensus.",
)  # fmt: skip
@click.option("--out", type=_FILE, metavar="FILE", help="Write the consensus to FILE, as rows for training.")
@click.option(
    "--disputed",
    type=_FILE,
    metavar="FILE",
    help="Write the items without a consensus to FILE, with all labels.",
)
@local_options
@pass_session
def annotations_(
    session: Session,
    file: Path,
    columns: tuple[str, ...],
    annotators: str,
    level: str,
    order: str,
    rule: str,
    least: int,
    out: Path | None,
    disputed: Path | None,
) -> None:
    """Measure how far annotators agree, and merge their labels.

    Rows are `item`, `annotator` and `label`, or `labels` by annotator or as a list, or `annotations`. Shows
    Krippendorff's alpha with its 95 % interval, each annotator against the consensus, and what is disputed.
    """
    from train.annotations.agreement import MeasurementLevel
    from train.annotations.consensus import ConsensusRule
    from train.annotations.reading import AnnotationColumns, parse_keys, read_annotations
    from train.annotations.report import AnnotationQuestion, decisions, describe

    _refuse_existing(out, disputed)
    read = AnnotationColumns(parse_keys(columns), _parts(annotators))
    items = read_annotations(file, read)
    chosen, wanted = MeasurementLevel(level), ConsensusRule(rule)
    ranked = (
        MeasurementLevel.ORDINAL
        if wanted is ConsensusRule.MEDIAN and chosen is MeasurementLevel.NOMINAL
        else chosen
    )
    asked = AnnotationQuestion(chosen, wanted, least, _order(file, items, ranked, _parts(order)))
    made = decisions(items, asked)
    written = [None if path is None else str(path) for path in (out, disputed)]
    document = describe(str(file), items, made, asked, written)
    _write(items, [one.label for one in made], out, disputed)
    output.print_json(document) if session.as_json else _print(document)


def _order(
    file: Path, items: Sequence[AnnotatedItem], level: MeasurementLevel, given: Sequence[str]
) -> list[str]:
    from train.annotations.agreement import labels_in_order

    labels = dict.fromkeys((label for item in items for label in item.labels.values()), 1)
    try:
        return labels_in_order(labels, level, given)
    except ValueError as error:
        remedy = "give --order LOW,…,HIGH with every label" if level != "interval" else "use another --level"
        raise UsageError(str(file), str(error), remedy, param="order") from error


def _write(
    items: Sequence[AnnotatedItem], labels: Sequence[str | None], out: Path | None, disputed: Path | None
) -> None:
    from train.annotations.consensus import training_row

    pairs = list(zip(items, labels, strict=True))
    if out is not None:
        _write_rows(out, (training_row(item, label) for item, label in pairs if label is not None))
    if disputed is not None:
        _write_rows(
            disputed,
            (
                {"id": item.id, **item.content, "labels": item.labels}
                for item, label in pairs
                if label is None
            ),
        )


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    from registry.storage import files

    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.make_directory(path.parent)
    files.replace(path, text.encode("utf-8", "backslashreplace"))


def _refuse_existing(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and path.exists():
            raise Conflict(str(path), "exists", "name a new file", param="out")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _print(found: AnnotationsDocument) -> None:
    agreement = "-" if found.alpha is None else f"{found.alpha:.3f}"
    if found.low is not None and found.high is not None:
        agreement += f" ({found.low:.3f} to {found.high:.3f})"
    output.print_facts(
        [
            ("items", f"{found.items:,}, {found.compared:,} with two labels and more"),
            (
                "labels",
                f"{found.annotations:,} by {len(found.annotators)} annotators, of {len(found.labels)} kinds",
            ),
            ("alpha", f"{agreement}, {found.level}: {_meaning(found)}"),
            ("consensus", f"{found.decided:,} by {found.rule}; {len(found.disputed):,} disputed"),
        ]
    )
    rows = [
        (
            one.name,
            f"{one.labels:,}",
            "-" if one.share is None else f"{one.share:.3f} ({one.low:.3f} to {one.high:.3f})",
            "-" if one.alpha_without is None else f"{one.alpha_without:.3f}",
        )
        for one in found.annotators
    ]
    output.print_line("")
    output.print_table(("annotator", "labels#", "agrees with the consensus#", "alpha without#"), rows)
    for pair in found.confused[:3]:
        output.print_line(f"{pair.labels[0]} / {pair.labels[1]}: {pair.pairs:,} pairs of labels")
    for one in found.disputed[:_SHOWN]:
        said = ", ".join(f"{name} {label}" for name, label in one.labels.items())
        output.print_line(f"disputed: {one.item[:80]} (row {one.row}), {one.why}: {said}")
    if len(found.disputed) > _SHOWN:
        output.print_notice(f"{len(found.disputed) - _SHOWN:,} more are disputed: --disputed FILE, --json")


def _meaning(found: AnnotationsDocument) -> str:
    """Return Krippendorff's reading of alpha (Content Analysis, chapter on reliability)."""
    if found.alpha is None:
        return "nothing to compare" if len(found.labels) > 1 else "all labels are the same"
    if found.alpha >= 0.8:
        return "reliable (0.8 and more)"
    return (
        "for tentative conclusions only (0.667 to 0.8)"
        if found.alpha >= 0.667
        else "not reliable (below 0.667)"
    )
