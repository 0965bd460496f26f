"""Presets: defaults for a kind of task, filled in where a config says nothing.

Owns their values and their sources. Invariant: what the file gives always wins, and the resolved config
that is stored holds every value, so a preset that changes later changes no old run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.settings.adapter import LoraSettings

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Tens of rows: a small rank, more passes at a lower rate, and the best point on held-out rows, since
    # the adapter learns the rows by heart soon. Measured against the defaults: README, Few rows.
    "few-shot": {
        "lora": {"rank": 8, "dropout": 0.05},
        "training": {"epochs": 10, "batch_size": 4, "learning_rate": 1e-4, "warmup": 0.1},
    },
}
_WITH_HELD_OUT: Mapping[str, Mapping[str, Any]] = {
    "few-shot": {"early_stopping": {"patience": 3}, "checkpoints": {"best_by": "eval_loss", "keep": 1}},
}


def with_preset(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` with the preset that it names, if there is such a one, filled in under it."""
    name = value.get("preset")
    if not isinstance(name, str) or name not in PRESETS:
        return value
    data = value.get("data")
    held_out = isinstance(data, dict) and data.get("eval") is not None
    filled = _merged(PRESETS[name], value)
    return _merged(_WITH_HELD_OUT[name], filled) if held_out else filled


def with_given(lora: LoraSettings, value: Mapping[str, Any]) -> LoraSettings:
    """Return the same settings, of which only those that the file itself gives count as set.

    A version that a run goes on from has its own shape, which a preset must not contradict.
    """
    written = value.get("lora")
    given = set(written) if isinstance(written, Mapping) else set()
    return LoraSettings.model_construct(_fields_set=given, **dict(lora))


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(given)
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(value, merged[key])
        else:
            merged.setdefault(key, value)
    return merged
