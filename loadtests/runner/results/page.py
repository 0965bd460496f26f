"""The report as one HTML file: verdict, figures, pictures, tables. Nothing is loaded from anywhere.

Owns what the page shows, in which order; the look is `registry.report`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from loadtests.runner.records import RequestRecord
from loadtests.runner.results import tables
from loadtests.runner.results.documents import Report
from loadtests.runner.results.pictures import adapters, plots
from registry.report.parts import banner, heading, html, joined, mark, note, page_of, section, table


def page(report: Report, sample: Sequence[RequestRecord]) -> str:
    """Return the HTML document; `sample` is a part of the records, for the dots."""
    name = str(report.scenario["name"])
    return page_of(f"Load test {name}", _body(report, sample, name), wide=True)


def _body(report: Report, sample: Sequence[RequestRecord], name: str) -> Iterator[Markup]:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.started_at))
    machine = f"{report.machine.system}, {report.machine.cpus} CPUs, Python {report.machine.python}"
    yield heading(f"Load test: {name}")
    yield note(f"{report.scenario['about']} {when}, {machine}")
    yield banner("pass" if report.passed else "fail", tables.verdict(report), "")
    yield table(("", ""), tables.facts(report))
    held = [("yes" if one.passed else mark("fail", "NO"), one.sentence, one.bar) for one in report.checks]
    yield section("Checks", [table(("held", "found", "bar"), held)])
    said = "Grey: warm-up, not measured. Dashed: something was done to the server (point at it). "
    drawn = html('<div class="small">{}</div>', joined(one.figure() for one in plots(report, sample)))
    said += f"Dots: at most {len(sample)} requests."
    yield section("Over time", [note(said), drawn, adapters(report)])
    yield section("Latency in ms", _latency(report))
    yield from _groups(report)
    yield from _happenings(report)
    rows = [(key, str(value)) for key, value in report.scenario.items() if value not in (None, "", [], {})]
    yield section("Scenario", [table(("key", "value"), rows)])


def _latency(report: Report) -> Iterator[Markup]:
    yield html(
        '<p class="dim">From the intended start: a server that stalls is charged for those who waited '
        "behind; <i>service</i> counts from the sending.</p>"
    )
    yield table(tables.SPREAD_COLUMNS, tables.spreads(report.overall))


def _groups(report: Report) -> Iterator[Markup]:
    named = (
        ("Arms", report.arms), ("Adapters", report.adapters), ("Adapters by arm", tables.by_arm(report)),
        ("Versions that answered", report.versions),
    )  # fmt: skip
    for title, groups in named:
        if groups:
            yield section(title, [table(tables.GROUP_COLUMNS, tables.group_rows(groups))])


def _happenings(report: Report) -> Iterator[Markup]:
    if report.rollouts:
        yield section("Rollouts", _rollouts(report))
    if report.errors:
        errors = [
            (one.kind, str(one.count), f"{one.first_at:.1f}", f"{one.last_at:.1f}", one.detail)
            for one in report.errors
        ]
        yield section("Errors", [table(("kind", "count#", "first at#", "last at#", "one of them"), errors)])
    if report.events:
        events = [
            (f"{one.at:.1f}", one.action, one.subject, f"{one.seconds:.2f}", one.error or one.detail)
            for one in report.events
        ]
        columns = ("at#", "action", "subject", "took s#", "outcome")
        yield section("What was done to the server", [table(columns, events)])


def _rollouts(report: Report) -> Iterator[Markup]:
    yield table(tables.ROLLOUT_COLUMNS, tables.rollout_rows(report))
    for rollout in report.rollouts:
        rows = [
            (f"{one.at:.1f}", one.state, f"{one.weight / 100:g}%", one.reason, one.sentence)
            for one in rollout.changes
        ]
        yield table(("at#", "state", "weight#", "reason", "sentence"), rows)
