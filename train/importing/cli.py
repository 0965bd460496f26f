"""`wardrobe train import`. Imports nothing heavy at its top."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import JsonValue

from registry.cli import output
from registry.cli.session import Session, common_options, pass_session
from registry.documents import Document
from registry.errors import Conflict
from train.importing.run import Imported, Trainer, import_config

_FILE = click.Path(path_type=Path)


class LeftKey(Document):
    """A key of the foreign config without a counterpart, and why."""

    key: str
    value: JsonValue
    reason: str


class ImportReport(Document):
    """A foreign config in our words; `out` is null where it was only printed."""

    trainer: str
    config: dict[str, JsonValue]
    left: list[LeftKey]
    out: str | None


@click.command("import")
@click.argument("file", type=_FILE)
@click.option("-o", "--out", type=_FILE, metavar="OUT", help="Write the config there, a new file.")
@click.option(
    "--from",
    "trainer",
    type=click.Choice(["axolotl", "llama-factory"]),
    help="Who FILE is for (default: found out by its keys).",
)
@common_options
@pass_session
def import_(session: Session, file: Path, out: Path | None, trainer: Trainer | None) -> None:
    """Translate FILE, a YAML config of Axolotl or LLaMA-Factory, into a config for `train run`.

    Every key without a counterpart is named with the reason; keys that are empty or false are passed over.
    Paths of data files stay as they are written, so put OUT beside FILE.
    """
    if out is not None and out.exists():
        raise Conflict(str(out), "exists", "name a new file", param="out")
    found = import_config(file, trainer)
    if out is not None:
        out.write_text(found.text(), encoding="utf-8")
    if session.as_json:
        output.print_json(_report(found, out))
        return
    for one in found.left:
        output.print_warning(f"{one.key}: {one.value}: {one.reason}")
    output.print_line(str(out) if out is not None else found.text().rstrip("\n"))


def _report(found: Imported, out: Path | None) -> ImportReport:
    left = [LeftKey(key=one.key, value=_plain(one.value), reason=one.reason) for one in found.left]
    return ImportReport(
        trainer=found.trainer, config=found.config, left=left, out=None if out is None else str(out)
    )


def _plain(value: object) -> JsonValue:
    # YAML reads dates as dates; JSON has none.
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {str(key): _plain(one) for key, one in value.items()} if isinstance(value, dict) else str(value)
