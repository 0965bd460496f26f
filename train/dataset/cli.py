"""`wardrobe data check|split|report|mask|repair|trace|annotations`.

Owns the options of these commands and the order of what they do; `display` owns what a person sees.
Imports nothing heavy at its top.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, local_options, pass_session
from registry.errors import Conflict, UsageError
from train.annotations.cli import annotations_
from train.dataset.containers.place import DataPath, label_of
from train.dataset.options import (
    FILE,
    PLACE,
    accept_option,
    base_of_root,
    base_option,
    columns_option,
    length_option,
    reading_of,
    root_of,
    split_option,
)
from train.dataset.repair.cli import repair

if TYPE_CHECKING:
    from train.dataset.documents import DataReport, SplitDocument
    from train.dataset.rendering import Rendering
    from train.dataset.split import SplitSettings


@click.group()
def data() -> None:
    """Check, split and show the data that adapters are trained on."""


data.add_command(annotations_)
data.add_command(repair)


@data.command()
@click.argument("files", nargs=-1, required=True, type=PLACE, metavar="FILE...")
@base_option
@length_option
@split_option
@columns_option
@accept_option
@local_options
@pass_session
def check(
    session: Session,
    files: tuple[DataPath, ...],
    base: Path | None,
    max_length: int,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> int:
    """Check the files of one data set (train, validation, test).

    Takes chat (OpenAI, ShareGPT), Alpaca, prompt/completion/context, preference (TRL, OpenAI), KTO and
    text rows. FILE is JSON Lines, JSON, CSV, Parquet, Arrow or text, also compressed; a folder, a pattern,
    a Hugging Face data set folder, or hf://ORG/NAME. Every finding has an id, its rows and a remedy; the
    exit code is 1 when one is an error. With a base the rows are rendered as training would.
    """
    from train.dataset.display import print_report

    document = _check(session, files, base, max_length, columns, accept)
    if session.as_json:
        output.print_json(document)
    else:
        print_report(document)
    return 0 if document.ok else 1


@data.command()
@click.argument("files", nargs=-1, required=True, type=PLACE, metavar="FILE...")
@click.option(
    "--out", type=FILE, metavar="DIR", default=Path(), help="Folder for the two files (default: here)."
)
@base_option
@length_option
@split_option
@columns_option
@accept_option
@local_options
@pass_session
def report(
    session: Session,
    files: tuple[DataPath, ...],
    out: Path,
    base: Path | None,
    max_length: int,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Check FILEs and write an HTML and a JSON report.

    The files are named after the first FILE. The page loads nothing and has no JavaScript.
    """
    from registry.storage import files as store
    from train.dataset.page import page

    document = _check(session, files, base, max_length, columns, accept)
    written = {".html": page(document), ".json": document.model_dump_json(indent=2) + "\n"}
    store.make_directory(out)
    for suffix, text in written.items():
        path = out / f"{label_of(files[0])}.report{suffix}"
        store.replace(path, text.encode("utf-8", "backslashreplace"))
        output.print_line(str(path))


