"""The JSON document of a sweep: what `--json` prints."""

from __future__ import annotations

from registry.api.documents import Document


class SweepReport(Document):
    """A finished sweep; `scores` is one list per trial, one value per rung that it took part in."""

    folder: str
    metric: str
    steps: int
    budget_steps: int
    trials: list[dict[str, object]]
    scores: list[list[float | None]]
    best: int
    best_config: str
