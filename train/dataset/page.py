"""The report of a check as one HTML page that loads nothing and runs nothing.

Owns what the page shows, in which order; the look is `registry.report`. Invariant: every text of the
data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from registry.cli.output import amount
from registry.report.parts import facts, folded, heading, html, joined, mark, note, page_of, section, table
from registry.report.plots import bars, histogram
from train.dataset.checks.lengths import Lengths
from train.dataset.documents import DataReport, FindingDocument

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


def _head(document: DataReport, name: str) -> Markup:
    counts = {key: len(list(group)) for key, group in groupby(document.findings, lambda f: f.severity)}
    kinds = (
        html('<span class="{}">{} {} of {}</span>', key, count, "kind" if count == 1 else "kinds", key)
        for key, count in counts.items()
    )
    counted = {
        "rows": document.rows,
        "unreadable": document.unreadable,
        "exact repeats": document.rows - document.distinct,
        "near repeats": document.distinct - document.sets,
    }
    if (tokens := document.lengths.get("tokens")) is not None:
        counted |= {"tokens": tokens.total, "trained tokens": document.lengths["learnt"].total}
    return joined(
        (
            heading(name),
            html("<p>{}</p>", Markup(", ").join(kinds) or "No finding."),
            facts({key: f"{value:,}" for key, value in counted.items()}),
            *_remarks(document),
        )
    )


def _remarks(document: DataReport) -> Iterable[Markup]:
    if document.base:
        yield note(f"Rendered with {document.base}, max_length {document.max_length}.")
    else:
        yield note("No base was given: template, token and truncation checks were skipped.")
    if document.length_bias is not None:
        said = "Length of chosen against rejected answers: Cohen's d"
        yield html("<p>{} {:+.2f} (0.2 is small, 0.5 medium, 0.8 large).</p>", said, document.length_bias)


def _files(document: DataReport) -> Markup:
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


def _findings(findings: Sequence[FindingDocument], *, several: bool) -> Markup:
    return section("Findings", (_finding(found, several=several) for found in findings))


def _finding(found: FindingDocument, *, several: bool) -> Markup:
    examples = joined(
        html("<li>{}row {} {}</li>", _place(example.file, several), example.row, example.fact)
        for example in found.examples
    )
    title = html(
        '{} <code>{}</code> {} <span class="dim">{} ×</span>',
        mark(found.severity, found.severity), found.id, found.title, f"{found.count:,}",
    )  # fmt: skip
    rows, remedy = _all_rows(found, several=several), found.remedy.replace("`", "")
    body = html("<ul>{}</ul>{}<p>Remedy: {}.</p>", examples, rows, remedy)
    return folded(title, body, opened=found.severity == "error")


def _all_rows(found: FindingDocument, *, several: bool) -> Markup:
    if found.count <= len(found.examples):
        return Markup()
    return joined(
        html('<p class="rows">{}rows {}</p>', _place(file, several), _rows(numbers))
        for file, numbers in found.rows.items()
    )


def _place(file: str, several: bool) -> str:
    return f"{file} " if several else ""


def _rows(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_SHOWN_ROWS]))
    rest = len(numbers) - _SHOWN_ROWS
    return f"{listed} and {rest:,} more, all in the JSON file" if rest > 0 else listed


def _lengths(key: str, found: Lengths) -> Markup:
    title = f"{_NAMES[key]}, {found.unit} per row"
    names = [f"{float(share):.0%}#" for share in found.quantiles]
    values = table(names, [[f"{value:,.0f}" for value in found.quantiles.values()]])
    plot = histogram(found.edges, found.counts, found.unit, title)
    return html("<figure><figcaption>{}</figcaption>{}{}</figure>", title, plot, values)


def _labels(labels: Mapping[str, int]) -> Iterable[Markup]:
    if not labels:
        return
    first = dict(list(labels.items())[:_SHOWN_LABELS])
    yield note(f"{len(labels):,} labels; the {len(first)} most frequent:")
    yield _counted("rows per label", first)


def _personal(findings: Sequence[FindingDocument]) -> Iterable[Markup]:
    found = [one for one in findings if one.id in _PERSONAL]
    if found:
        rows = [(one.id, one.title, f"{one.count:,}", one.examples[0].fact) for one in found]
        yield table(("id", "what", "found#", "masked sample"), rows)
    yield note("By patterns and check digits; names of people and places are not looked for.")


def _turns(turns: Mapping[int, int]) -> Iterable[Markup]:
    if len(turns) > 1:
        first = sorted(turns.items())[:_SHOWN_LABELS]
        yield _counted("rows by number of turns", {str(count): rows for count, rows in first})


def _counted(title: str, counts: Mapping[str, int]) -> Markup:
    total = sum(counts.values()) or 1
    rows = [(name, float(count), f"{count:,} ({count / total:.1%})") for name, count in counts.items()]
    return bars(title, rows)
