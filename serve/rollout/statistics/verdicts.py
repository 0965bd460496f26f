"""From an e-value to a verdict and a sentence."""

from __future__ import annotations

import math

from serve.rollout.statistics.judgement import MetricVerdict

SUSPICIOUS_E = 10.0
"""An e-value from here on is not proof but stops the ramp: it costs a hold, and no user."""

_LARGEST_SHOWN = math.log(1e6)


def verdict(log_e: float, alpha: float, *, sufficient: bool) -> MetricVerdict:
    """Return the verdict: proof, suspicion, or whether silence means anything yet."""
    if is_proof(log_e, alpha):
        return MetricVerdict.FAIL
    if log_e >= math.log(SUSPICIOUS_E):
        return MetricVerdict.SUSPICIOUS
    return MetricVerdict.PASS if sufficient else MetricVerdict.INSUFFICIENT


def is_proof(log_e: float, alpha: float) -> bool:
    """Return whether the e-value has reached 1 / `alpha`: nothing more is needed."""
    return log_e >= -math.log(alpha)


def e_value(log_e: float, alpha: float) -> str:
    """Return an e-value for people, beside the one that would be proof."""
    shown = "over 1,000,000" if log_e > _LARGEST_SHOWN else number(math.exp(log_e))
    return f"e-value {shown} of {number(1 / alpha)} needed"


def number(value: float) -> str:
    """Return a number with two or three digits that count, and thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def of(part: float, whole: float) -> str:
    """Return "7 of 120"."""
    return f"{part:,.0f} of {whole:,.0f}"


def more(needed: int, what: str = "canary units") -> str:
    """Return how much is missing, '' when nothing is."""
    return f"; about {needed:,} more {what} are needed" if needed else ""
