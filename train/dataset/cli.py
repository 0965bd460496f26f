"""`wardrobe data check|split|report|mask|repair|trace|annotations`.

Owns the options of these commands and the order of what they do; `display` owns what a person sees.
Imports nothing heavy at its top.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import Conflict, UsageError
from train.annotations.cli import annotations_
from train.dataset.containers.place import Place, label_of

if TYPE_CHECKING:
    from train.dataset.documents import DataReport, SplitDocument
    from train.dataset.forms.mapping import Reading
    from train.dataset.rendering import Rendering
    from train.dataset.split import SplitSettings

_SPLIT = "wardrobe.split"


class _UserPlace(UserPath):
    """Data on the command line: a file, a folder, a pattern or hf://ORG/NAME, and the part of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the place."""
        path = super().convert(value, param, ctx)
        return Place(path, ctx.meta.get(_SPLIT) if ctx else None)


_FILE, _PLACE = UserPath(), _UserPlace()
_LAYOUT = "layout.json"
_base_option = click.option(
    "--base",
    type=_FILE,
    metavar="DIR",
    help="Model folder whose tokenizer is used (default: the root's base).",
)


def _note_split(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_SPLIT] = value


# Read before the paths are, which it belongs to.
_split_option = click.option(
    "--split",
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_note_split,
    help="The part to read of a data set that has several: train, test.",
)
_columns_option = click.option(
    "--columns",
    multiple=True,
    metavar="KEY=COLUMN,…",
    help="Which columns stand for our keys: prompt=frage,completion=antwort. May be repeated.",
)
_accept_option = click.option(
    "--accept",
    multiple=True,
    metavar="ID[:ROW],…",
    help="Findings that you have looked at: D-SECRET, D-SECRET:66, D-SECRET:test.jsonl:66. May be repeated.",
)
_length_option = click.option(
    "--max-length",
    type=click.IntRange(min=2),
    default=1024,
    show_default=True,
    metavar="N",
    help="Tokens that training keeps of a row.",
)


@click.group()
def data() -> None:
    """Check, split and show the data that adapters are trained on."""


data.add_command(annotations_)


