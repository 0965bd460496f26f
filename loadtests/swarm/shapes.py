"""How many users there are at a time: step, spike and soak as functions of the run's share that is over."""

from __future__ import annotations

import math

STEPS = 5
_RAMP = 0.1
_SPIKE = (0.4, 0.6)
_CALM = 0.2


def users_at(shape: str, seconds: float, total_seconds: float, peak: int) -> int | None:
    """Return the users at `seconds` of a run of `total_seconds`, None when it is over.

    `step`: five equal steps up to the peak. `spike`: a fifth of the peak, and all of it in the middle
    fifth of the time. `soak`: up within the first tenth, then steady.
    """
    share = seconds / total_seconds
    if share >= 1.0:
        return None
    if shape == "step":
        return math.ceil(peak * (math.floor(share * STEPS) + 1) / STEPS)
    if shape == "spike":
        return peak if _SPIKE[0] <= share < _SPIKE[1] else max(1, math.ceil(peak * _CALM))
    return max(1, math.ceil(peak * min(1.0, share / _RAMP)))
