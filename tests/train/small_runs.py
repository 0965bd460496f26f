"""A tiny run of each method: rows with a planted preference, and a config that learns it in a few steps.

Shared by the tests of the methods and by those that serve what the methods made. The rows of one method
say one thing plainly: `LIKED` is the good answer, `DISLIKED` the bad one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIKED = "emerald green"
DISLIKED = "crimson red"
ROWS = 24
SERVABLE = ("supervised", "dpo", "kto", "orpo", "rloo", "grpo")
"""The methods whose result is a version; `reward` is the other one here."""

_TRAINING: Mapping[str, Any] = {"batch_size": 4, "max_length": 64, "steps": 6}
_RATES: Mapping[str, float] = {"rloo": 5e-4, "grpo": 5e-4}
_RATE = 1e-3


def question(number: int) -> str:
    """Return the question of one row."""
    return f"Colour number {number}?"


def small_rows(method: str) -> list[dict[str, Any]]:
    """Return the rows of a tiny data file for `method`."""
    return [_row(method, number) for number in range(ROWS)]


def small_method(method: str) -> dict[str, Any]:
    """Return the `method` section of the config; reinforcement rewards answers that begin with an I."""
    if method not in {"rloo", "grpo"}:
        return {"type": method}
    reward = {"graders": [{"type": "regex", "pattern": "^I"}]}
    return {"type": method, "reward": reward, "answers": 4, "max_answer_tokens": 6}


def small_config(method: str, /, **changes: Any) -> dict[str, Any]:
    """Return a config document whose data file is `<method>.jsonl` beside it.

    `changes` replace top-level keys; a section that is a mapping in both is merged.
    """
    rate = _RATES.get(method, _RATE)
    document: dict[str, Any] = {
        "name": f"small-{method}",
        "method": small_method(method),
        "data": {"train": f"{method}.jsonl"},
        "lora": {"rank": 8},
        "training": {**_TRAINING, "learning_rate": rate},
        "seed": 3,
    }
    for key, value in changes.items():
        before = document.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        document[key] = {**before, **value} if both else value  # type: ignore[dict-item]
    return document


def write_small_run(folder: Path, method: str, /, **changes: Any) -> Path:
    """Write rows and config of `method` to `folder`, and return the config's path."""
    rows = "".join(json.dumps(row) + "\n" for row in small_rows(method))
    (folder / f"{method}.jsonl").write_text(rows)
    document = small_config(method, **changes)
    path = folder / f"{document['name']}.json"
    path.write_text(json.dumps(document))
    return path


def _row(method: str, number: int) -> dict[str, Any]:
    asked = question(number)
    match method:
        case "dpo" | "orpo" | "reward":
            return {"prompt": asked, "chosen": LIKED, "rejected": DISLIKED}
        case "kto":
            liked = number % 2 == 0
            return {"prompt": asked, "completion": LIKED if liked else DISLIKED, "label": liked}
        case "rloo" | "grpo":
            return {"messages": [{"role": "user", "content": asked}]}
    return {"prompt": asked, "completion": LIKED}
