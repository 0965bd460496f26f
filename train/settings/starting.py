"""What a run starts with, where `from: nearest` leaves the choice to the losses."""

from __future__ import annotations

from pydantic import Field

from registry.settings.models import Strict

NEAREST = "nearest"
"""The value of `from` that chooses the start by its loss on the new rows."""


class NearestSettings(Strict):
    """How much work `from: nearest` may be.

    At most `candidates` versions are measured (those with an alias first, then the newest), each on at most
    `rows` rows.
    """

    candidates: int = Field(default=8, ge=1, le=1_000)
    rows: int = Field(default=32, ge=1, le=10_000)
