"""One HTML file of an evaluation: figures, differences between arms, and every item side by side.

Owns what the page shows, in which order; the look is `registry.report`. Invariants: the figures are those of
the JSON document; everything that came from a suite or a model is escaped, so no answer becomes markup.
"""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from registry.cli.output import moment
from registry.report.parts import facts, folded, heading, html, note, page_of, section, table
from registry.report.plots import ForestRow, forest, forest_key
from train.evaluation.gating.trial import GateDocument
from train.evaluation.reports.gate import checks_of, gain_of, verdict_of
from train.evaluation.reports.item import item_of
from train.evaluation.results import EvaluationDocument, EvaluationResult
from train.evaluation.statistics.differences import DifferenceDocument
from train.evaluation.statistics.figures import ALL
from train.evaluation.tables import shown_figure

MOST_ITEMS = 2_000
"""Items that a page shows; all of them are in the folder's `items.jsonl`."""

_FILTERS = Markup(
    '<p><label><input type="checkbox" id="changed"> only items on which the arms differ</label>'
    '<label><input type="checkbox" id="errors"> only items that somebody got wrong</label></p>'
)


def page(evaluation: EvaluationResult, document: EvaluationDocument, gate: GateDocument | None = None) -> str:
    """Return the HTML document; `document` holds the evaluation's figures."""
    parts = (
        heading(document.suite),
        note(f"{moment(document.created_at)}, suite sha256 {document.suite_sha256[:12]}"),
        facts({"items": f"{document.items:,}", "arms": str(len(document.arms)), "answered by": document.via}),
        *(_gate(gate, document) if gate is not None else ()),
        section("Figures", _figures(document)),
        section("Difference between arms", _differences(document)),
        section("Labels", _confusions(evaluation, document)),
        section("Items", _items(evaluation)),
    )
    return page_of(f"{document.suite}: evaluation", parts, wide=True)


def _gate(gate: GateDocument, document: EvaluationDocument) -> Iterator[Markup]:
    yield verdict_of(gate)
    named = next((name for name, digest in gate.suites.items() if digest == document.suite_sha256), "")
    yield from checks_of(gate, [check for check in gate.checks if check.suite == named])


def _figures(document: EvaluationDocument) -> Iterator[Markup]:
    rows = []
    for name in dict.fromkeys(name for arm in document.arms for name in arm.figures):
        found = next(arm.figures[name] for arm in document.arms if name in arm.figures)
        for label in found:
            cells = (shown_figure(arm.figures.get(name, {}).get(label)) for arm in document.arms)
            rows.append((name if label == ALL else "", label, *cells))
    yield table(("figure", "slice", *(arm.label for arm in document.arms)), rows)
    yield note("In brackets the 95 % interval of one arm alone; what parts two arms is below.")
    yield from (
        note(f"{arm.label}: {arm.errors} questions have no answer") for arm in document.arms if arm.errors
    )
    yield from map(note, document.notes)


def _differences(document: EvaluationDocument) -> Iterator[Markup]:
    if not document.differences:
        return
    for name in dict.fromkeys(one.figure for one in document.differences):
        rows = [_interval(one) for one in document.differences if one.figure == name]
        yield heading(name, 3)
        yield forest(rows, f"gain of {document.arms[0].label}")
    yield forest_key(limits=False)
    yield note(
        "On the items that both arms were judged on, pair by pair; positive is better, also where less is. "
        "p: two-sided, of no difference at all."
    )


def _interval(found: DifferenceDocument) -> ForestRow:
    missing = f", {found.missing} in one arm only" if found.missing else ""
    counted = f"{found.changed:,} of {found.items:,} items changed{missing}"
    place = "" if found.slice == ALL else f" {found.slice}"
    name = html('against <b>{}</b>{}<br><span class="dim">{}</span>', found.against, place, counted)
    held = f"{found.mine:.3f} against {found.other:.3f}, p {found.p_value:.2g}"
    return ForestRow(
        name, gain_of(found.gain, found.low, found.high, held), found.gain, found.low, found.high
    )


def _confusions(evaluation: EvaluationResult, document: EvaluationDocument) -> Iterator[Markup]:
    for arm in document.arms:
        for name, counts in arm.confusion.items():
            labels = getattr(evaluation.suite.grader(name), "labels", ())
            rows = ((label, *map(str, row)) for label, row in zip(labels, counts, strict=True))
            heads = ("expected \\ found", *(f"{label}#" for label in (*labels, "no label")))
            yield folded(f"{arm.label}: confusion of {name}", table(heads, rows))


def _items(evaluation: EvaluationResult) -> Iterator[Markup]:
    count = len(evaluation.suite.items)
    yield _FILTERS
    if count > MOST_ITEMS:
        yield note(f"{MOST_ITEMS:,} of {count:,} items, those that differ first; all are in items.jsonl.")
    chosen = sorted(range(count), key=lambda index: _is_same(evaluation, index))[:MOST_ITEMS]
    for index in sorted(chosen):
        yield item_of(evaluation, index, evaluation.arms)


def _is_same(evaluation: EvaluationResult, index: int) -> bool:
    return len({arm.samples[index].said for arm in evaluation.arms}) == 1
