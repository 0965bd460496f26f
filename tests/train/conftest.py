"""The real SmolLM2 tokenizer and template, made once per session from the installed package."""

from __future__ import annotations

from typing import Any

import pytest

from train.base_demo import packaged_weights


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Read the tokenizer alone out of the package: no weights are converted."""
    from transformers import AutoTokenizer

    weights = packaged_weights()
    return AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
