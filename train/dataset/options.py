"""Options that several `wardrobe data` commands have, and the values that they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli.session import Session, UserPath
from train.dataset.containers.place import DataPath

if TYPE_CHECKING:
    from train.dataset.forms.mapping import RowMapping

_SPLIT = "wardrobe.split"


class _UserPlace(UserPath):
    """Data on the command line: a file, a folder, a pattern or hf://ORG/NAME, and the part of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the place."""
        path = super().convert(value, param, ctx)
        return DataPath(path, ctx.meta.get(_SPLIT) if ctx else None)


FILE, PLACE = UserPath(), _UserPlace()
_LAYOUT = "layout.json"
base_option = click.option(
    "--base",
    type=FILE,
    metavar="DIR",
    help="Model folder with the tokenizer (default: the root's base).",
)


def _note_split(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_SPLIT] = value


# Read before the paths are, which it belongs to.
split_option = click.option(
    "--split",
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_note_split,
    help="The part to read of a data set that has several: train, test.",
)
columns_option = click.option(
    "--columns",
    multiple=True,
    metavar="KEY=COLUMN,…",
    help="Columns to read as our keys: prompt=frage,completion=antwort. May be repeated.",
)
accept_option = click.option(
    "--accept",
    multiple=True,
    metavar="ID[:ROW],…",
    help="Findings to accept: D-SECRET, D-SECRET:66, D-SECRET:test.jsonl:66. May be repeated.",
)
length_option = click.option(
    "--max-length",
    type=click.IntRange(min=2),
    default=1024,
    show_default=True,
    metavar="N",
    help="Tokens that training keeps of a row.",
)


def root_of(session: Session) -> Path | None:
    """Return the root that the command works in; None without one."""
    root = session.require_local("data")
    if session.root is None and not (root / _LAYOUT).exists():
        return None
    from registry.store import Registry

    return Registry.open(root).root


def base_of_root(session: Session) -> Path | None:
    """Return the folder of the root's base; None without a root."""
    root = root_of(session)
    if root is None:
        return None
    from registry.store import Registry

    return Registry.open(root).base.path


def reading_of(columns: Sequence[str], accept: Sequence[str]) -> RowMapping:
    """Return how rows are read, from the options.

    Raises: UsageError.
    """
    from train.dataset.checks.acceptance import parse_acceptance
    from train.dataset.forms.mapping import RowMapping, parse_columns

    return RowMapping(parse_columns(columns), parse_acceptance(accept).kinds)
