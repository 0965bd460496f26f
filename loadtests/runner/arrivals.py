"""When requests are due: seeded times, all known before the first one is sent.

A process of unit rate is drawn first and then bent by the wanted rate over time, so stages keep each
process's character exactly (an inhomogeneous Poisson process stays one). Times are seconds from the
run's begin, ascending.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtests.runner.scenario import Arrival, RampStage
from registry.errors import NotFound, UsageError

Times = NDArray[np.float64]
_BLOCK = 4_096


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of a trace; None where it does not say. `blocks` are ids of 512 shared tokens each."""

    at: float
    model: str | None = None
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    blocks: tuple[int, ...] = ()


def draw_times(arrival: Arrival, seconds: float, rng: np.random.Generator) -> Times:
    """Return the times within [0, seconds) of a constant, Poisson or gamma process."""
    ends, totals = _curve(arrival.stages or (RampStage(rate=arrival.rate, seconds=seconds),), seconds)
    if arrival.process == "constant":
        units = np.arange(0.0, totals[-1])
    else:
        units = _renewals(arrival.burstiness, float(totals[-1]), rng)
    times = np.interp(units, totals, ends)
    return times[times < seconds]


def read_trace(path: Path, seconds: float, speed: float) -> list[Recorded]:
    """Return the arrivals of a JSON Lines file within [0, seconds), in order.

    Knows our own `requests.jsonl` (`at` in seconds, `model`, `prompt_tokens`, `max_tokens`; later turns of
    a conversation are left out) and the Mooncake form (`timestamp` in milliseconds, `input_length`,
    `output_length`, `hash_ids`).

    Raises: NotFound: no file; UsageError: a line that is neither, or no arrival at all.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise NotFound(str(path), "there is no such trace", "correct arrival.trace") from error
    found = [_line(line, f"{path}:{number}", speed) for number, line in enumerate(lines, 1) if line.strip()]
    kept = sorted((one for one in found if one is not None and 0 <= one.at < seconds), key=lambda o: o.at)
    if not kept:
        fact = f"holds no arrival within {seconds:g} s"
        raise UsageError(str(path), fact, "raise duration_seconds or arrival.speed")
    return kept


def _curve(stages: Sequence[RampStage], seconds: float) -> tuple[Times, Times]:
    """Return the ends of the stages, repeated over `seconds`, and the arrivals expected until each."""
    ends, totals = [0.0], [0.0]
    while ends[-1] < seconds:
        for stage in stages:
            length = min(stage.seconds, seconds - ends[-1])
            ends.append(ends[-1] + length)
            totals.append(totals[-1] + stage.rate * length)
            if ends[-1] >= seconds:
                break
    return np.array(ends), np.array(totals)


def _renewals(shape: float, total: float, rng: np.random.Generator) -> Times:
    """Return the points in [0, total) of a renewal process with gamma gaps of mean 1."""
    blocks: list[Times] = []
    last = 0.0
    while last < total:
        points = last + np.cumsum(rng.gamma(shape, 1.0 / shape, _BLOCK))
        blocks.append(points)
        last = float(points[-1])
    points = np.concatenate(blocks) if blocks else np.empty(0)
    return points[points < total]


def _line(text: str, where: str, speed: float) -> Recorded | None:
    try:
        row = json.loads(text)
        if "timestamp" in row:
            return Recorded(
                at=float(row["timestamp"]) / 1_000 / speed,
                model=row.get("model"),
                prompt_tokens=int(row["input_length"]),
                max_tokens=int(row["output_length"]),
                blocks=tuple(int(block) for block in row.get("hash_ids", ())),
            )
        if row.get("turn", 0):
            return None
        tokens, answer = row.get("prompt_tokens"), row.get("max_tokens")
        return Recorded(float(row["at"]) / speed, row.get("model"), tokens or None, answer or None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fact = f"is not an arrival ({type(error).__name__}: {error})"
        raise UsageError(where, fact, "write {at, model?, prompt_tokens?, max_tokens?}") from error
