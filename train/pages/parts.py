"""The parts of a page: the document around it, sections, tables, facts, texts of others.

Owns the structure. Invariants: one file, no script, no request (the content policy forbids both); every text
that is not `Html` is escaped, with its control characters shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from registry.cli.output import shown
from train.pages.style import STYLE

LONGEST = 4_000
"""Characters that a page shows of one text; more would bury the rest of the page."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Html(str):
    """Markup that is shown as it is; only the modules of this package and the pages make it."""

    __slots__ = ()


def safe(text: str) -> Html:
    """Return a text of any origin as markup on one line; `Html` comes back as it is."""
    return text if isinstance(text, Html) else Html(escape(shown(text)))


def block(text: str, longest: int = LONGEST) -> Html:
    """Return a text of several lines as it was written; its end is left out beyond `longest`."""
    left = len(text) - longest
    kept = "".join(
        part if part in {"\n", "\t"} else shown(part) for part in re.split(r"([\n\t])", text[:longest])
    )
    rest = f'<span class="dim"> … {left:,} more characters</span>' if left > 0 else ""
    return Html(f"<pre>{escape(kept)}{rest}</pre>")


def page_of(title: str, parts: Iterable[str], *, wide: bool = False) -> str:
    """Return the whole page of `parts`, which are markup; `wide` leaves room for columns of text."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head>\n"
    )
    body = '<body class="broad">' if wide else "<body>"
    return f"{head}{body}\n{''.join(parts)}\n</body></html>\n"


def section(title: str, parts: Iterable[str]) -> Html:
    """Return a section of `parts`, which are markup; nothing where there are none."""
    body = "".join(parts)
    return Html(f"<h2>{safe(title)}</h2>\n{body}\n" if body else "")


def note(text: str) -> Html:
    """Return a remark."""
    return Html(f'<p class="dim">{safe(text)}</p>')


def mark(kind: str, text: str) -> Html:
    """Return a word in the colour of `kind`: error, warning, info, pass, fail or cannot_tell."""
    return Html(f'<span class="mark {escape(kind)}">{safe(text)}</span>')


def banner(kind: str, title: str, text: str) -> Html:
    """Return what a page has to say first, in the colour of `kind`."""
    said = f"<p>{safe(text)}</p>" if text else ""
    return Html(f'<div class="banner {escape(kind)}"><b>{safe(title)}</b>{said}</div>')


def facts(values: Mapping[str, str]) -> Html:
    """Return a card for each value, by its name."""
    cards = "".join(
        f'<div class="fact"><b>{safe(value)}</b>{safe(key)}</div>' for key, value in values.items()
    )
    return Html(f'<div class="facts">{cards}</div>')


def folded(title: str, body: str, *, opened: bool = False) -> Html:
    """Return a part that opens by key or pointer; `body` is markup."""
    state = " open" if opened else ""
    return Html(f"<details{state}><summary>{safe(title)}</summary><div>{body}</div></details>")


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """Return a table; columns whose name ends in `#` are numbers."""
    kinds = [' class="number"' if name.endswith("#") else "" for name in names]
    head = "".join(
        f"<th{kind}>{safe(name.rstrip('#'))}</th>" for kind, name in zip(kinds, names, strict=True)
    )
    lines = (
        "".join(f"<td{kind}>{safe(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return Html(f'<div class="wide" tabindex="0">{inner}</div>')
