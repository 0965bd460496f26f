"""One HTML file of a gate: the verdict, each check with its limit and interval, the worst items side by side.

Owns what the page shows and which items are the worst. Invariant: the figures are those of `gate.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from registry.report.parts import (
    banner,
    facts,
    folded,
    heading,
    html,
    joined,
    mark,
    note,
    page_of,
    section,
    table,
)
from registry.report.plots import ForestRow, forest, forest_key
from train.evaluation.formats.specs import LOWER_IS_BETTER
from train.evaluation.gating.gate import BASE, CANDIDATE, REPLACED
from train.evaluation.gating.trial import GateCheckDocument, GateDocument
from train.evaluation.reports.item import item_of
from train.evaluation.results import EvaluationResult
from train.evaluation.statistics.figures import ALL
from train.evaluation.tables import WORDS

MOST_ITEMS = 40
"""Items of one suite that the page shows, the worst first; the suite's own report has all of them."""

_LAST = float("-inf")


def gate_page(gate: GateDocument, evaluations: Mapping[str, EvaluationResult]) -> str:
    """Return the HTML document; `evaluations` are by the names that the goal gives the suites."""
    asked = sum(len(found.suite.items) for found in evaluations.values())
    replaced = "nothing" if gate.replaces is None else f"{gate.candidate.rpartition('@')[0]}@{gate.replaces}"
    shown = {
        "replaces": replaced,
        "base": gate.base,
        "checks": str(len(gate.checks)),
        "items": f"{asked:,}",
        "answered by": gate.via,
    }
    if gate.needed:
        shown["more items needed"] = f"about {gate.needed:,}"
    parts = (
        heading(f"Gate of {gate.candidate}"),
        verdict_of(gate),
        facts(shown),
        section("Checks", checks_of(gate, gate.checks)),
        section("Items, the worst first", _worst(gate, evaluations)),
        section("What was held against what", _origin(gate)),
    )
    return page_of(f"{gate.candidate}: gate {gate.verdict.replace('_', ' ')}", parts, wide=True)


def verdict_of(gate: GateDocument) -> Markup:
    """Return the verdict with the sentence that decided it."""
    return banner(gate.verdict, f"{gate.candidate}: {WORDS[gate.verdict]}", f"{gate.sentence}.")


def checks_of(gate: GateDocument, checks: Sequence[GateCheckDocument]) -> Iterator[Markup]:
    """Yield `checks`: a forest plot for each figure of each suite, and all of them as a table."""
    if not checks:
        return
    for suite, metric in dict.fromkeys((check.suite, check.metric) for check in checks):
        rows = [_interval(check) for check in checks if (check.suite, check.metric) == (suite, metric)]
        yield heading(f"{suite}: {metric}", 3)
        yield forest(rows, "gain of the candidate")
    yield forest_key(limits=True)
    alpha = gate.goal.get("alpha")
    yield note(f"Each check at alpha {alpha}: its p-value must not be above that for a pass.")
    columns = ("check", "suite", "figure", "slice", "against", "verdict", "finding")
    yield folded("Every check in words", table(columns, map(_row, checks)))


def worst(
    evaluation: EvaluationResult, metric: str, most: int = MOST_ITEMS
) -> list[tuple[int, float | None]]:
    """Return the items on which the candidate did worst against the best other arm, and by how much.

    First the items that nobody could judge it on (None), then by its loss, then those that it got wrong
    although no other was better. Items without a fault are left out.
    """
    sign = -1.0 if evaluation.suite.grader(metric).type in LOWER_IS_BETTER else 1.0
    mine = evaluation.arm(CANDIDATE).grades[metric]
    others = [
        arm.grades[metric]
        for arm in evaluation.arms
        if arm.label in {BASE, REPLACED} and metric in arm.grades
    ]
    found: list[tuple[float, float, int, float | None]] = []
    for index, grade in enumerate(mine):
        rivals = [sign * score for other in others if (score := other[index].score) is not None]
        if grade.score is None:
            if evaluation.arm(CANDIDATE).samples[index].error is not None:
                found.append((_LAST, _LAST, index, None))
            continue
        gain = sign * grade.score - max(rivals) if rivals else 0.0
        if gain < 0 or (sign > 0 and grade.score < 1):
            found.append((gain, sign * grade.score, index, gain))
    return [(index, gain) for _, _, index, gain in sorted(found, key=lambda one: one[:3])[:most]]


