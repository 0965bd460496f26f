"""What a person sees of an import: notes by their weight, and the table of every key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click

from registry.cli import output
from train.importing.draft import shown
from train.importing.run import Imported

_WIDTHS = (11, 30, 34)


def print_notes(found: Imported) -> None:
    """Print on stderr what makes the result another one, each with its reason, and the rest in one line."""
    for one in found.grave:
        output.print_warning(f"{one.weight}: {one.key}: {shown(one.value)}: {one.reason}")
    if found.harmless:
        output.print_notice(_rest(found))


def print_outcome(found: Imported, *, to_stderr: bool) -> None:
    """Print the table of every key: taken over, changed, lost; on stderr where the config goes to stdout."""
    click.echo(f"{found.trainer}:", err=to_stderr)
    for row in (("", "theirs", "value", "ours, or why not"), *_rows(found)):
        padded = [output.shown(cell).ljust(width) for cell, width in zip(row, _WIDTHS, strict=False)]
        click.echo("  ".join([*padded, output.shown(row[-1])]).rstrip(), err=to_stderr)
    if found.harmless:
        click.echo(_rest(found), err=to_stderr)


def _rows(found: Imported) -> Iterator[tuple[str, str, str, str]]:
    for taken in found.taken:
        yield "taken over", taken.key, shown(taken.value, _WIDTHS[2]), taken.ours
    for note in found.grave:
        yield note.weight, note.key, shown(note.value, _WIDTHS[2]), note.reason


def _rest(found: Imported) -> str:
    keys = ", ".join(dict.fromkeys(one.key for one in found.harmless))
    return textwrap.shorten(f"nothing that is learnt depends on {keys}", 400, placeholder=" …")
