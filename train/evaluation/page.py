"""One HTML file of an evaluation: figures, and every item with the arms' answers side by side.

Self-contained: no script from elsewhere, no font, no picture. Invariant: everything that came from a suite
or a model is escaped, so no answer becomes markup or script.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape

from train.evaluation.figures import ALL
from train.evaluation.results import Evaluation, EvaluationDocument
from train.evaluation.tables import shown_figure
from train.evaluation.trial import GateDocument

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0}
td,th{border:1px solid #d0d7de;padding:.3rem .6rem;text-align:left;vertical-align:top}
th{background:#f6f8fa}.item{border-top:1px solid #d0d7de;padding:1rem 0}
.arms{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:1rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f8fa;padding:.6rem;margin:.3rem 0}
.right{color:#116329}.wrong{color:#a40e26}.muted{color:#59636e}label{margin-right:1rem}
body:has(#changed:checked) .same{display:none}body:has(#errors:checked) .fine{display:none}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,pre{background:#161b22}
td,th,.item{border-color:#30363d}.right{color:#57ab5a}.wrong{color:#f47067}}
"""


_FILTERS = (
    "<p><label><input type=checkbox id=changed> only items on which the arms differ</label>"
    "<label><input type=checkbox id=errors> only items that somebody got wrong</label></p>"
)


def page(evaluation: Evaluation, document: EvaluationDocument, gate: GateDocument | None = None) -> str:
    """Return the HTML document; `document` holds the evaluation's figures."""
    parts = [
        f"<h1>{escape(document.suite)}</h1>",
        f"<p class=muted>{document.items} items, sha256 {document.suite_sha256[:12]}, by {document.via}</p>",
        *(_gate(gate) if gate is not None else ()),
        *_figures(document),
        *_confusions(evaluation, document),
        _FILTERS,
        *(_item(evaluation, index) for index in range(document.items)),
    ]
    head = f"<meta charset=utf-8><title>{escape(document.suite)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _figures(document: EvaluationDocument) -> Iterator[str]:
    yield "<table><tr><th>figure<th>slice"
    yield "".join(f"<th>{escape(arm.label)}" for arm in document.arms)
    for name in dict.fromkeys(name for arm in document.arms for name in arm.figures):
        slices = next(arm.figures[name] for arm in document.arms if name in arm.figures)
        for label in slices:
            cells = [shown_figure(arm.figures.get(name, {}).get(label)) for arm in document.arms]
            yield f"<tr><td>{escape(name if label == ALL else '')}<td>{escape(label)}"
            yield "".join(f"<td>{cell}" for cell in cells)
    yield "</table>"
    yield "".join(f"<p class=muted>{escape(note)}</p>" for note in document.notes)


def _confusions(evaluation: Evaluation, document: EvaluationDocument) -> Iterator[str]:
    for arm in document.arms:
        for name, table in arm.confusion.items():
            labels = getattr(evaluation.suite.grader(name), "labels", ())
            heads = "".join(f"<th>{escape(label)}" for label in (*labels, "no label"))
            yield f"<details><summary>{escape(arm.label)}: confusion of {escape(name)}</summary>"
            yield f"<table><tr><th>expected \\ found{heads}"
            for label, row in zip(labels, table, strict=True):
                yield f"<tr><th>{escape(label)}" + "".join(f"<td>{count}" for count in row)
            yield "</table></details>"


def _gate(gate: GateDocument) -> Iterator[str]:
    yield f"<h2>Gate: {escape(gate.verdict.replace('_', ' '))}</h2><p>{escape(gate.sentence)}</p>"
    yield "<table><tr><th>check<th>suite<th>slice<th>against<th>verdict<th>finding"
    for check in gate.checks:
        cells = (
            check.kind,
            check.suite,
            check.slice,
            check.against,
            check.verdict.replace("_", " "),
            check.sentence,
        )
        yield "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)
    yield "</table>"


def _item(evaluation: Evaluation, index: int) -> str:
    item, question = evaluation.suite.items[index], evaluation.suite.questions[index]
    asked = "\n\n".join(f"{message.role}: {message.said}" for message in question)
    tags = " ".join(f"{name}={value}" for name, value in sorted(item.tags.items()))
    wanted = [*item.answers, *(f"{call.name}({json.dumps(call.arguments)})" for call in item.calls or ())]
    expected = f"<p>expected: {escape(' | '.join(wanted))}</p>" if wanted else ""
    arms = "".join(_answer(evaluation, arm, index) for arm in range(len(evaluation.arms)))
    same = len({arm.samples[index].said for arm in evaluation.arms}) == 1
    scores = [grades[index].score for arm in evaluation.arms for grades in arm.grades.values()]
    fine = all(score in {None, 1.0} for score in scores)
    return (
        f"<div class='item{' same' if same else ''}{' fine' if fine else ''}'><h3>{escape(item.id)} "
        f"<span class=muted>{escape(tags)}</span></h3>"
        f"<pre>{escape(asked)}</pre>{expected}<div class=arms>{arms}</div></div>"
    )


def _answer(evaluation: Evaluation, arm_index: int, index: int) -> str:
    arm = evaluation.arms[arm_index]
    sample = arm.samples[index]
    text = sample.said if sample.error is None else f"no answer: {sample.error}"
    grades = []
    for name, found in arm.grades.items():
        score = found[index].score
        if score is not None:
            kind = "right" if score == 1 else "wrong" if score == 0 else ""
            grades.append(
                f"<span class='{kind}'>{escape(name)} {score:.3g}</span> {escape(found[index].found[:120])}"
            )
    return f"<div><b>{escape(arm.label)}</b><pre>{escape(text)}</pre>{'<br>'.join(grades)}</div>"
