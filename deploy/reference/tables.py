"""Markdown made of plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MARK = "<!-- Written by `make reference`. Do not edit: change what it describes. -->"


def page(title: str, *parts: str) -> str:
    """Return a page: its title, the mark, and its parts with a line between."""
    return "\n\n".join([f"# {title}", MARK, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells may hold anything, '' where there are no rows."""
    body = [f"| {' | '.join(_cell(one) for one in row)} |" for row in rows]
    if not body:
        return ""
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *body])


def code(text: str) -> str:
    """Return inline code, '' for nothing."""
    return f"`{text}`" if text else ""


def sentence(text: str | None) -> str:
    """Return a docstring or help as one line."""
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
