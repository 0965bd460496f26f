"""What a person or a program sees: tables, JSON, errors, warnings and progress.

Results go to stdout, everything else to stderr. Invariant: text that came from outside (notes, reasons,
names) cannot move the cursor or change colours: control characters are shown, not sent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import click

from registry.errors import CONTINUED, WardrobeError
from registry.spelling import spelled

if TYPE_CHECKING:
    from rich.progress import Progress

PIPE_WIDTH = 100_000
"""A pipe has no width: nothing is cut or folded there."""
_UNITS = ("B", "kB", "MB", "GB", "TB")


class AdvanceBar(Protocol):
    """Advance a progress bar by `amount`."""

    def __call__(self, amount: int) -> None:
        """Advance."""
        ...


def print_json(document: object, kind: type | None = None) -> None:
    """Print a document, or an array of them, as JSON on stdout (ASCII: any locale can carry it).

    `kind` is the class that is shown, where a value may be of a class with more than that.
    """
    from pydantic import TypeAdapter

    def plain(one: Any) -> object:
        return TypeAdapter(kind or type(one)).dump_python(one, mode="json")

    value = [plain(one) for one in document] if isinstance(document, Sequence) else plain(document)
    click.echo(json.dumps(value, indent=2))


def print_line(text: str) -> None:
    """Print one line on stdout."""
    click.echo(shown(text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; a column whose name ends in `#` holds numbers and is set to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(
            name.rstrip("#").upper(), justify="right" if name.endswith("#") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print `name  value` lines, aligned."""
    rows = list(facts)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {shown(value)}".rstrip())


def print_error(error: WardrobeError, *, as_json: bool = False) -> None:
    """Print `error: subject: fact; remedy` on stderr and, with `as_json`, the same as a last JSON line."""
    lines = str(error).split(CONTINUED)
    click.echo(f"error: {CONTINUED.join(map(shown, lines))}", err=True)
    if as_json:
        body = {"message": str(error), "type": error.type, "param": error.param, "code": error.code}
        click.echo(json.dumps({"error": body}), err=True)


def print_warning(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"warning: {shown(text)}", err=True)


def print_notice(text: str) -> None:
    """Print a remark for a person on stderr."""
    click.echo(shown(text), err=True)


def shown(text: str) -> str:
    """Return `text` with control characters, and bytes that are no UTF-8, written as escapes."""
    text = spelled(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def moment(seconds: float | None) -> str:
    """Return UNIX seconds as local date and time, or `-`."""
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"  # beyond what calendars reach


def amount(size_bytes: float) -> str:
    """Return a size for people, in powers of 1000."""
    for unit in _UNITS[:-1]:
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} {_UNITS[-1]}"


def short(digest: str | None) -> str:
    """Return the first twelve digits of a digest, or `-`."""
    return "-" if digest is None else digest.removeprefix("sha256:")[:12]


@contextmanager
def progress(label: str, total: int | None, *, unit_bytes: bool = False) -> Iterator[AdvanceBar]:
    """Show a bar on stderr while the block runs, if stderr is a terminal; `total` None = unknown."""
    if not sys.stderr.isatty():
        yield _no_step
        return
    bar = _bar(unit_bytes=unit_bytes)
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)


def _bar(*, unit_bytes: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    counted: ProgressColumn = DownloadColumn() if unit_bytes else MofNCompleteColumn()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _no_step(amount: int) -> None:
    """Do nothing: there is no terminal to show it on."""


def in_short(names: Sequence[str], count: int = 3) -> str:
    """Return the first names of many, and how many more there are."""
    shown = ", ".join(names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more (--json lists them)"
