"""How settings count steps: so many, a share of all, or so many times in each epoch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from registry.settings.models import Strict

_MOST = 2**31
_TIMES = 100_000


class PerEpoch(Strict):
    """So many times in each pass over the rows, evenly, the last time at its end."""

    per_epoch: int = Field(ge=1, le=_TIMES)


def _warmup(value: Any) -> float | int:
    number = _number(value)
    if number is not None and 0 <= number < 1:
        return number
    if (steps := _whole(number)) is not None:
        return steps
    raise ValueError(f"must be a share of all steps (0.05) or a whole number of steps (100), not {value!r}")


def _every(value: Any) -> int | PerEpoch:
    if isinstance(value, PerEpoch):
        return value
    times = value.get("per_epoch") if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(times, int) and not isinstance(times, bool):
        if not 1 <= times <= _TIMES:
            raise ValueError(f"per_epoch must be between 1 and {_TIMES}, not {times}")
        return PerEpoch(per_epoch=times)
    if (steps := _whole(_number(value))) is not None:
        return steps
    raise ValueError(f"must be a number of steps (500) or {{per_epoch: 4}}, not {value!r}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _whole(number: float | None) -> int | None:
    return int(number) if number is not None and 1 <= number < _MOST and number == int(number) else None


Warmup = Annotated[float | int, BeforeValidator(_warmup)]
"""A share of all steps, 0 ≤ x < 1, or whole steps from 1 on."""

Every = Annotated[int | PerEpoch, BeforeValidator(_every)]
"""How often something happens: after so many steps each, or so many times in each epoch."""