@data.command()
@click.argument("files", nargs=-1, required=True, type=_PLACE, metavar="FILE...")
@_base_option
@_length_option
@_split_option
@_columns_option
@_accept_option
@local_options
@pass_session
def check(
    session: Session,
    files: tuple[Place, ...],
    base: Path | None,
    max_length: int,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> int:
    """Check FILEs, which are the parts of one data set: train, validation, test.

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
@click.argument("files", nargs=-1, required=True, type=_PLACE, metavar="FILE...")
@click.option(
    "--out", type=_FILE, metavar="DIR", default=Path(), help="Folder for the two files (default: here)."
)
@_base_option
@_length_option
@_split_option
@_columns_option
@_accept_option
@local_options
@pass_session
def report(
    session: Session,
    files: tuple[Place, ...],
    out: Path,
    base: Path | None,
    max_length: int,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Check FILEs and write NAME.report.html and NAME.report.json, named after the first.

    The page needs no network and no JavaScript: counts, lengths, labels, and every finding with its rows.
    """
    from registry import files as store
    from train.dataset.page import page

    document = _check(session, files, base, max_length, columns, accept)
    written = {".html": page(document), ".json": document.model_dump_json(indent=2) + "\n"}
    store.make_directory(out)
    for suffix, text in written.items():
        path = out / f"{label_of(files[0])}.report{suffix}"
        store.replace(path, text.encode("utf-8", "backslashreplace"))
        output.print_line(str(path))


@data.command()
@click.argument("file", type=_PLACE)
@click.option(
    "--parts",
    default="train=0.8,validation=0.1,test=0.1",
    show_default=True,
    metavar="NAME=SHARE,…",
    help="The parts and their shares.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of the choice."
)
@click.option("--group", metavar="KEY", help="Rows with the same value of KEY stay in one part.")
@click.option(
    "--stratify", metavar="KEY", help="Spread the values of KEY evenly; `answer` for the last answer."
)
@click.option("--canonical", is_flag=True, help="Rewrite the rows in the canonical form.")
@click.option("--out", type=_FILE, metavar="DIR", help="Leave the parts in the new folder DIR.")
@_split_option
@_columns_option
@_accept_option
@local_options
@pass_session
def split(
    session: Session,
    file: Place,
    parts: str,
    seed: int,
    group: str | None,
    stratify: str | None,
    canonical: bool,
    out: Path | None,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Split FILE into parts that share no content, and store them in the root by their hash.

    Rows that are equal, nearly equal or ask the same are never parted. Beside each part lie the row
    numbers of FILE. Without a root give --out. The same file, seed and options give the same bytes.
    """
    from train.dataset.acceptance import parse_acceptance
    from train.dataset.display import print_split
    from train.dataset.split import SplitSettings

    settings = SplitSettings(
        _shares(parts),
        seed,
        group,
        stratify,
        canonical,
        _reading(columns, accept),
        parse_acceptance(accept).written,
    )
    document = _split(session, file, settings, out)
    if session.as_json:
        output.print_json(document)
    else:
        print_split(document)


@data.command()
@click.argument("file", type=_PLACE)
@click.option(
    "--row", "rows", type=click.IntRange(min=1), multiple=True, metavar="N", help="May be repeated."
)
@_base_option
@_length_option
@_split_option
@_columns_option
@_accept_option
@local_options
@pass_session
def mask(
    session: Session,
    file: Place,
    rows: tuple[int, ...],
    base: Path | None,
    max_length: int,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Show for every token of a row of FILE whether it is trained on, and why.

    Shows the first three rows unless --row is given: in colours on a terminal, else as JSON.
    """
    from train.dataset.display import print_masked
    from train.dataset.documents import MaskedDocument
    from train.dataset.mask import mask_file
    from train.dataset.rendering import load_tokenizer_of

    folder = base or _base_of_root(session)
    if folder is None:
        raise UsageError("data mask", "needs a tokenizer", "give --base or --root", param="base")
    tokenizer = load_tokenizer_of(folder)
    masked = list(mask_file(file, frozenset(rows), tokenizer, max_length, _reading(columns, accept)))
    if session.as_json or not sys.stdout.isatty():
        output.print_json([MaskedDocument.of(one) for one in masked])
        return
    for one in masked:
        print_masked(one)


@data.command()
@click.argument("file", type=_PLACE, metavar="IN")
@click.option("--out", type=_FILE, metavar="OUT", required=True, help="The repaired rows, a new .jsonl file.")
@click.option(
    "--rules", multiple=True, metavar="ID,…", help="What is repaired (default: everything that can be)."
)
@click.option("--overwrite", is_flag=True, help="Replace OUT and its report where they exist.")
@_base_option
@_columns_option
@_accept_option
@local_options
@pass_session
def repair(
    session: Session,
    file: Path,
    out: Path,
    rules: tuple[str, ...],
    overwrite: bool,
    base: Path | None,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Repair the rows of IN by the findings that can be, and write OUT and OUT's .report.jsonl.

    Mends encodings, control and invisible characters and special tokens (of the base), masks personal data
    and secrets, drops empty rows, repeats and near repeats. Conflicts are listed only. Rows keep their form.
    """
    from train.dataset.display import print_repaired
    from train.dataset.documents import RepairDocument
    from train.dataset.progress import LateProgress
    from train.dataset.repair import RepairSettings, parse_rules, repair_file

    found = RepairSettings(
        parse_rules(rules),
        _reading(columns, accept),
        _special_tokens(base or _base_of_root(session)),
        overwrite,
    )
    with LateProgress() as progress:
        document = RepairDocument.of(repair_file(file, out, found, progress))
    if session.as_json:
        output.print_json(document)
    else:
        print_repaired(document)


@data.command()
@click.argument("name", metavar="NAME@N")
@click.option("--row", type=click.IntRange(min=1), metavar="N", help="A row of the file that was trained on.")
@local_options
@pass_session
def trace(session: Session, name: str, row: int | None) -> None:
    """Show the data sets that a version was trained on and, with --row, the row of the source.

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
    files: Sequence[Place],
    base: Path | None,
    max_length: int,
    columns: Sequence[str],
    accept: Sequence[str],
) -> DataReport:
    from train.dataset.acceptance import parse_acceptance
    from train.dataset.check import check_files
    from train.dataset.containers.folders import places_in
    from train.dataset.documents import DataReport
    from train.dataset.progress import LateProgress

    folder = base or _base_of_root(session)
    rendering = _rendering(folder, max_length)
    places = [place for file in files for place in places_in(file)]
    with LateProgress() as progress:
        checked = check_files(
            places, rendering, progress, _reading(columns, accept), parse_acceptance(accept)
        )
    return DataReport.of(checked, folder.name if folder else None, max_length if folder else None)


def _split(session: Session, file: Place, settings: SplitSettings, out: Path | None) -> SplitDocument:
    from registry.datasets import publish_dataset
    from train.dataset.documents import SplitDocument
    from train.dataset.progress import LateProgress
    from train.dataset.split import new_folder, split_file

    root = _root(session)
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


def _special_tokens(folder: Path | None) -> tuple[str, ...]:
    if folder is None:
        output.print_notice("no base: special tokens are not looked for (give --base or --root)")
        return ()
    from train.dataset.rendering import load_tokenizer_of

    return tuple(load_tokenizer_of(folder).all_special_tokens)


def _reading(columns: Sequence[str], accept: Sequence[str]) -> Reading:
    from train.dataset.acceptance import parse_acceptance
    from train.dataset.forms.mapping import Reading, parse_columns

    return Reading(parse_columns(columns), parse_acceptance(accept).kinds)


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
            raise UsageError("--parts", f"{part.strip()!r} is no part", remedy, param="parts")
    return shares


def _root(session: Session) -> Path | None:
    root = session.require_local("data")
    if session.root is None and not (root / _LAYOUT).exists():
        return None
    from registry.store import Registry

    return Registry.open(root).root


def _base_of_root(session: Session) -> Path | None:
    root = _root(session)
    if root is None:
        return None
    from registry.store import Registry

    return Registry.open(root).base.path


def _rendering(folder: Path | None, max_length: int) -> Rendering | None:
    if folder is None:
        output.print_notice(
            "no base: template, token and truncation checks are skipped (give --base or --root)"
        )
        return None
    from train.dataset.rendering import load_rendering

    return load_rendering(folder, max_length)
