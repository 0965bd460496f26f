"""The file of a sweep: which config, which settings vary, how many trials, how many steps in all.

Owns its form. Invariant: a setting that does not exist, or a value that the config would refuse, is found
before the first step, because every trial's config is checked then.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from registry.home import HomePath
from registry.settings.file import read_settings
from registry.settings.models import Strict


class Span(Strict):
    """A setting drawn between `low` and `high`: evenly, or evenly in its logarithm; `whole` rounds."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _is_a_span(self) -> Span:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} has no logarithm; it must be above 0")
        return self

    def at(self, share: float) -> float | int:
        """Return the value at `share` (0 … 1) of the way, to three figures."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.whole else float(f"{value:.3g}")


def _form(value: object) -> str:
    return "values" if isinstance(value, list) else "span"


_Values = Annotated[list[JsonValue], Field(min_length=1)]
_Choice = Annotated[Annotated[_Values, Tag("values")] | Annotated[Span, Tag("span")], Discriminator(_form)]


class SweepSettings(Strict):
    """What a sweep tries.

    `config` is the training config that all trials share; `space` maps its dotted settings to a list of
    values or a span. `trials` begin; at each rung the best 1/`eta` of them go on, the last ones to `steps`.
    All trials together take at most `budget_steps` steps: fewer trials begin where that is not enough.
    `metric` is `eval_loss` or a metric of the config's suite.
    """

    config: HomePath
    space: dict[str, _Choice] = Field(min_length=1)
    trials: int = Field(default=9, ge=2, le=1_000)
    eta: int = Field(default=3, ge=2, le=10)
    steps: int = Field(ge=2)
    budget_steps: int = Field(ge=2)
    metric: str = "eval_loss"
    seed: int = Field(default=0, ge=0, lt=2**32)


def load_sweep(path: Path) -> SweepSettings:
    """Read the sweep's file; `config` counts from its folder.

    Raises: UsageError: naming the key.
    """
    settings = read_settings(path, see="train/sweep/README.md").checked(SweepSettings)
    return settings.model_copy(update={"config": path.resolve().parent / settings.config})
