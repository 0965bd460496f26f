"""`wardrobe train import`. Imports nothing heavy at its top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import Conflict, UsageError, WardrobeError
from registry.storage import files

if TYPE_CHECKING:
    from train.importing.detection import Trainer
    from train.importing.run import Imported

_FILE = UserPath()


@click.command("import")
@click.argument("file", type=_FILE)
@click.option("-o", "--out", type=_FILE, metavar="OUT", help="Write the config there, a new file.")
@click.option(
    "--from",
    "trainer",
    type=click.Choice(["axolotl", "llama-factory", "trl", "torchtune"]),
    help="Trainer that FILE is for (default: detected from its keys).",
)
@click.option(
    "--method",
    type=click.Choice(["sft", "dpo", "kto", "orpo", "reward"]),
    help="TRL trainer that FILE is for, if it does not say so.",
)
@click.option(
    "--check", "checked", is_flag=True, help="Show how each key is translated, and check the result."
)
@local_options
@pass_session
def import_(
    session: Session, file: Path, out: Path | None, trainer: Trainer | None, method: str | None, checked: bool
) -> None:
    """Translate another trainer's YAML config for `train run`.

    Reads the configs of Axolotl, LLaMA-Factory, TRL and torchtune; for others it says what would carry over.
    Names first what changes the result, each with its reason. Without --out it prints the config. Paths are
    relative to OUT's folder, else to the working directory.
    """
    from train.importing.display import print_notes, print_outcome
    from train.importing.run import import_config

    if out is not None and out.exists():
        raise _exists(out)
    if out is not None and not out.parent.is_dir():
        raise UsageError(str(out), f"has no folder {out.parent}", "make the folder first", param="out")
    folder = None if out is None else out.parent
    found = import_config(file, trainer, out=folder, method=method, layers=lambda: _layers(session))
    if checked and not session.as_json:
        print_outcome(found, to_stderr=out is None)
    if checked:
        output.print_notice(f"train check: {_check(session, found, folder)}")
    if out is not None and not files.claim(out, found.text().encode()):
        raise _exists(out)
    if session.as_json:
        from train.importing.documents import ImportReport

        output.print_json(ImportReport.of(found, out))
        return
    if not checked:
        print_notes(found)
    if out is not None:
        output.print_line(str(out))
    else:
        click.echo(found.text(), nl=False)


def _check(session: Session, found: Imported, folder: Path | None) -> str:
    """Check the config as `train check` does, and say how many rows it would train on.

    Raises: WardrobeError: what `train check` would say.
    """
    from registry.store import Registry
    from train.config import parse_config
    from train.runs.run import prepare

    config = parse_config(found.config, found.config["name"], (folder or Path.cwd()).resolve())
    prepared = prepare(config, Registry.open(session.root_path))
    rows = sum(report.rows for report in prepared.reports.values())
    return f"fine, {rows} rows on {prepared.base.name}"


def _layers(session: Session) -> int | None:
    """Return how many layers the root's base has, None where there is no root to ask."""
    from registry.store import Registry
    from train.model.targets import layer_of

    try:
        modules = Registry.open(session.root_path).base.modules
    except WardrobeError:
        # Most imports need no root; whoever needs the number says that a root is missing.
        return None
    found = [layer for name in modules if (layer := layer_of(name)) is not None]
    return max(found) + 1 if found else None


def _exists(out: Path) -> Conflict:
    return Conflict(str(out), "exists", "name a new file", param="out")
