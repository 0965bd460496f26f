"""`wardrobe loadtest run|compare|list|prepare`. Imports nothing heavy at its top."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, common_options, local_options, pass_session
from registry.errors import UsageError

if TYPE_CHECKING:
    from loadtests.runner.preparing import Weights
    from loadtests.runner.results.documents import Report, RunComparison
    from loadtests.runner.scenario import Scenario

_PATH = UserPath()
_CHANGES = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key (arrival.rate=4); repeatable."
)


@click.group(short_help="Load a server with adapter traffic and check thresholds.")
def loadtest() -> None:
    """Load a server with adapter traffic and check thresholds.

    A SCENARIO is a packaged one (see `list`) or a YAML file; the same file drives locust with
    `locust -f loadtests/locustfile.py --scenario FILE`.
    """


@loadtest.command()
@click.argument("scenario")
@click.option("--out", type=_PATH, metavar="DIR", help="New folder for the results (default load-results/…).")
@_CHANGES
@click.option("--dry-run", is_flag=True, help="Print what would be sent; send nothing.")
@click.option(
    "--admin-url", metavar="URL", help="Replica that receives the actions when --url is a balancer."
)
@common_options
@pass_session
def run(
    session: Session,
    scenario: str,
    out: Path | None,
    changes: tuple[str, ...],
    dry_run: bool,
    admin_url: str | None,
) -> None:
    """Run SCENARIO against --url, or a live server of the root.

    Requests start when they are due, whatever the server does; latency counts from then. Writes
    requests.jsonl, report.json, report.md, report.html and junit.xml. Exit 1 when a threshold is missed,
    130 after Ctrl-C (the report is then marked partial).
    """
    from loadtests.runner import run as running
    from loadtests.runner.loading import load_scenario
    from loadtests.runner.target import ServerTarget

    found = load_scenario(scenario, changes)
    plan = running.make_plan(found)
    if dry_run:
        _print_plan(session, found, len(plan), float(plan.times[-1]))
        return
    running.import_client()
    key = session.api_key
    target = ServerTarget.find(session.root_path, session.url, key).with_admin(admin_url)
    target.check(plan.scenario.adapters.models, found.needs)
    folder = running.fresh_folder(out, found.name)
    with output.progress(f"loadtest {found.name}", len(plan)) as advance:
        done = running.run(plan, target, folder, advance)
    _print_report(session, done.report)
    output.print_notice(f"report: {folder / 'report.html'}")
    if done.report.partial:
        raise KeyboardInterrupt
    if not done.report.passed:
        click.get_current_context().exit(1)


@loadtest.command()
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
@click.option(
    "--fail-on",
    "bars",
    multiple=True,
    metavar="METRIC>RATIO",
    help="Exit 1 when B / A is beyond it and the interval excludes 1, or the runs are not comparable.",
)
@local_options
@pass_session
def compare(session: Session, a: Path, b: Path, bars: tuple[str, ...]) -> None:
    """Compare two runs: A (before) and B (after).

    Prints ratios with 95 % intervals, and says when two runs are not comparable: different traffic, a
    saturated generator, an interrupted run.
    """
    from loadtests.runner.results.comparison import Bar, FinishedRun
    from loadtests.runner.results.comparison import compare as compare_runs

    wanted = [Bar.parse(text) for text in bars]
    found = compare_runs(FinishedRun.read(a), FinishedRun.read(b), wanted)
    output.print_json(found) if session.as_json else _print_comparison(found)
    if wanted and (found.failed or not found.comparable):
        click.get_current_context().exit(1)


@loadtest.command("list")
@click.option("--metrics", is_flag=True, help="List the metrics that a threshold may name.")
@local_options
@pass_session
def list_(session: Session, metrics: bool) -> None:
    """List the packaged scenarios."""
    from loadtests.runner.loading import load_scenario, packaged

    if metrics:
        _print_metrics(session)
        return
    found = [load_scenario(name) for name in packaged()]
    if session.as_json:
        output.print_json(found)
        return
    rows = [
        (one.name, f"{one.total_seconds:g}", str(len(set(one.adapters.models))), one.about) for one in found
    ]
    output.print_table(("scenario", "seconds#", "adapters#", "about"), rows)


@loadtest.command()
@click.argument("scenario")
@_CHANGES
@click.option("--like", metavar="NAME@N", help="Copy this version instead of making random weights.")
@common_options
@pass_session
def prepare(session: Session, scenario: str, changes: tuple[str, ...], like: str | None) -> None:
    """Register the adapters that SCENARIO needs and are missing.

    On the root: random weights of the base's own shapes. Over --url: copies of --like NAME@N.
    """
    from loadtests.runner import preparing
    from loadtests.runner.loading import load_scenario

    found = load_scenario(scenario, changes)
    client = session.client()
    wanted = preparing.missing(found, client)
    with tempfile.TemporaryDirectory(prefix="wardrobe-prepare-") as scratch:
        weights = (
            _synthetic(session, found) if like is None else preparing.copies(like, client, Path(scratch))
        )
        with output.progress(f"prepare {found.name}", len(wanted)) as advance:
            names = []
            for one in wanted:
                names.append(preparing.register(one, weights, client))
                advance(1)
    if session.as_json:
        click.echo(json.dumps({"registered": names}))
        return
    output.print_line(
        f"{found.name}: {len(names)} versions registered" + (f", {names[0]} …" if names else "")
    )


def _synthetic(session: Session, scenario: Scenario) -> Weights:
    from loadtests.runner import preparing

    if session.url is not None:
        fact = "the base's shapes are not known over HTTP"
        raise UsageError("--url", fact, "give --like NAME@N, or work on the root with --root")
    assert scenario.prepare is not None
    return preparing.synthetic(session.registry().base, scenario.prepare)


def _print_metrics(session: Session) -> None:
    from loadtests.runner.metrics import known_metrics, meanings

    if session.as_json:
        click.echo(json.dumps(known_metrics()))
        return
    output.print_table(("metric", "meaning"), meanings())


def _print_plan(session: Session, scenario: Scenario, requests: int, last: float) -> None:
    if session.as_json:
        output.print_json(scenario)
        return
    output.print_facts(
        [
            ("scenario", f"{scenario.name}: {scenario.about}"),
            ("requests", f"{requests}, the last one {last:.1f} s after the begin"),
            ("adapters", f"{len(set(scenario.adapters.models))}, {scenario.adapters.models[0]} first"),
            ("time", f"{scenario.warmup_seconds:g} s of warm-up, {scenario.duration_seconds:g} s measured"),
            (
                "actions",
                ", ".join(f"{one.action} {one.adapter}".strip() for one in scenario.actions) or "none",
            ),
            ("thresholds", str(len(scenario.thresholds))),
            ("needs", scenario.needs or "nothing"),
        ]
    )


def _print_report(session: Session, report: Report) -> None:
    from loadtests.runner.results import tables

    if session.as_json:
        output.print_json(report)
        return
    output.print_facts(tables.facts(report))
    output.print_line("")
    output.print_table(("ms", *tables.SPREAD_COLUMNS[1:]), tables.spreads(report.overall))
    if len(report.adapters) + len(report.arms) > 2:
        output.print_line("")
        output.print_table(tables.GROUP_COLUMNS, tables.group_rows([*report.arms, *report.adapters]))
    if report.rollouts:
        output.print_line("")
        output.print_table(tables.ROLLOUT_COLUMNS, tables.rollout_rows(report))
    for error in report.errors:
        output.print_line(f"error {error.kind}: {error.count}, for instance: {error.detail}")
    for event in report.events:
        if event.error:
            output.print_warning(f"{event.action} {event.subject} at {event.at:.1f} s: {event.error}")
    output.print_line("")
    output.print_line(tables.verdict(report))


def _print_comparison(found: RunComparison) -> None:
    from loadtests.runner.results.tables import number

    rows = [
        (
            one.metric,
            number(one.a, 3),
            number(one.b, 3),
            number(one.ratio, 3),
            "–" if one.low is None else f"{one.low:.3f} … {one.high:.3f}",
            one.verdict,
        )
        for one in found.ratios
        if one.a is not None or one.b is not None
    ]
    output.print_table(("metric", "a#", "b#", "b/a#", "95 %", "b is"), rows)
    for obstacle in found.obstacles:
        output.print_warning(f"not comparable: {obstacle}")
    for failure in found.failed:
        output.print_line(f"FAILED {failure}")
    output.print_notice("intervals: blocks of time within each run; repeat A to see what a repetition adds")
