"""`wardrobe data repair`. Imports nothing heavy at its top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, local_options, pass_session
from train.dataset.containers.place import DataPath
from train.dataset.options import (
    FILE,
    PLACE,
    accept_option,
    base_of_root,
    base_option,
    columns_option,
    reading_of,
)

if TYPE_CHECKING:
    from train.dataset.repair.repairing import Repaired


@click.command()
@click.argument("file", type=PLACE, metavar="IN")
@click.option("--out", type=FILE, metavar="OUT", required=True, help="The repaired rows, a new .jsonl file.")
@click.option(
    "--rules", multiple=True, metavar="ID,…", help="Findings to repair (default: all that can be repaired)."
)
@click.option("--overwrite", is_flag=True, help="Replace OUT and its report where they exist.")
@base_option
@columns_option
@accept_option
@local_options
@pass_session
def repair(
    session: Session,
    file: DataPath,
    out: Path,
    rules: tuple[str, ...],
    overwrite: bool,
    base: Path | None,
    columns: tuple[str, ...],
    accept: tuple[str, ...],
) -> None:
    """Repair the rows of IN; write OUT and its .report.jsonl.

    Mends encodings, control and invisible characters and special tokens (of the base), masks personal data
    and secrets, drops empty rows, repeats and near repeats. Conflicts are listed only. Rows keep their form.
    """
    from train.dataset.progress import LateProgress
    from train.dataset.repair.repairing import repair_file
    from train.dataset.repair.rules import RepairSettings, parse_rules

    found = RepairSettings(
        parse_rules(rules),
        reading_of(columns, accept),
        _special_tokens(base or base_of_root(session)),
        overwrite,
    )
    with LateProgress() as progress:
        document = repair_file(file, out, found, progress)
    if session.as_json:
        output.print_json(document)
    else:
        _print_repaired(document)


def _print_repaired(document: Repaired) -> None:
    from train.dataset.checks.findings import CATALOGUE

    output.print_table(
        ("rule", "what", "times#", ""),
        [(rule, action, str(count), CATALOGUE[rule].title) for rule, action, count in document.done],
    )
    output.print_line(f"{document.out}: {document.kept} of {document.rows} rows")
    output.print_line(str(document.report))


def _special_tokens(folder: Path | None) -> tuple[str, ...]:
    if folder is None:
        output.print_notice("no base: special tokens are not looked for (give --base or --root)")
        return ()
    from train.dataset.rendering import load_tokenizer_of

    return tuple(load_tokenizer_of(folder).all_special_tokens)
