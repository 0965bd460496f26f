"""The real SmolLM2 tokenizer and template, made once per session from the installed package."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from train.base_demo import packaged_weights


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Read the tokenizer alone out of the package: no weights are converted."""
    from transformers import AutoTokenizer

    weights = packaged_weights()
    return AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the collector from what is there already: every training calls it, and torch is large."""
    if request.node.get_closest_marker("training") is None:
        yield
        return
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
