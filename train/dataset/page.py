"""The report of a check as one HTML page that loads nothing and runs nothing.

Owns what the page shows, in which order; the look is `train.pages`. Invariant: every text of the data is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from registry.cli.output import amount
from train.dataset.documents import DataReport, FindingDocument, LengthsDocument
from train.pages.parts import facts, page_of, safe, section, table
from train.pages.plots import bars, histogram

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


def page(document: DataReport) -> str:
    """Return the whole page."""
    name = ", ".join(file.path.rpartition("/")[2] for file in document.files)
    sections = (
        _head(document, name),
        _files(document),
        _findings(document.findings, several=document.several),
        section("Lengths", (_lengths(key, found) for key, found in document.lengths.items())),
        section("Labels", _labels(document.labels)),
        section("Personal data and secrets", _personal(document.findings)),
        section("Turns per conversation", _turns(document.turns)),
    )
    return page_of(f"{name}: data report", sections)


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
    counted = {
        "rows": document.rows,
        "unreadable": document.unreadable,
        "exact repeats": document.rows - document.distinct,
        "near repeats": document.distinct - document.sets,
    }
    if (tokens := document.lengths.get("tokens")) is not None:
        counted |= {"tokens": tokens.total, "trained tokens": document.lengths["learnt"].total}
    cards = facts({key: f"{value:,}" for key, value in counted.items()})
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
    note = f'<p class="dim">{safe(used)}</p>{bias}'
    return f"<h1>{safe(name)}</h1><p>{verdict}</p>{cards}{note}"


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
    return section("Files", [table(("file", "size#", "rows#", "forms"), rows)])


def _findings(findings: Sequence[FindingDocument], *, several: bool) -> str:
    return section("Findings", (_finding(found, several=several) for found in findings))


def _finding(found: FindingDocument, *, several: bool) -> str:
    examples = "".join(
        f"<li>{_place(example.file, several)}row {example.row} {safe(example.fact)}</li>"
        for example in found.examples
    )
    remedy = safe(found.remedy.replace("`", ""))
    opened = " open" if found.severity == "error" else ""
    return (
        f'<details{opened}><summary><span class="mark {found.severity}">{found.severity}</span> '
        f'<code>{found.id}</code> {safe(found.title)} <span class="dim">{found.count:,} ×</span></summary>'
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
    return safe(f"{file} ") if several else ""


def _rows(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_SHOWN_ROWS]))
    rest = len(numbers) - _SHOWN_ROWS
    return f"{listed} and {rest:,} more, all in the JSON file" if rest > 0 else listed


def _lengths(key: str, found: LengthsDocument) -> str:
    title = f"{_NAMES[key]}, {found.unit} per row"
    names = [f"{float(share):.0%}#" for share in found.quantiles]
    values = table(names, [[f"{value:,.0f}" for value in found.quantiles.values()]])
    plot = histogram(found.edges, found.counts, found.unit, title)
    return f"<figure><figcaption>{safe(title)}</figcaption>{plot}{values}</figure>"


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
        yield table(("id", "what", "found#", "masked sample"), rows)
    yield '<p class="dim">By patterns and check digits; names of people and places are not looked for.</p>'


def _turns(turns: Mapping[int, int]) -> Iterable[str]:
    if len(turns) > 1:
        yield bars(
            {str(count): rows for count, rows in sorted(turns.items())[:_SHOWN_LABELS]},
            "rows by number of turns",
        )
