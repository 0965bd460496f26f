"""Whether a training is to take only what of the processors nobody else wants."""

from __future__ import annotations

import os

from registry.priority import put_last

IDLE = "WARDROBE_TRAIN_IDLE"
"""The variable that asks a training process for it."""


def step_back_if_asked() -> None:
    """Step back where the environment asks for it."""
    if os.environ.get(IDLE) == "1":
        put_last()
