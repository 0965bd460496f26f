"""Successive halving (Jamieson and Talwalkar 2016): who is tried, for how long, who goes on. Pure.

Invariants: the same file gives the same trials; the steps of all rungs together never exceed the budget.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from registry.errors import UsageError
from train.sweep.settings import Span, SweepSettings

Values = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Rung:
    """One round: so many trials are trained up to step `until` of `steps`."""

    trials: int
    until: int


def make_rungs(settings: SweepSettings) -> tuple[Rung, ...]:
    """Return the rounds with as many trials, at most `settings.trials`, as the budget holds.

    Raises: UsageError: not even two trials fit.
    """
    plans = [_rungs(trials, settings.eta, settings.steps) for trials in range(settings.trials, 1, -1)]
    for rungs in plans:
        if total_steps(rungs) <= settings.budget_steps:
            return rungs
    # Not always the plan of two: three trials may need fewer steps, because only one of three goes on.
    least = min(map(total_steps, plans))
    fact = f"budget_steps {settings.budget_steps} is not enough for two trials of {settings.steps} steps"
    raise UsageError("sweep", fact, f"raise it to {least} or lower steps", param="budget_steps")


def total_steps(rungs: Sequence[Rung]) -> int:
    """Return the steps of all rounds; a trial that goes on repeats none."""
    before = [0, *(rung.until for rung in rungs)]
    return sum(rung.trials * (rung.until - earlier) for rung, earlier in zip(rungs, before, strict=False))


def draw(settings: SweepSettings, trials: int) -> list[Values]:
    """Return the values of each trial, all different; fewer where there are no more.

    Spans are drawn one from each of `trials` equal parts (a Latin hypercube), so that few trials cover them.
    """
    chance = random.Random(settings.seed)  # noqa: S311  no secret
    lists = {key: found for key, found in settings.space.items() if not isinstance(found, Span)}
    if len(lists) == len(settings.space):
        return _combinations(lists, trials, chance)
    columns = {key: _column(found, trials, chance) for key, found in settings.space.items()}
    drawn = [{key: column[index] for key, column in columns.items()} for index in range(trials)]
    return list({repr(sorted(values.items())): values for values in drawn}.values())


def survivors(scores: Mapping[int, float], count: int, *, higher_is_better: bool) -> list[int]:
    """Return the `count` best trials, best first; one without a number is last, ties go to the earlier."""

    def place(trial: int) -> tuple[bool, float, int]:
        score = scores[trial]
        lost = math.isnan(score)
        return lost, 0.0 if lost else (-score if higher_is_better else score), trial

    return sorted(scores, key=place)[:count]


def with_values(config: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return a copy of a parsed config file with dotted settings replaced."""
    changed: dict[str, Any] = dict(config)
    for key, value in values.items():
        section, _, rest = key.partition(".")
        if rest:
            inner = changed.get(section)
            inner = {"type": inner} if section == "method" and isinstance(inner, str) else inner
            changed[section] = with_values(inner if isinstance(inner, Mapping) else {}, {rest: value})
        else:
            changed[section] = value
    return changed


def _rungs(trials: int, eta: int, steps: int) -> tuple[Rung, ...]:
    counts = [trials]
    while counts[-1] >= eta and steps >= eta ** len(counts):
        counts.append(counts[-1] // eta)
    last = len(counts) - 1
    # Every rung ends on a multiple of the first one, so that one interval of evaluation meets them all.
    first = steps // eta**last
    return tuple(
        Rung(count, steps if place == last else first * eta**place) for place, count in enumerate(counts)
    )


def _combinations(lists: Mapping[str, list[JsonValue]], trials: int, chance: random.Random) -> list[Values]:
    found = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    chance.shuffle(found)
    return list(found[:trials])


def _column(found: list[JsonValue] | Span, trials: int, chance: random.Random) -> list[JsonValue]:
    if isinstance(found, Span):
        column: list[JsonValue] = [found.at((index + chance.random()) / trials) for index in range(trials)]
    else:
        column = [found[index % len(found)] for index in range(trials)]
    chance.shuffle(column)
    return column
