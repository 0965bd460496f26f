"""`wardrobe train import`. Imports nothing heavy at its top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import Conflict

if TYPE_CHECKING:
    from train.importing.run import Trainer

_FILE = UserPath()


@click.command("import")
@click.argument("file", type=_FILE)
@click.option("-o", "--out", type=_FILE, metavar="OUT", help="Write the config there, a new file.")
@click.option(
    "--from",
    "trainer",
    type=click.Choice(["axolotl", "llama-factory"]),
    help="Who FILE is for (default: found out by its keys).",
)
@local_options
@pass_session
def import_(session: Session, file: Path, out: Path | None, trainer: Trainer | None) -> None:
    """Translate FILE, a YAML config of Axolotl or LLaMA-Factory, into a config for `train run`.

    Every key without a counterpart is named with the reason; keys that are empty or false are passed over.
    Paths of data files stay as they are written, so put OUT beside FILE.
    """
    from train.importing.run import import_config

    if out is not None and out.exists():
        raise Conflict(str(out), "exists", "name a new file", param="out")
    found = import_config(file, trainer)
    if out is not None:
        out.write_text(found.text(), encoding="utf-8")
    if session.as_json:
        from train.importing.documents import ImportReport

        output.print_json(ImportReport.of(found, out))
        return
    for one in found.left:
        output.print_warning(f"{one.key}: {one.value}: {one.reason}")
    output.print_line(str(out) if out is not None else found.text().rstrip("\n"))
