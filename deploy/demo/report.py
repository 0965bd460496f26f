"""What the demo tells at its end: accuracies beside the cheap methods, the swap's record, and what to try.

Owns the sentences. Invariant: the winner is named by the numbers alone, also when it is the cheap method.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.demo.baseline import AccuracyScore
from deploy.demo.canary import CanaryResult
from deploy.demo.data import DemoTask
from deploy.demo.swap import SwapVerdict


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the accuracy table: who answered, after how many training rows."""

    task: DemoTask
    who: str
    rows: int
    score: AccuracyScore
    cheap: bool = False


def accuracy_table(results: Sequence[Result]) -> Table:
    """Return the table of held-out accuracies with their 95 % intervals, a section per task."""
    table = Table(title="Accuracy on held-out rows", title_justify="left")
    table.add_column("who")
    for name in ("trained on", "right", "accuracy", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    before: DemoTask | None = None
    for result in results:
        if result.task is not before:
            table.add_section()
            table.add_row(f"[italic]{result.task.title}, {len(result.task.labels)} labels[/italic]")
            before = result.task
        low, high = result.score.interval
        table.add_row(
            f"  {result.who}" if result.cheap else f"  [bold]{result.who}[/bold]",
            f"{result.rows} rows" if result.rows else "–",
            f"{result.score.right}/{result.score.asked}",
            f"{result.score.accuracy:.3f}",
            f"{low:.3f} – {high:.3f}",
        )
    return table


def conclusions(results: Sequence[Result]) -> list[str]:
    """Return one sentence per adapter: how it stands beside the best cheap method on the same rows."""
    said = []
    for result in results:
        rivals = [one for one in results if one.cheap and one.task is result.task and one.rows == result.rows]
        if result.cheap or not result.rows or not rivals:
            continue
        best = max(rivals, key=lambda one: one.score.right)
        said.append(_compare(result, best))
    return said


def _compare(result: Result, best: Result) -> str:
    difference = result.score.accuracy - best.score.accuracy
    count = f"{abs(difference) * 100:.0f}"
    points = f"{count} point{'' if count == '1' else 's'}"
    if result.score.interval[0] > best.score.interval[1]:
        return f"{result.who} beats the best cheap method ({best.who}) by {points}."
    if result.score.interval[1] < best.score.interval[0]:
        return f"{best.who} beats {result.who} by {points}, in less than a second: use it, not an adapter."
    where = "above" if difference > 0 else "below"
    return f"{result.who} is {points} {where} {best.who}; the intervals overlap, so neither is proved better."


def swap_table(verdict: SwapVerdict, adapter: str) -> Table:
    """Return the table of what the eight streaming clients saw."""
    title = "Eight clients streaming: register, promote, roll back"
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("seen", justify="right")
    answered = ", ".join(f"{adapter}@{number}: {count}" for number, count in verdict.by_version.items())
    table.add_row("requests", str(verdict.requests))
    table.add_row("answered by", answered)
    table.add_row("failed", str(verdict.failures))
    table.add_row("answered by a wrong version", str(verdict.wrong_versions))
    table.add_row("open while stable moved", str(verdict.spanning))
    for name, seconds in zip(("promote", "rollback"), verdict.seconds, strict=False):
        table.add_row(f"wardrobe {name} → first token", f"{seconds:.2f} s")
    return table


def rollouts_table(outcomes: Sequence[CanaryResult]) -> Table:
    """Return the table of the canary rollouts: how each ended, and what the clients saw."""
    table = Table(title="Canary rollouts under load", title_justify="left")
    for name in ("version", "ended", "after", "answered by", "failed"):
        table.add_column(name, overflow="fold")
    for one in outcomes:
        answered = ", ".join(f"{name}: {count}" for name, count in one.answers.items())
        table.add_row(
            one.version, f"{one.state} ({one.reason})", f"{one.seconds:.0f} s", answered, str(one.failures)
        )
    return table


def steps_table(steps: Sequence[tuple[str, str, float]]) -> Table:
    """Return the table of what happened: step, outcome, seconds."""
    table = Table(title="What happened", title_justify="left")
    table.add_column("step")
    table.add_column("outcome", overflow="fold")
    table.add_column("seconds", justify="right")
    for step, outcome, seconds in steps:
        table.add_row(step, outcome, f"{seconds:.0f}")
    table.add_row("[bold]all[/bold]", "", f"[bold]{sum(s for _, _, s in steps):.0f}[/bold]")
    return table


def print_next(console: Console, root: Path, question: str, config: Path) -> None:
    """Print the commands to try next."""
    messages = [{"role": "system", "content": "ICD-10 chapter?"}, {"role": "user", "content": question}]
    body = json.dumps({"model": "medical", "messages": messages}).replace("'", "\\u0027")
    prefix = "" if root.name == "wardrobe-data" and root.parent == Path.cwd() else f" --root {root}"
    lines = (
        f"wardrobe{prefix} serve                          # start the server again, on port 8000",
        f"curl -s localhost:8000/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        f"wardrobe{prefix} promote medical@2              # move stable, at once; rollback undoes it",
        f"wardrobe{prefix} show medical@1 --json          # data hash, config, seed, losses",
        f"wardrobe{prefix} history medical                # what was live when, by whom and why",
        f"wardrobe{prefix} rollout explain medical        # why the last canary was taken back",
        f"wardrobe{prefix} train run {config}",
        f"wardrobe{prefix} status",
    )
    console.print("\n[bold]To try next[/bold] (with .venv/bin on the PATH)")
    for line in lines:
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
