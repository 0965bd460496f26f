"""The report as Markdown, for a pull request or an issue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.runner.results import tables
from loadtests.runner.results.documents import Report


def markdown(report: Report) -> str:
    """Return the document."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# Load test: {_cell(str(report.scenario['name']))}"
    yield f"\n**{_cell(tables.verdict(report))}**\n"
    yield _cell(str(report.scenario["about"])) + "\n"
    yield from (f"- {name}: {_cell(value)}" for name, value in tables.facts(report))
    yield "\n## Latency in ms (from the intended start, unless `service`)\n"
    yield from _table(tables.SPREAD_COLUMNS, tables.spreads(report.overall))
    for title, groups in (
        ("Arms", report.arms), ("Adapters", report.adapters), ("Adapters by arm", tables.by_arm(report)),
    ):  # fmt: skip
        if groups:
            yield f"\n## {title}\n"
            yield from _table(tables.GROUP_COLUMNS, tables.group_rows(groups))
    if report.rollouts:
        yield "\n## Rollouts\n"
        yield from _table(tables.ROLLOUT_COLUMNS, tables.rollout_rows(report))
    if report.errors:
        yield "\n## Errors\n"
        rows = [
            (one.kind, str(one.count), f"{one.first_at:.1f}–{one.last_at:.1f}", one.detail)
            for one in report.errors
        ]
        yield from _table(("kind", "count#", "seconds", "one of them"), rows)
    if report.events:
        yield "\n## Events\n"
        events = [
            (f"{one.at:.1f}", one.action, one.subject, f"{one.seconds:.2f}", one.error or one.detail)
            for one in report.events
        ]
        yield from _table(("at#", "action", "subject", "took s#", "outcome"), events)
    yield "\n## Checks\n"
    checks = [("yes" if one.passed else "NO", one.sentence, one.bar) for one in report.checks]
    yield from _table(("held", "found", "bar"), checks)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(name.rstrip("#") for name in columns) + " |"
    yield "|" + "|".join("--:" if name.endswith("#") else "---" for name in columns) + "|"
    for row in rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
