"""The report of a check as one HTML page that loads nothing and runs nothing.

Owns the page's structure and style. Invariant: every text of the data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby

from registry.cli.output import amount, shown
from train.dataset.documents import DataReport, FindingDocument, LengthsDocument
from train.dataset.plots import bars, histogram

_SHOWN_LABELS = 40
_SHOWN_ROWS = 500
_PERSONAL = (
    "D-EMAIL", "D-PHONE", "D-IP", "D-CARD", "D-IBAN", "D-SSN", "D-SECRET", "D-PRIVATE-KEY",
)  # fmt: skip
_NAMES = {
    "questions": "Questions and instructions",
    "answers": "Answers",
    "tokens": "Whole rows, on the chat template",
    "learnt": "Trained tokens",
}
_STYLE = """
:root{color-scheme:light dark;--fg:#1d2330;--dim:#5b6475;--bg:#fff;--card:#f5f6f9;--line:#d9dde6;
--bar:#3b6fd4;--error:#b3261e;--warning:#8a5a00;--info:#1f6a5a}
@media(prefers-color-scheme:dark){:root{--fg:#e8ebf2;--dim:#a3acbd;--bg:#14171e;--card:#1d222c;--line:#343b49;
--bar:#7aa2f7;--error:#ff8a80;--warning:#e6b450;--info:#7fd6c2}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);
max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.25rem 0 .75rem}p{margin:.25rem 0}
.dim{color:var(--dim)}code,.rows{font-family:ui-monospace,monospace;font-size:.87em;overflow-wrap:anywhere}
.facts{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.25rem 0}
.fact{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;
min-width:8.5rem}
.fact b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .75rem .35rem 0;
border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--dim);font-weight:600}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
details{border:1px solid var(--line);border-radius:8px;margin:.5rem 0;background:var(--card)}
summary{cursor:pointer;padding:.55rem .9rem}details>div{padding:0 .9rem .8rem}
.mark{font-weight:700}.error{color:var(--error)}.warning{color:var(--warning)}.info{color:var(--info)}
ul{margin:.4rem 0;padding-left:1.2rem}svg{width:100%;height:auto;display:block}
.bar{fill:var(--bar)}.axis{stroke:var(--dim);stroke-width:1}.label{fill:var(--dim);font-size:11px}
figure{margin:0 0 1.5rem}figcaption{font-weight:600;margin-bottom:.25rem}.wide{overflow-x:auto}
"""


def page(document: DataReport) -> str:
    """Return the whole page."""
    name = ", ".join(file.path.rpartition("/")[2] for file in document.files)
    sections = (
        _head(document, name),
        _files(document),
        _findings(document.findings, several=document.several),
        _section("Lengths", (_lengths(key, found) for key, found in document.lengths.items())),
        _section("Labels", _labels(document.labels)),
        _section("Personal data and secrets", _personal(document.findings)),
        _section("Turns per conversation", _turns(document.turns)),
    )
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_safe(name)}: data report</title><style>{_STYLE}</style></head>\n<body>"
    )
    return f"{head}\n{''.join(sections)}\n</body></html>\n"


def _head(document: DataReport, name: str) -> str:
    counts = {key: len(list(group)) for key, group in groupby(document.findings, lambda f: f.severity)}
    verdict = (
        "No finding."
        if not counts
        else ", ".join(
            f'<span class="{key}">{count} {"kind" if count == 1 else "kinds"} of {key}</span>'
            for key, count in counts.items()
        )
    )
    facts = {
        "rows": document.rows,
        "unreadable": document.unreadable,
        "exact repeats": document.rows - document.distinct,
        "near repeats": document.distinct - document.sets,
    }
    if (tokens := document.lengths.get("tokens")) is not None:
        facts |= {"tokens": tokens.total, "trained tokens": document.lengths["learnt"].total}
    cards = "".join(f'<div class="fact"><b>{value:,}</b>{key}</div>' for key, value in facts.items())
    used = (
        f"Rendered with {document.base}, max_length {document.max_length}."
        if document.base
        else ("No base was given: template, token and truncation checks were skipped.")
    )
    bias = (
        ""
        if document.length_bias is None
        else (
            f"<p>Length of chosen against rejected answers: Cohen's d {document.length_bias:+.2f} "
            "(0.2 is small, 0.5 medium, 0.8 large).</p>"
        )
    )
    note = f'<p class="dim">{_safe(used)}</p>{bias}'
    return f'<h1>{_safe(name)}</h1><p>{verdict}</p><div class="facts">{cards}</div>{note}'


def _files(document: DataReport) -> str:
    rows = [
        (
            file.path,
            amount(file.size_bytes),
            f"{file.rows:,}",
            ", ".join(f"{n:,} {form}" for form, n in file.forms.items()),
        )
        for file in document.files
    ]
    return _section("Files", [_table(("file", "size#", "rows#", "forms"), rows)])


def _findings(findings: Sequence[FindingDocument], *, several: bool) -> str:
    return _section("Findings", (_finding(found, several=several) for found in findings))


def _finding(found: FindingDocument, *, several: bool) -> str:
    examples = "".join(
        f"<li>{_place(example.file, several)}row {example.row} {_safe(example.fact)}</li>"
        for example in found.examples
    )
    remedy = _safe(found.remedy.replace("`", ""))
    opened = " open" if found.severity == "error" else ""
    return (
        f'<details{opened}><summary><span class="mark {found.severity}">{found.severity}</span> '
        f'<code>{found.id}</code> {_safe(found.title)} <span class="dim">{found.count:,} ×</span></summary>'
        f"<div><ul>{examples}</ul>{_all_rows(found, several=several)}"
        f"<p>Remedy: {remedy}.</p></div></details>"
    )


def _all_rows(found: FindingDocument, *, several: bool) -> str:
    if found.count <= len(found.examples):
        return ""
    return "".join(
        f'<p class="rows">{_place(file, several)}rows {_rows(numbers)}</p>'
        for file, numbers in found.rows.items()
    )


def _place(file: str, several: bool) -> str:
    return _safe(f"{file} ") if several else ""


def _rows(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_SHOWN_ROWS]))
    rest = len(numbers) - _SHOWN_ROWS
    return f"{listed} and {rest:,} more, all in the JSON file" if rest > 0 else listed


def _lengths(key: str, found: LengthsDocument) -> str:
    title = f"{_NAMES[key]}, {found.unit} per row"
    names = [f"{float(share):.0%}#" for share in found.quantiles]
    values = _table(names, [[f"{value:,.0f}" for value in found.quantiles.values()]])
    plot = histogram(found.edges, found.counts, found.unit, title)
    return f"<figure><figcaption>{_safe(title)}</figcaption>{plot}{values}</figure>"


def _labels(labels: Mapping[str, int]) -> Iterable[str]:
    if not labels:
        return
    first = dict(list(labels.items())[:_SHOWN_LABELS])
    yield f'<p class="dim">{len(labels):,} labels; the {len(first)} most frequent:</p>'
    yield bars(first, "rows per label")


def _personal(findings: Sequence[FindingDocument]) -> Iterable[str]:
    found = [one for one in findings if one.id in _PERSONAL]
    if found:
        rows = [(one.id, one.title, f"{one.count:,}", one.examples[0].fact) for one in found]
        yield _table(("id", "what", "found#", "masked sample"), rows)
    yield '<p class="dim">By patterns and check digits; names of people and places are not looked for.</p>'


def _turns(turns: Mapping[int, int]) -> Iterable[str]:
    if len(turns) > 1:
        yield bars(
            {str(count): rows for count, rows in sorted(turns.items())[:_SHOWN_LABELS]},
            "rows by number of turns",
        )


def _section(title: str, parts: Iterable[str]) -> str:
    body = "".join(parts)
    return f"<h2>{title}</h2>\n{body}\n" if body else ""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = [' class="number"' if name.endswith("#") else "" for name in names]
    head = "".join(
        f"<th{kind}>{_safe(name.rstrip('#'))}</th>" for kind, name in zip(kinds, names, strict=True)
    )
    lines = (
        "".join(f"<td{kind}>{_safe(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _safe(text: str) -> str:
    return escape(shown(text))