@data.command()
@click.argument("file", type=PLACE)
@click.option(
    "--parts",
    default="train=0.8,validation=0.1,test=0.1",
    show_default=True,
    metavar="NAME=SHARE,…",
    help="The parts and their shares.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the random order.",
)
@click.option("--group", metavar="KEY", help="Rows with the same value of KEY stay in one part.")
@click.option(
    "--stratify", metavar="KEY", help="Spread the values of KEY evenly; `answer` for the last answer."
)
@click.option("--canonical", is_flag=True, help="Rewrite the rows in the canonical form.")
@click.option("--out", type=FILE, metavar="DIR", help="Write the parts to the new folder DIR.")
@split_option
@columns_option
@accept_option
@local_options
@pass_session
def split(
    session: Session,
    file: DataPath,
    parts: str,
    seed: int,
    group: str | None,
    stratify: str | None,
    canonical: bool,
    out: Path | None,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Split FILE into parts that share no content; store them by hash.

    Rows that are equal, nearly equal or ask the same stay together. Each part comes with the row numbers
    of FILE. Without a root give --out. The same file, seed and options give the same bytes.
    """
    from train.dataset.checks.acceptance import parse_acceptance
    from train.dataset.display import print_split
    from train.dataset.split import SplitSettings

    settings = SplitSettings(
        _shares(parts),
        seed,
        group,
        stratify,
        canonical,
        reading_of(columns, accept),
        parse_acceptance(accept).written,
    )
    document = _split(session, file, settings, out)
    if session.as_json:
        output.print_json(document)
    else:
        print_split(document)


@data.command()
@click.argument("file", type=PLACE)
@click.option(
    "--row",
    "rows",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="Row to show. May be repeated.",
)
@base_option
@length_option
@split_option
@columns_option
@accept_option
@local_options
@pass_session
def mask(
    session: Session,
    file: DataPath,
    rows: tuple[int, ...],
    base: Path | None,
    max_length: int,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Show which tokens of FILE's rows are trained on, and why.

    Shows the first three rows unless --row is given. In colours on a terminal, else as JSON.
    """
    from train.dataset.display import print_masked
    from train.dataset.documents import MaskedDocument
    from train.dataset.mask import mask_file
    from train.dataset.rendering import load_tokenizer_of

    folder = base or base_of_root(session)
    if folder is None:
        raise UsageError("data mask", "needs a tokenizer", "give --base or --root", param="base")
    tokenizer = load_tokenizer_of(folder)
    masked = list(mask_file(file, frozenset(rows), tokenizer, max_length, reading_of(columns, accept)))
    if session.as_json or not sys.stdout.isatty():
        output.print_json([MaskedDocument.of(one) for one in masked])
        return
    for one in masked:
        print_masked(one)


@data.command()
@click.argument("name", metavar="NAME@N")
@click.option("--row", type=click.IntRange(min=1), metavar="N", help="A row of the file that was trained on.")
@local_options
@pass_session
def trace(session: Session, name: str, row: int | None) -> None:
    """Show the data sets, or one row, that a version was trained on.

    Follows the hash in the version's lineage to the root's data sets.
    """
    from registry.store import Registry
    from train.dataset.trace import trace_version

    found = trace_version(Registry.open(session.require_local("data trace")), name, row)
    if session.as_json:
        output.print_json(found)
        return
    for one in found:
        stored = (
            f"{one.dataset[:12]} {one.part}, of {one.source}"
            if one.dataset
            else "in no data set of this root"
        )
        line = f", row {row} is its row {one.source_row}" if one.source_row else ""
        output.print_line(f"{one.use}: sha256 {one.sha256[:12]}: {stored}{line}")


def _check(
    session: Session,
    files: Sequence[DataPath],
    base: Path | None,
    max_length: int,
    columns: Sequence[str],
    accept: Sequence[str],
) -> DataReport:
    from train.dataset.checks.acceptance import parse_acceptance
    from train.dataset.checks.check import check_files
    from train.dataset.containers.folders import places_in
    from train.dataset.documents import DataReport
    from train.dataset.progress import LateProgress

    folder = base or base_of_root(session)
    rendering = _rendering(folder, max_length)
    places = [place for file in files for place in places_in(file)]
    with LateProgress() as progress:
        checked = check_files(
            places, rendering, progress, reading_of(columns, accept), parse_acceptance(accept)
        )
    return DataReport.of(checked, folder.name if folder else None, max_length if folder else None)


def _split(session: Session, file: DataPath, settings: SplitSettings, out: Path | None) -> SplitDocument:
    from registry.entries.datasets import publish_dataset
    from train.dataset.documents import SplitDocument
    from train.dataset.progress import LateProgress
    from train.dataset.split import new_folder, split_file

    root = root_of(session)
    if root is None and out is None:
        raise UsageError("data split", "has nowhere to write", "give --out or --root", param="out")
    if out is not None and out.exists():
        raise Conflict(str(out), "exists", "name a new folder", param="out")
    with new_folder(out) as folder:
        with LateProgress() as progress:
            found = split_file(file, settings, folder, progress)
        stored = publish_dataset(root, found.files, found.facts) if root is not None else None
    return SplitDocument(
        rows=found.rows,
        clusters=found.clusters,
        digest=stored[0].digest if stored else None,
        created=stored[1] if stored else True,
        dataset=str(stored[0].path) if stored else None,
        out=str(out) if out else None,
    )


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = 0.0
        if not name.isidentifier() or not 0 < shares[name] <= 1:
            remedy = "write NAME=SHARE with 0 < SHARE <= 1, parted by commas"
            raise UsageError("--parts", f"{part.strip()!r} is not a part", remedy, param="parts")
    return shares


def _rendering(folder: Path | None, max_length: int) -> Rendering | None:
    if folder is None:
        output.print_notice(
            "no base: template, token and truncation checks are skipped (give --base or --root)"
        )
        return None
    from train.dataset.rendering import load_rendering

    return load_rendering(folder, max_length)
