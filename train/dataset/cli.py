"""`wardrobe data check|split|report|mask`.

Owns what a person sees of a data set's check. Imports nothing heavy at its top.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, common_options, pass_session

if TYPE_CHECKING:
    from train.dataset.documents import DataReport, FindingDocument
    from train.dataset.rendering import Rendering

_FILE = click.Path(path_type=Path)
_LAYOUT = "layout.json"
_SHOWN_ROWS = 8
_SHOWN_EXAMPLES = 3
_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_base_option = click.option(
    "--base", type=_FILE, metavar="DIR", help="Model folder for the token checks (default: the root's base)."
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


@data.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@_base_option
@_length_option
@common_options
@pass_session
def check(session: Session, files: tuple[Path, ...], base: Path | None, max_length: int) -> int:
    """Check FILEs, which are the parts of one data set: train, validation, test.

    Takes chat (OpenAI, ShareGPT), Alpaca, prompt/completion/context, preference (TRL, OpenAI), KTO and
    text rows, as JSON Lines, a JSON array, or .txt. Every finding has an id, its rows and a remedy; the
    exit code is 1 when one is an error. With a base the rows are rendered as training would.
    """
    document = _check(session, files, base, max_length)
    if session.as_json:
        output.print_json(document)
    else:
        _print_report(document)
    return 0 if document.ok else 1


def _check(session: Session, files: Sequence[Path], base: Path | None, max_length: int) -> DataReport:
    from train.dataset.check import check_files
    from train.dataset.documents import DataReport
    from train.dataset.progress import LateProgress

    folder = base or _base_of_root(session)
    rendering = _rendering(folder, max_length)
    total = sum(path.stat().st_size for path in files if path.is_file())
    with LateProgress("checking", total) as progress:
        checked = check_files(files, rendering, progress.advance)
    return DataReport.of(checked, folder.name if folder else None, max_length if folder else None)


def _base_of_root(session: Session) -> Path | None:
    root = session.require_local("data")
    if session.root is None and not (root / _LAYOUT).exists():
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


def _print_report(document: DataReport) -> None:
    for file in document.files:
        forms = ", ".join(f"{count} {form}" for form, count in file.forms.items()) or "no readable row"
        output.print_line(f"{file.path}: {output.amount(file.size_bytes)}, {forms}")
    facts = f"{document.rows} rows, {document.distinct} distinct, {document.sets} without near duplicates"
    output.print_line(f"{facts}, {document.unreadable} unreadable")
    for found in document.findings:
        _print_finding(found)
    errors = sum(found.severity == "error" for found in document.findings)
    output.print_line(f"\n{len(document.findings)} kinds of findings, {errors} of them errors".lstrip("\n"))


def _print_finding(found: FindingDocument) -> None:
    mark = click.style(found.severity, fg=_COLOURS[found.severity], bold=True)
    click.echo(f"\n{mark} {found.id}  {found.title}: {found.count} ×; {found.remedy}")
    for name, rows in found.rows.items():
        where = f"{output.shown(name)}: " if len(found.rows) > 1 else ""
        listed = ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", …" if len(rows) > _SHOWN_ROWS else "")
        output.print_line(f"    {where}{'row' if len(rows) == 1 else 'rows'} {listed}")
    for example in found.examples[:_SHOWN_EXAMPLES]:
        output.print_line(f"    row {example.row} {example.fact}")
