"""`wardrobe rollout simulate`: how a policy would do on made-up traffic, beside other tools' rules."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from registry.errors import UsageError

if TYPE_CHECKING:
    from serve.rollout.simulation.report import SimulationDocument

SEED = 20_261_122


@click.command(short_help="Simulate a policy on synthetic traffic.")
@click.option(
    "--policy",
    default="default",
    show_default=True,
    metavar="FILE|PRESET",
    help="default, fast, low-traffic, or a YAML file.",
)
@click.option(
    "--requests-per-minute",
    type=click.FloatRange(min=0.1),
    default=600,
    show_default=True,
    help="Requests to the adapter, of both arms.",
)
@click.option(
    "--base-error",
    type=click.FloatRange(0, 0.9),
    default=0.01,
    show_default=True,
    help="Stable's share of failing requests.",
)
@click.option("--errors", type=click.FloatRange(min=0), default=1, help="Factor on the canary's error rate.")
@click.option(
    "--failing",
    type=click.FloatRange(0, 1),
    default=0,
    help="Additional share of the canary's requests that fails.",
)
@click.option("--latency", type=click.FloatRange(0.1), default=1, help="Factor on the canary's latency.")
@click.option(
    "--feedback-drop", type=click.FloatRange(0, 1), default=0, help="Drop of the canary's mean score."
)
@click.option("--from-step", type=click.IntRange(min=0), default=0, help="First bad step (0: the first).")
@click.option(
    "--rated",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of requests that get a rating.",
)
@click.option(
    "--sticky",
    type=click.IntRange(min=2),
    metavar="USERS",
    help="Simulate this many users instead of single requests.",
)
@click.option(
    "--weight", type=click.IntRange(1, 5_000), help="Fixed weight in basis points instead of the ramp."
)
@click.option(
    "--minutes", type=click.IntRange(min=1), default=60, show_default=True, help="Longest simulated time."
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=1_000, show_default=True, help="Simulated rollouts."
)
@click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of the traffic.")
@click.option("--plot", type=UserPath(dir_okay=False), metavar="FILE.png", help="Draw a PNG.")
@local_options
@pass_session
def simulate(session: Session, /, plot: Path | None, **options: Any) -> None:
    """Simulate a policy on synthetic traffic: how often and how soon it rolls back.

    Without --errors, --failing, --latency or --feedback-drop the canary is identical, and every rollback
    is a false one. Beside it the rules of other tools, which look at errors alone, at 10 % (or --weight).
    The same seed gives the same figures.
    """
    from serve.rollout.simulation.plots import draw_png
    from serve.rollout.simulation.report import SimulationOptions, simulated

    if plot is not None and find_spec("matplotlib") is None:
        fact = "needs matplotlib, which is not installed"
        raise UsageError("--plot", fact, "pip install 'wardrobe-llm[plot]', or leave it out", param="plot")
    wanted = SimulationOptions(**options)
    with output.progress("simulate", wanted.runs) as advance:
        document = simulated(wanted, advance)
    if plot is not None:
        draw_png(document.rules, wanted.minutes, str(plot))
    if session.as_json:
        output.print_json(document)
        return
    _show(document)
    if plot is not None:
        output.print_line(f"plot: {plot}")


def _show(document: SimulationDocument) -> None:
    """Print the table, the plot of text and what is not in them."""
    from serve.rollout.simulation.plots import bars
    from serve.rollout.simulation.report import COLUMNS, cells

    wanted, first = document.wanted, document.rules[0]
    what = "an identical canary, so every rollback is a false one" if wanted.identical else "a worse canary"
    output.print_line(f"{wanted.runs:,} runs of at most {wanted.minutes} min, seed {wanted.seed}: {what}")
    output.print_table(COLUMNS, [cells(row) for row in document.rules])
    output.print_line("")
    for line in bars(first, wanted.minutes):
        output.print_line(line)
    if first.reasons:
        found = ", ".join(f"{metric} {count:,}" for metric, count in first.reasons.items())
        output.print_line(f"rolled back by: {found}")
    if first.promoted and first.promoted_minutes:
        output.print_line(f"promoted: {first.promoted:.1%}, median after {first.promoted_minutes:.0f} min")