def _interval(check: GateCheckDocument) -> ForestRow:
    place = "" if check.slice == ALL else f" {check.slice}"
    against = {BASE: "over the base", REPLACED: "over the replaced"}.get(check.against, check.against)
    words = "noise: candidate, asked twice" if check.kind == "noise" else f"{check.kind} {against}"
    compared = f"{check.items:,} items"
    if check.mine is not None and check.other is not None:
        compared += f", {check.mine:.3f} against {check.other:.3f}"
    verdict = mark(check.verdict, WORDS[check.verdict])
    name = html('{} {}{}<br><span class="dim">{}</span>', verdict, words, place, compared)
    limit = None if check.kind == "noise" else check.margin
    return ForestRow(name, _figures(check, limit), check.gain, check.low, check.high, limit)


def gain_of(gain: float, low: float, high: float, held: str, more: str = "") -> Markup:
    """Return a gain with its interval, what it is `held` against, and what would tell more."""
    shown, line = f"({low:+.3f} to {high:+.3f})", html("<br>{}", more) if more else ""
    return html('<b>{}</b> {}<br><span class="dim">{}{}</span>', f"{gain:+.3f}", shown, held, line)


def _figures(check: GateCheckDocument, limit: float | None) -> Markup:
    if check.gain is None or check.low is None or check.high is None:
        return html('<span class="dim">{}</span>', check.sentence)
    told = "" if limit is None else f"asked for > {limit:+.3f}"
    if limit is not None and check.p_above is not None:
        told += f", p {check.p_above:.2g}"
    needed = f"{check.needed:,} more items would probably tell" if check.needed else ""
    return gain_of(check.gain, check.low, check.high, told, needed)


def _row(check: GateCheckDocument) -> tuple[str, ...]:
    word = mark(check.verdict, WORDS[check.verdict])
    return (check.kind, check.suite, check.metric, check.slice, check.against, word, check.sentence)


def _worst(gate: GateDocument, evaluations: Mapping[str, EvaluationResult]) -> Iterator[Markup]:
    for name, metric in dict.fromkeys((check.suite, check.metric) for check in gate.checks):
        evaluation = evaluations.get(name)
        if evaluation is None:
            continue
        found = worst(evaluation, metric)
        arms = [evaluation.arm(label) for label in _shown_arms(evaluation)]
        items = joined(item_of(evaluation, index, arms, _remark(gain)) for index, gain in found)
        count = len(evaluation.suite.items)
        if not items:
            yield note(f"{name}, {metric}: no item was answered worse than by another, or wrong.")
            continue
        head = note(
            f"{len(found):,} of {count:,} items; the report of {evaluation.suite.name} has all of them."
        )
        yield folded(f"{name}: {metric}", head + items, opened=name == gate.goal.get("suite"))


def _remark(gain: float | None) -> str:
    if gain is None:
        return "no answer"
    return f"{gain:+.3g} against the best of the others" if gain < 0 else "wrong, and no other is better"


def _shown_arms(evaluation: EvaluationResult) -> list[str]:
    known = {arm.label for arm in evaluation.arms}
    return [label for label in (BASE, REPLACED, CANDIDATE) if label in known]


def _origin(gate: GateDocument) -> Iterator[Markup]:
    rows = [
        ("candidate", gate.candidate, gate.digest or "-"),
        ("base", gate.base, gate.base_fingerprint or "-"),
        ("goal", str(gate.goal.get("suite", "-")), gate.goal_sha256),
    ]
    if gate.replaces is not None:
        rows.append(("replaced", f"version {gate.replaces}", gate.replaces_digest or "-"))
    rows += [("suite", name, digest) for name, digest in gate.suites.items()]
    rows += [("answers", name, digest) for name, digest in gate.items_sha256.items()]
    yield table(("what", "name", "digest"), rows)
