"""Parity: whether the served version says what the PEFT reference says. Pure.

Owns the figures and the rule. Differences are mean absolute ones of log-probabilities (nats) over the same
tokens; the prompts are token ids, so neither tokenizer nor template has a part in them. The tolerance is
measured, not chosen: twice what rounding the reference itself to the served dtype does. Invariant: a server
that answers with the base cannot pass, however little the adapter changes, because its effect, the
difference between adapter and base, must be found in the served answers too: surely more than half of it,
and surely less than one and a half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from train.proving.reference import References, Scores

TOLERANCE_FACTOR = 2.0
"""Right versions were within 1.11 of the rounding, one layer of 30 missing was beyond 2 (README.md)."""

SMALLEST_ROUNDING = 1e-3
"""Nats. Where nothing is rounded (32 bits are served), kernels still add in another order."""

EFFECT_MARGIN = 0.5
"""How far from 1 the effect may be, standard errors included; the base's is 0."""

STANDARD_ERRORS = 4.0
"""How sure that is: tokens of one prompt are not independent, so more than the usual two."""


@dataclass(frozen=True, slots=True)
class ServedParity:
    """What was measured, in nats per token.

    `difference` and `largest` are between the served version and its reference, `base_difference` between
    the served base and its; `distance` is between adapter and base, both of the reference; `rounding` and
    `base_rounding` are between the reference rounded to the served dtype and not. `effect` is the share of
    the adapter's effect that the served answers show (least squares), with its standard error.
    """

    tokens: int
    difference: float
    largest: float
    base_difference: float
    distance: float
    rounding: float
    base_rounding: float
    effect: float
    effect_error: float

    @property
    def tolerance(self) -> float:
        """Return what the served version may differ by."""
        return TOLERANCE_FACTOR * max(self.rounding, SMALLEST_ROUNDING)

    @property
    def base_tolerance(self) -> float:
        """Return what the served base may differ by."""
        return TOLERANCE_FACTOR * max(self.base_rounding, SMALLEST_ROUNDING)

    @property
    def passed(self) -> bool:
        """Tell whether the served version is the reference's, and surely not the base."""
        return not self.fault

    @property
    def fault(self) -> str:
        """Return why it did not pass, '' if it did."""
        figures = (self.difference, self.base_difference, self.distance, self.effect, self.effect_error)
        if not all(math.isfinite(figure) for figure in figures):
            return "log-probabilities are not all finite, or adapter and base are the same"
        if self.base_difference > self.base_tolerance:
            fact = f"the served base is {self.base_difference:.3g} nats per token from the root's base"
            return f"{fact}, over its tolerance of {self.base_tolerance:.3g}: is it the same model and dtype?"
        if self.difference > self.tolerance:
            fact = f"it is {self.difference:.3g} nats per token from the PEFT reference"
            return f"{fact}, over the tolerance of {self.tolerance:.3g}; {self._effect}"
        if abs(self.effect - 1) + STANDARD_ERRORS * self.effect_error >= EFFECT_MARGIN:
            return f"{self._effect}, which is not surely within {EFFECT_MARGIN:g} of all of it"
        return ""

    @property
    def sentence(self) -> str:
        """Return the result for people."""
        if self.fault:
            return self.fault
        fact = f"{self.difference:.3g} nats per token from the PEFT reference, tolerance {self.tolerance:.3g}"
        return f"{fact}; the base is {self.distance:.3g} away; {self._effect}"

    @property
    def _effect(self) -> str:
        return f"the served answers show {self.effect:.0%} ± {self.effect_error:.1%} of the adapter's effect"


def compare(served: Scores, served_base: Scores, references: References) -> ServedParity:
    """Return the figures; all shapes are equal."""
    mine, base = _flat(served), _flat(served_base)
    true, true_base = _flat(references.adapter), _flat(references.base)
    differences = [abs(a - b) for a, b in zip(mine, true, strict=True)]
    effect, error = _effect(_minus(mine, base), _minus(true, true_base))
    return ServedParity(
        tokens=len(mine),
        difference=_mean(differences),
        largest=max(differences, default=math.nan),
        base_difference=_distance(base, true_base),
        distance=_distance(true, true_base),
        rounding=_distance(_flat(references.rounded_adapter), true),
        base_rounding=_distance(_flat(references.rounded_base), true_base),
        effect=effect,
        effect_error=error,
    )


def _effect(found: list[float], wanted: list[float]) -> tuple[float, float]:
    """Return the slope of `found` over `wanted` through the origin, and its standard error."""
    square = math.fsum(value * value for value in wanted)
    if len(found) < 2 or not square:
        return math.nan, math.nan
    slope = math.fsum(a * b for a, b in zip(found, wanted, strict=True)) / square
    residual = math.fsum((a - slope * b) ** 2 for a, b in zip(found, wanted, strict=True))
    return slope, math.sqrt(residual / (len(found) - 1) / square)


def _flat(scores: Scores) -> list[float]:
    return [value for row in scores for value in row]


def _minus(left: list[float], right: list[float]) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]


def _distance(left: list[float], right: list[float]) -> float:
    return _mean([abs(value) for value in _minus(left, right)])


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
