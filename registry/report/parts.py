"""The parts of a page, each a macro of `page.html`: the document, sections, tables, facts, texts of others.

Owns which text is markup. Invariants: one file, no script, no request (the content policy forbids both); the
template escapes every text that no part made, with its control characters shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from registry.cli.output import shown

LONGEST = 4_000
"""Characters that a page shows of one text; more would bury the rest of the page."""


def safe(text: object) -> Markup:
    """Return a text of any origin as markup on one line; markup comes back as it is."""
    return text if isinstance(text, Markup) else escape(shown(str(text)))


_MACROS = (
    Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=safe,
        undefined=StrictUndefined,
    )
    .get_template("page.html")
    .module
)
STYLE = Markup((Path(__file__).parent / "style.css").read_text("utf-8"))  # noqa: S704 our own file
"""The one style sheet, for pictures that stand alone."""


def part(name: str, *values: object) -> Markup:
    """Return what a macro of the template makes of `values`."""
    return Markup(getattr(_MACROS, name)(*values))  # noqa: S704 the template has escaped it


def html(markup: str, *values: object) -> Markup:
    """Return `markup`, which is ours, with each `{}` replaced by a value, escaped."""
    kept = (one if isinstance(one, int | float) else safe(one) for one in values)
    return Markup(markup).format(*kept)  # noqa: S704 only literals of ours are given


def joined(parts: Iterable[Markup]) -> Markup:
    """Return parts one behind the other."""
    return Markup().join(parts)


def page_of(title: str, parts: Iterable[Markup], *, wide: bool = False) -> str:
    """Return the whole page of `parts`; `wide` leaves room for columns of text."""
    return str(part("document", title, parts, wide))


def section(title: str, parts: Iterable[Markup]) -> Markup:
    """Return a section of `parts`; nothing where there are none."""
    found = [one for one in parts if one]
    return part("section", title, found) if found else Markup()


def heading(text: str, level: int = 1) -> Markup:
    """Return a heading of `level` 1 or 3; 2 is a section's."""
    return part("heading", text, level)


def note(text: str) -> Markup:
    """Return a remark."""
    return part("note", text)


def mark(kind: str, text: str) -> Markup:
    """Return a word in the colour of `kind`: error, warning, info, pass, fail or cannot_tell."""
    return part("mark", kind, text)


def block(text: str, longest: int = LONGEST) -> Markup:
    """Return a text of several lines as it was written; its end is left out beyond `longest`."""
    lines = (one if one in {"\n", "\t"} else safe(one) for one in re.split(r"([\n\t])", text[:longest]))
    left = len(text) - longest
    return html(
        "<pre>{}{}</pre>",
        Markup().join(lines),
        html('<span class="dim"> … {} more characters</span>', f"{left:,}") if left > 0 else "",
    )


def banner(kind: str, title: str, text: str) -> Markup:
    """Return what a page has to say first, in the colour of `kind`."""
    return part("banner", kind, title, text)


def facts(values: Mapping[str, str]) -> Markup:
    """Return a card for each value, by its name."""
    return part("facts", values.items())


def folded(title: str, body: Markup, *, opened: bool = False) -> Markup:
    """Return a part that opens by key or pointer."""
    return part("folded", title, body, opened)


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table; columns whose name ends in `#` are numbers, and without any name it has no head."""
    return part("table", names, rows)
