"""What a person sees of a check and of a masked row, on a terminal.

Owns colours and layout. Text of the data is shown, never sent: control characters are escapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli import output
from train.dataset.checks.first import FirstRow

if TYPE_CHECKING:
    from train.dataset.documents import DataReport, FindingDocument, SplitDocument
    from train.dataset.mask import MaskedRow, MaskedToken

_SHOWN_ROWS = 8
_SHOWN_EXAMPLES = 3
_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_STYLES: dict[str, dict[str, object]] = {
    "ANSWER": {"fg": "green"},
    "TEXT": {"fg": "green"},
    "END": {"fg": "green", "bold": True, "underline": True},
    "HEADER": {"fg": "blue"},
    "UNUSED": {"fg": "yellow"},
    "AFTER": {"fg": "magenta"},
    "CUT": {"fg": "red", "strikethrough": True},
    "QUESTION": {"dim": True},
}


def print_report(document: DataReport) -> None:
    """Print counts and findings."""
    for file in document.files:
        forms = ", ".join(f"{count} {form}" for form, count in file.forms.items()) or "no readable row"
        output.print_line(f"{file.path}: {output.amount(file.size_bytes)}, {forms}")
    facts = f"{document.rows} rows, {document.distinct} distinct, {document.sets} without near duplicates"
    output.print_line(f"{facts}, {document.unreadable} unreadable")
    for first in document.first:
        where = f"{first.file} " if len(document.files) > 1 else ""
        _print_first(where, first)
    for found in document.findings:
        _print_finding(found, several=document.several)
    errors = sum(found.severity == "error" for found in document.findings)
    accepted = sum(found.accepted == found.count for found in document.findings)
    told = f", {accepted} accepted" if document.accepted else ""
    kinds = "1 kind" if len(document.findings) == 1 else f"{len(document.findings)} kinds"
    click.echo(f"\n{kinds} of findings, {errors} of them errors{told}")


def print_split(document: SplitDocument) -> None:
    """Print the parts and where they lie."""
    output.print_table(("part", "rows#"), [(name, str(count)) for name, count in document.rows.items()])
    if document.digest is not None:
        known = "" if document.created else "  (stored already)"
        output.print_line(f"sha256:{document.digest}{known}")
    for path in (document.dataset, document.out):
        if path is not None:
            output.print_line(path)


def print_masked(masked: MaskedRow) -> None:
    """Print the tokens of a row in colours, each kind explained below."""
    learnt = sum(token.why.learnt for token in masked.tokens)
    click.secho(
        f"row {masked.row}, {masked.part}: {learnt} of {len(masked.tokens)} tokens are trained on", bold=True
    )
    click.echo("".join(_coloured(token) for token in masked.tokens))
    for why in dict.fromkeys(token.why for token in masked.tokens):
        count = sum(token.why is why for token in masked.tokens)
        mark = click.style("trained" if why.learnt else "not    ", **_STYLES[why.name])  # type: ignore[arg-type]
        click.echo(f"  {mark} {count:>6}  {why.value}")


def _coloured(token: MaskedToken) -> str:
    lines = [output.shown(line) for line in token.text.split("\n")]
    return click.style("⏎\n".join(lines), **_STYLES[token.why.name])  # type: ignore[arg-type]


def _print_first(where: str, first: FirstRow) -> None:
    for number, line in enumerate(first.lines()):
        output.print_line(where + line if number == 0 else line)


def _print_finding(found: FindingDocument, *, several: bool) -> None:
    mark = click.style(found.severity, fg=_COLOURS[found.severity], bold=True)
    taken = (
        f" ({'all' if found.accepted == found.count else found.accepted} accepted)" if found.accepted else ""
    )
    click.echo(f"\n{mark} {found.id}  {found.title}: {found.count} ×{taken}; {found.remedy}")
    for name, rows in found.rows.items():
        where = f"{output.shown(name)}: " if several else ""
        listed = ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", …" if len(rows) > _SHOWN_ROWS else "")
        output.print_line(f"    {where}{'row' if len(rows) == 1 else 'rows'} {listed}")
    for example in found.examples[:_SHOWN_EXAMPLES]:
        where = f"{example.file} " if several else ""
        output.print_line(f"    {where}row {example.row} {example.fact}")
