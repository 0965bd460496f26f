"""`wardrobe usage`: requests and tokens by group, key, adapter or day, and what they cost."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, common_options, pass_session
from registry.errors import UsageError

if TYPE_CHECKING:
    from registry.api.group_documents import UsageReport

_COUNTS = ("requests", "refused", "input_tokens", "output_tokens", "cached_tokens")


@click.command(short_help="Show requests and tokens, and what they cost.")
@click.option("--since", metavar="DAY", help="First day in UTC, such as 2026-01-31 (default: 30 days).")
@click.option("--until", metavar="DAY", help="Last day in UTC, included (default: today).")
@click.option(
    "--by", default="group", show_default=True, metavar="WHAT,…", help="Any of day, group, key, adapter."
)
@click.option("--group", metavar="NAME", help="Of this group only.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@common_options
@pass_session
def usage(
    session: Session, since: str | None, until: str | None, by: str, group: str | None, as_csv: bool
) -> None:
    """Show requests and tokens by group, key, adapter or day.

    Money stands in a column where wardrobe.toml has `[prices]`. Days that ended long ago are summed to their
    month (`[retention] usage_days`).
    """
    from registry.api import group_operations

    if as_csv and session.as_json:
        raise UsageError("--csv and --json", "exclude each other", "give one of them")
    report = group_operations.show_usage(session.client(), since, until, by, group)
    for name, problem in report.problems.items():
        output.print_warning(f"{name} is not counted: {problem}")
    if session.as_json:
        output.print_json(report)
    elif as_csv:
        _print_csv(report)
    else:
        _print_table(report)


def _print_csv(report: UsageReport) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*report.by, *_COUNTS, "cost", "currency", "unpriced_tokens"])
    for one in report.totals:
        cost = "" if one.cost is None else f"{one.cost:.6f}"
        counts = [getattr(one, name) for name in _COUNTS]
        names = [getattr(one, word) for word in report.by]
        writer.writerow([*names, *counts, cost, report.currency, one.unpriced_tokens])
    click.echo(text.getvalue(), nl=False)


def _print_table(report: UsageReport) -> None:
    money = (f"{report.currency}#",) if report.currency else ()
    columns = (*report.by, *(f"{name.replace('_', ' ')}#" for name in _COUNTS), *money)
    rows = [
        (
            *(str(getattr(one, word)) for word in report.by),
            *(f"{getattr(one, name):,}" for name in _COUNTS),
            *(("-" if one.cost is None else f"{one.cost:,.2f}",) if money else ()),
        )
        for one in report.totals
    ]
    output.print_table(columns, rows)
    output.print_notice(f"{report.since} to {report.until}, UTC")
