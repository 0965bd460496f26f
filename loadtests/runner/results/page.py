"""The report as one HTML file: verdict, figures, pictures, tables. Nothing is loaded from anywhere.

Invariant: everything that came from a scenario, a server or a model is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from html import escape

from loadtests.runner.records import RequestRecord
from loadtests.runner.results import tables
from loadtests.runner.results.documents import Report
from loadtests.runner.results.pictures import pictures

_STYLE = """
:root{--ink:#1b1f24;--line:#d0d7de;--soft:#f6f8fa;--muted:#59636e;--back:#fff}
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;
color:var(--ink);background:var(--back)}
table{border-collapse:collapse;margin:.6rem 0 1.4rem;font-variant-numeric:tabular-nums}
td,th{border:1px solid var(--line);padding:.25rem .6rem;text-align:left;vertical-align:top}
td.n,th.n{text-align:right}th{background:var(--soft)}.muted{color:var(--muted)}
.scroll{overflow-x:auto}
.verdict{padding:.6rem .9rem;border-left:5px solid;font-weight:600;background:var(--soft)}
.pass{border-color:#116329}.fail{border-color:#a40e26}.no{color:#a40e26;font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(460px,1fr));gap:1rem}
svg{width:100%;height:auto;border:1px solid var(--line);border-radius:4px}
svg text{font:11px system-ui,sans-serif;fill:var(--muted)}
svg text.title{font-weight:600;fill:var(--ink);font-size:12px}
.grid{stroke:var(--line);stroke-width:.6}.mark{stroke:#a40e26;stroke-width:1;stroke-dasharray:3 3;opacity:.6}
.limit{stroke:#a40e26;stroke-width:.8}
svg text.limit{stroke:none;fill:#a40e26}.warm{fill:var(--muted);opacity:.14}
.c0{fill:#0072b2;stroke:#0072b2}.c1{fill:#d55e00;stroke:#d55e00}.c2{fill:#009e73;stroke:#009e73}
.c3{fill:#cc79a7;stroke:#cc79a7}.c4{fill:#56b4e9;stroke:#56b4e9}.c5{fill:#8c8c8c;stroke:#8c8c8c}
.line{fill:none;stroke-width:1.6}.area{stroke:none;opacity:.75}circle{stroke:none;opacity:.55}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--line:#30363d;--soft:#161b22;--muted:#9198a1;--back:#0d1117}
.no{color:#f47067}.limit,.mark{stroke:#f47067}svg text.limit{fill:#f47067}}
@media print{.plots{display:block}svg{max-width:640px}}
"""


def page(report: Report, sample: Sequence[RequestRecord]) -> str:
    """Return the HTML document; `sample` is a part of the records, for the dots."""
    name = escape(str(report.scenario["name"]))
    head = f"<meta charset=utf-8><title>Load test {name}</title><style>{_STYLE}</style>"
    body = "".join(_body(report, sample))
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>\n"


def _body(report: Report, sample: Sequence[RequestRecord]) -> Iterator[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.started_at))
    yield f"<h1>Load test: {escape(str(report.scenario['name']))}</h1>"
    yield f"<p class=muted>{escape(str(report.scenario['about']))} {when}, {escape(report.machine.system)}, "
    yield f"{report.machine.cpus} CPUs, Python {escape(report.machine.python)}</p>"
    yield f"<p class='verdict {'pass' if report.passed else 'fail'}'>{escape(tables.verdict(report))}</p>"
    yield from _table(("", ""), tables.facts(report))
    yield "<h2>Checks</h2>"
    yield from _table(
        ("held", "found", "bar"),
        [("yes" if one.passed else "NO", one.sentence, one.bar) for one in report.checks],
    )
    yield "<h2>Over time</h2><p class=muted>Grey: warm-up, not measured. Dashed: something was done to "
    yield f"the server (point at it). Dots: at most {len(sample)} requests.</p><div class=plots>"
    yield from (f"<div>{one}</div>" for one in pictures(report, sample) if one)
    yield "</div><h2>Latency in ms</h2><p class=muted>From the intended start: a server that stalls "
    yield "is charged for those who waited behind; <i>service</i> counts from the sending.</p>"
    yield from _table(tables.SPREAD_COLUMNS, tables.spreads(report.overall))
    yield from _groups(report)
    yield from _happenings(report)
    yield "<h2>Scenario</h2>"
    rows = [(key, str(value)) for key, value in report.scenario.items() if value not in (None, "", [], {})]
    yield from _table(("key", "value"), rows)


def _groups(report: Report) -> Iterator[str]:
    named = (
        ("Arms", report.arms), ("Adapters", report.adapters), ("Adapters by arm", tables.by_arm(report)),
        ("Versions that answered", report.versions),
    )  # fmt: skip
    for title, groups in named:
        if groups:
            yield f"<h2>{title}</h2>"
            yield from _table(tables.GROUP_COLUMNS, tables.group_rows(groups))


def _happenings(report: Report) -> Iterator[str]:
    if report.rollouts:
        yield "<h2>Rollouts</h2>"
        yield from _table(tables.ROLLOUT_COLUMNS, tables.rollout_rows(report))
        for rollout in report.rollouts:
            rows = [
                (f"{one.at:.1f}", one.state, f"{one.weight / 100:g}%", one.reason, one.sentence)
                for one in rollout.changes
            ]
            yield from _table(("at#", "state", "weight#", "reason", "sentence"), rows)
    if report.errors:
        yield "<h2>Errors</h2>"
        errors = [
            (one.kind, str(one.count), f"{one.first_at:.1f}", f"{one.last_at:.1f}", one.detail)
            for one in report.errors
        ]
        yield from _table(("kind", "count#", "first at#", "last at#", "one of them"), errors)
    if report.events:
        yield "<h2>What was done to the server</h2>"
        events = [
            (f"{one.at:.1f}", one.action, one.subject, f"{one.seconds:.2f}", one.error or one.detail)
            for one in report.events
        ]
        yield from _table(("at#", "action", "subject", "took s#", "outcome"), events)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    kinds = [" class=n" if name.endswith("#") else "" for name in columns]
    yield "<div class=scroll><table>"
    if any(columns):
        heads = (f"<th{kind}>{escape(name.rstrip('#'))}" for name, kind in zip(columns, kinds, strict=True))
        yield "<tr>" + "".join(heads)
    for row in rows:
        cells = (
            f"<td{' class=no' if cell == 'NO' else kind}>{escape(cell)}"
            for cell, kind in zip(row, kinds, strict=True)
        )
        yield "<tr>" + "".join(cells)
    yield "</table></div>"
