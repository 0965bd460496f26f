"""Whether a run holds its bars: the scenario's thresholds, and what every run must be to be believed."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.runner.metrics import DISTRIBUTIONS, ROLLOUT, STATISTICS
from loadtests.runner.ramp import rollout_figure
from loadtests.runner.results.documents import BarCheck, FigureGroup, Figures, Generator, RolloutDocument
from loadtests.runner.results.figures import figure
from loadtests.runner.scenario import Scenario, Threshold


def checks(
    scenario: Scenario,
    overall: Figures,
    groups: Sequence[FigureGroup],
    found: Sequence[RolloutDocument],
    generator: Generator,
    *,
    partial: bool,
    failed_actions: int,
) -> list[BarCheck]:
    """Return every check, the run's own first."""
    kept = BarCheck(
        name="generator kept time",
        found=generator.lag_ms,
        bar=f"lag {generator.lag_statistic} ≤ {generator.limit_ms:g} ms, none shed",
        passed=not generator.saturated,
        sentence=generator.sentence,
    )
    whole = BarCheck(
        name="run is whole",
        found=None,
        bar="not interrupted, something answered",
        passed=not partial and overall.ok > 0,
        sentence="the run was interrupted"
        if partial
        else "the run went to its end"
        if overall.ok
        else f"not one of {overall.requests} measured requests was answered",
    )
    bars = [_check(bar, overall, groups, found, failed_actions) for bar in scenario.thresholds]
    return [kept, whole, *bars]


def _check(
    bar: Threshold,
    overall: Figures,
    groups: Sequence[FigureGroup],
    found: Sequence[RolloutDocument],
    failed_actions: int,
) -> BarCheck:
    figures = _narrowed(bar, overall, groups)
    value: float | None = None
    if bar.metric in ROLLOUT:
        value = rollout_figure(found, bar.metric, bar.reason)
    elif bar.metric == "actions.failed":
        value = failed_actions
    elif figures is not None:
        value = figure(figures, bar.metric)
    limit = bar.at_most if bar.at_most is not None else bar.at_least
    assert limit is not None
    sign = "≤" if bar.at_most is not None else "≥"
    held = value is not None and (value <= limit if bar.at_most is not None else value >= limit)
    place = "".join(f"{word} {name}: " for word, name in _places(bar) if name)
    name = f"{place}{bar.metric}"
    sentence = f"{name} = {value:.6g}" if value is not None else f"{name}: {_why(bar, figures, found)}"
    return BarCheck(name=name, found=value, bar=f"{sign} {limit:g}", passed=held, sentence=sentence)


def _places(bar: Threshold) -> tuple[tuple[str, str | None], ...]:
    return ("adapter", bar.adapter), ("arm", bar.arm), ("reason", bar.reason)


def _narrowed(bar: Threshold, overall: Figures, groups: Sequence[FigureGroup]) -> Figures | None:
    if bar.adapter is None and bar.arm is None:
        return overall
    wanted = (bar.adapter or "", bar.arm or "", "")
    return next((one.figures for one in groups if (one.adapter, one.arm, one.version) == wanted), None)


def _why(bar: Threshold, figures: Figures | None, found: Sequence[RolloutDocument]) -> str:
    if bar.metric in ROLLOUT:
        return _never(found[0]) if found else "the run saw no rollout"
    if figures is None:
        return "no measured request belongs there"
    name, _, statistic = bar.metric.partition(".")
    if name in DISTRIBUTIONS:
        spread = figures.distributions[name]
        if spread is None:
            return "no request has such a figure"
        needed = round(100 / (100 - STATISTICS[statistic]))
        return f"needs {needed} values, found {spread.n}"
    return "there is nothing to count"


def _never(rollout: RolloutDocument) -> str:
    last = rollout.changes[-1].sentence if rollout.changes else ""
    return f"it never came to that; {rollout.canary} was last {rollout.state}" + (
        f" ({last})" if last else ""
    )
