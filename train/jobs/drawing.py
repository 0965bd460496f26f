"""The curves of a job: which lines of `metrics.jsonl` become which plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from markupsafe import Markup
from pydantic import JsonValue

from registry.report.parts import html, joined, note
from registry.report.plots import Curve, Plot
from train.jobs.records import JobDetail

_MOST_CURVES = 24
_NAMES = {
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "tokens_per_second": "Tokens per second",
    "entropy": "Entropy of the tokens (nats)",
    "mean_token_accuracy": "Share of tokens guessed right",
}
_NO_CURVES = frozenset({"at", "kind", "step", "loss", "tokens", "seconds", "epoch", "num_tokens"})

_One = TypeVar("_One")


def curves(job: JobDetail, steps: Sequence[Mapping[str, JsonValue]]) -> Iterator[Markup]:
    """Yield the loss with the held-out loss, then whatever else was measured, a plot for each."""
    cuts = [(float(step), "gone on") for step in job.status.resumed]
    taken = number(job.status.summary.get("taken"))
    if taken is not None and taken != job.status.step:
        cuts.append((taken, "taken"))
    losses = [
        Curve("training", _points(steps, "loss")),
        Curve("held-out", _points(job.evaluations, "eval_loss")),
    ]
    drawn = Plot("Loss by step", losses, cuts)
    if not drawn.drawn:
        yield note("No step was logged yet.")
        return
    yield drawn.figure()
    keys = _keys(steps)
    small = [*_scores(job), *(_other(steps, key) for key in keys[:_MOST_CURVES])]
    if any(small):
        yield html('<div class="small">{}</div>', joined(small))
    if len(keys) > _MOST_CURVES:
        yield note(f"Also measured, in metrics.jsonl: {', '.join(keys[_MOST_CURVES:])}.")


def number(value: object) -> float | None:
    """Return a measured value as a number; None for what is none."""
    if type(value) is float:  # nearly all are
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def spread(lines: Sequence[_One], most: int) -> list[_One]:
    """Return at most `most` of `lines`, evenly from the first to the last."""
    if len(lines) <= most:
        return list(lines)
    return [lines[index * (len(lines) - 1) // (most - 1)] for index in range(most)]


def _scores(job: JobDetail) -> Iterator[Markup]:
    scored = [(one.get("step"), one.get("scores")) for one in job.evaluations]
    names = dict.fromkeys(name for _, scores in scored if isinstance(scores, dict) for name in scores)
    for name in list(names)[:_MOST_CURVES]:
        lines = [
            {"step": step, "value": scores[name]}
            for step, scores in scored
            if isinstance(scores, dict) and name in scores
        ]
        yield Plot(f"{name}, of the suite", [Curve(name, _points(lines, "value"))]).figure()


def _keys(steps: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """Return what was measured beside the loss, what every method measures first."""
    keys = dict.fromkeys(key for line in steps for key in line if key not in _NO_CURVES)
    return sorted(keys, key=lambda name: name not in _NAMES)


def _other(steps: Sequence[Mapping[str, JsonValue]], key: str) -> Markup:
    return Plot(_NAMES.get(key, key), [Curve(key, _points(steps, key))]).figure()


def _points(lines: Sequence[Mapping[str, JsonValue]], key: str) -> list[tuple[float, float]]:
    """Return (step, value) of the lines that have `key`, by step; a null stands for what is not finite."""
    found = []
    for line in lines:
        step = number(line.get("step"))
        value = math.nan if key in line and line[key] is None else number(line.get(key))
        if step is not None and math.isfinite(step) and value is not None:
            found.append((step, value))
    return sorted(found, key=lambda point: point[0])
