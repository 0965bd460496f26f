"""How often a rollout takes back an identical canary, and how soon it finds a bad one: `make bench-rollouts`.

Simulated (`serve.rollout.simulation`), 10,000 runs a row, one look a second, fixed seeds: the figures are
the same on every machine with the same numpy. Beside them the rules of other tools on the same traffic.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loadtests.bench.results import FOLDER, MeasuredFigure, MedianInterval, publish
from serve.rollout.policy import ErrorMetric, LatencyMetric, Policy, PolicyMetrics
from serve.rollout.presets import load_policy
from serve.rollout.simulation import incumbents
from serve.rollout.simulation.ramp import ROLLED_BACK, Outcomes, play
from serve.rollout.simulation.summary import ShareOfRuns, SimulationSummary, at_weight, only, summarize
from serve.rollout.simulation.traffic import Effect, TrafficModel

NAME = "rollouts"
RUNS = 10_000
SEED = 20_261_122
WEIGHT = 1_000
USERS = 500
MINUTES = 60
ENOUGH_MINUTES = 480
FALSE_LIMIT = 0.05
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """One row: what is played, and the bar (canary requests, or None for false rollbacks)."""

    name: str
    policy: Policy
    traffic: TrafficModel
    effect: Effect
    minutes: float
    most_requests: int | None = None


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """A case and what came of it."""

    case: Case
    seed: int
    outcomes: Outcomes
    summary: SimulationSummary

    def figure(self) -> MeasuredFigure:
        """Return the row as a figure: a share in per cent with its limits, or the median and its interval."""
        if self.case.most_requests is None:
            share = self.summary.rolled_back
            shown = MedianInterval(100 * share.value, 100 * share.lower, 100 * share.upper, share.runs)
            reached = share.upper <= FALSE_LIMIT
            return MeasuredFigure(self.case.name, shown, "% rolled back", "upper limit ≤ 5", reached)
        value = median_requests(self.outcomes)
        bar = self.case.most_requests
        return MeasuredFigure(self.case.name, value, "canary requests", f"≤ {bar:,}", value.median <= bar)


def main(runs: int = RUNS) -> bool:
    """Play all rows, write `bench-results/rollouts.{json,md}`, and return whether all bars held."""
    began = time.monotonic()
    rows = []
    for number, case in enumerate(cases()):
        row = run(case, runs, SEED + number)
        print(f"{time.monotonic() - began:5.0f} s  {case.name}: {row.figure().value}", flush=True)
        rows.append(row)
    others = list(compare(runs))
    notes = [
        f"{runs:,} runs a row, seeds {SEED} + number of the row; one look a second",
        "shares: one-sided 95 % Clopper-Pearson limits; medians: a run never rolled back is endless",
        f"took {time.monotonic() - began:.0f} s on one core",
        *(_note(row) for row in rows),
    ]
    reached = publish(NAME, [row.figure() for row in rows], notes=notes)
    _append(others)
    return reached


def run(case: Case, runs: int, seed: int) -> SimulatedCase:
    """Return a played row."""
    outcomes = play(case.policy, case.traffic, case.effect, runs=runs, minutes=case.minutes, seed=seed)
    return SimulatedCase(case, seed, outcomes, summarize(outcomes))


def cases() -> Iterator[Case]:
    """Yield what the fourth issue asks for: first identical canaries, then bad ones at 10 %."""
    default = load_policy("default")
    for rate in (600, 60):
        for error in (0.01, 0.03):
            traffic = f"{rate} requests/min, {error:.0%} errors"
            yield Case(
                f"identical, whole ramp, {traffic}",
                default,
                TrafficModel(rate, error),
                Effect(),
                ENOUGH_MINUTES,
            )
            crowd = TrafficModel(rate, error, users=USERS)
            minutes = MINUTES if rate == 600 else 2 * MINUTES
            name = f"identical, whole ramp, {USERS} sticky users, {traffic}"
            yield Case(name, for_crowd(default), crowd, Effect(), minutes)
    split = at_weight(default, WEIGHT)
    errors = alone(default, only(errors=ErrorMetric(alpha=ALPHA)))
    latency = alone(default, only(latency=LatencyMetric(alpha=ALPHA)))
    busy, calm = TrafficModel(600, 0.01), TrafficModel(60, 0.01)
    for policy, name, bars in (
        (errors, "α = 0.05 alone", (10, 140, 1_200)),
        (split, "default split", (10, 190, 1_600)),
    ):
        yield Case(f"half of the requests fail, {name}", policy, calm, Effect(failing=0.5), MINUTES, bars[0])
        yield Case(f"errors ×5 at 1 %, {name}", policy, calm, Effect(errors=5), 2 * MINUTES, bars[1])
        yield Case(f"errors ×2 at 1 %, {name}", policy, busy, Effect(errors=2), MINUTES, bars[2])
    yield Case("latency ×1.2, α = 0.05 alone", latency, busy, Effect(latency=1.2), MINUTES, 600)
    yield Case("latency ×1.2, default split", split, busy, Effect(latency=1.2), MINUTES, 750)


def alone(policy: Policy, metrics: PolicyMetrics) -> Policy:
    """Return `policy` at 10 % with these metrics alone."""
    return at_weight(policy.model_copy(update={"metrics": metrics}), WEIGHT)


def for_crowd(policy: Policy) -> Policy:
    """Return `policy` with least units that a crowd of `USERS` can give: half of each step's share of it."""
    steps = tuple(
        step.model_copy(update={"min_units": step.weight * USERS // 20_000}) for step in policy.steps
    )
    return policy.model_copy(update={"steps": steps, "unit": "user"})


def median_requests(outcomes: Outcomes) -> MedianInterval:
    """Return the median canary requests until the rollback with its 95 % interval by ranks."""
    fired = outcomes.state == ROLLED_BACK
    ordered = np.sort(np.where(fired, outcomes.canary_requests, np.inf))
    half = 0.98 * np.sqrt(ordered.size)
    low, middle, high = (
        float(ordered[int(np.clip(ordered.size / 2 + shift, 0, ordered.size - 1))])
        for shift in (-half, 0, half)
    )
    return MedianInterval(middle, low, high, int(ordered.size))


def compare(runs: int) -> Iterator[tuple[str, list[str]]]:
    """Yield a table's rows: our test of errors and other tools' rules, six kinds of traffic each."""
    kinds = list(_kinds())
    policy = alone(load_policy("default"), only(errors=ErrorMetric(alpha=ALPHA)))
    played = [
        play(policy, traffic, effect, runs=runs, minutes=MINUTES, seed=SEED + 100 + number)
        for number, (_, traffic, effect) in enumerate(kinds)
    ]
    yield "rule (10 %, 60 min)", [name for name, _, _ in kinds]
    yield (
        "Wardrobe, errors alone, α = 0.05",
        [_cell(one.state == ROLLED_BACK, one.canary_requests) for one in played],
    )
    drawn = [
        incumbents.draw(traffic, effect, WEIGHT, runs=runs, minutes=MINUTES, seed=SEED + 200 + number)
        for number, (_, traffic, effect) in enumerate(kinds)
    ]
    for name, rule in incumbents.rules().items():
        cells = []
        for minutes, (_, traffic, _) in zip(drawn, kinds, strict=True):
            found = incumbents.decide(rule, minutes, traffic.base_error)
            cells.append(_cell(found.fired, found.canary_requests))
        yield name, cells


def _kinds() -> Iterator[tuple[str, TrafficModel, Effect]]:
    for rate in (600, 60):
        for error in (0.01, 0.03):
            yield f"identical, {rate}/min, {error:.0%}", TrafficModel(rate, error), Effect()
    yield "×2, 600/min, 1%", TrafficModel(600, 0.01), Effect(errors=2)
    yield "×5, 60/min, 1%", TrafficModel(60, 0.01), Effect(errors=5)


def _cell(fired: np.ndarray, requests: np.ndarray) -> str:
    """Return the share that was rolled back and the median canary requests of these."""
    share = ShareOfRuns(int(fired.sum()), fired.size)
    after = f", {np.median(requests[fired]):,.0f}" if share.value >= 0.01 else ""
    return f"{share.value:.1%}{after}"


def _note(row: SimulatedCase) -> str:
    """Return what a row's table line leaves out."""
    found = row.summary
    by = ", ".join(f"{metric} {count:,}" for metric, count in found.reasons.items() if count) or "nothing"
    text = f"{row.case.name} (seed {row.seed}): rolled back {found.rolled_back.count:,} by {by}"
    if row.case.most_requests is None:
        took = (
            "" if found.promoted_seconds is None else f", median after {found.promoted_seconds / 60:.0f} min"
        )
        return f"{text}; promoted {found.promoted.value:.1%}{took}"
    tenth = "endless" if found.requests[1] is None else f"{found.requests[1]:,.0f}"
    return f"{text}; 90 % of runs within {tenth} canary requests; median failed {found.failed:.0f}"


def _append(rows: list[tuple[str, list[str]]]) -> None:
    """Add the comparison to both files."""
    lines = [f"| {name} | {' | '.join(cells)} |\n" for name, cells in rows]
    lines.insert(1, "|---" * (len(rows[0][1]) + 1) + "|\n")
    text = "\n## Beside other tools\n\nShare rolled back, and the median canary requests of these runs.\n\n"
    with (FOLDER / f"{NAME}.md").open("a") as file:
        file.write(text + "".join(lines))
    print(text + "".join(lines), flush=True)
    path = FOLDER / f"{NAME}.json"
    document = json.loads(path.read_text())
    document["comparison"] = [[name, *cells] for name, cells in rows]
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
