"""What the commands print for a person: plans, statuses, lists, explanations."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from registry.cli import output
from serve.rollout.display.explain import moved, numbers, share, told
from serve.rollout.documents import (
    ExplainDocument,
    PlanDocument,
    PlannedStep,
    RolloutBrief,
    RolloutHistory,
    RolloutStatus,
)


def print_status(status: RolloutStatus) -> None:
    """Print the picture of a rollout once."""
    from rich.console import Console

    from serve.rollout.display.picture import draw

    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else output.PIPE_WIDTH)
    if terminal:
        console.print(draw(status))
        return
    with console.capture() as capture:
        console.print(draw(status))
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_plan(plan: PlanDocument) -> None:
    """Print what a start would do."""
    output.print_facts(_plan_facts(plan))
    rows = [_plan_row(step) for step in plan.steps]
    output.print_table(
        ("weight#", "units#", "dwell#", "requests#", "shows twice the failures", "shows five times"), rows
    )
    tested = [(one.metric, f"{one.alpha:g}", one.sentence) for one in plan.metrics]
    output.print_table(("test", "alpha#", "alarm on"), tested)
    output.print_line(f"an identical canary is rolled back with a probability of at most {plan.alpha:g}")
    output.print_line(f"promotes on {plan.promotes}")
    if plan.requires:
        output.print_line(f"required before it begins: {', '.join(plan.requires)}")
    for warning in plan.warnings:
        output.print_warning(warning)
    output.print_line("nothing was changed: leave out --dry-run to begin")


def print_list(rollouts: Sequence[RolloutBrief]) -> None:
    """Print the last rollout of every adapter."""
    rows = [
        (
            one.canary,
            one.stable,
            one.state,
            share(one.weight) if one.open else "-",
            f"{one.step + 1}/{one.steps}" if one.open else "-",
            one.policy,
            output.moment(one.at),
            f"{one.reason}: {one.sentence}" if one.sentence else one.reason,
        )
        for one in rollouts
    ]
    output.print_table(("canary", "against", "state", "weight#", "step#", "policy", "since", "because"), rows)


def print_explanation(document: ExplainDocument) -> None:
    """Print every decision of a rollout with its numbers."""
    output.print_line(f"rollout {document.rollout}: {document.canary} against {document.stable}")
    for one in document.decisions:
        output.print_line(f"{output.moment(one.at)}  {one.who}  {told(one)}")
        for fact in numbers(one.facts):
            output.print_line(f"    {fact}")


def print_history(document: RolloutHistory) -> None:
    """Print who moved what, when and why."""
    rows = [
        (output.moment(one.at), one.canary, one.event, moved(one), one.who, one.sentence or one.reason)
        for one in document.decisions
    ]
    output.print_table(("when", "canary", "event", "to", "who", "why"), rows)


def _plan_facts(plan: PlanDocument) -> list[tuple[str, str]]:
    facts = [
        ("canary", plan.canary),
        ("against", plan.stable),
        ("policy", plan.policy),
        ("base rate", f"{plan.base_rate:.2%} of requests fail ({plan.base_rate_from})"),
        (
            "takes",
            f"about {plan.requests:,} requests of {plan.adapter} (one a unit), {plan.seconds:g} s or more",
        ),
    ]
    if plan.shadow_requests:
        facts.append(("shadow", f"{plan.shadow_requests:,} of stable's requests come first"))
    if plan.supersedes:
        facts.append(("supersedes", f"the open rollout of {plan.supersedes}"))
    if plan.forced:
        facts.append(("forced", "it was rolled back lately"))
    return facts


def _plan_row(step: PlannedStep) -> tuple[str, ...]:
    found = {
        one.factor: f"{one.failures:,} failures, {one.canary_requests:,} canary requests"
        for one in step.detects
    }
    return (
        share(step.weight),
        f"{step.min_units:,}",
        f"{step.min_seconds:g} s",
        f"{step.requests:,}",
        *(found.get(factor, "-") for factor in (2.0, 5.0)),
    )
