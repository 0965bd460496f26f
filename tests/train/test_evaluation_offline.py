"""The offline model: transformers on a folder, with a model small enough to make here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import write_suite
from train.evaluation.formats.suites import load_suite
from train.evaluation.models.offline import OfflineModel

pytestmark = pytest.mark.training


@pytest.fixture
def base(tmp_path: Path, tokenizer: Any) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    folder = tmp_path / "base"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_it_answers_within_its_limit_and_knows_its_log_probabilities(tmp_path: Path, base: Path) -> None:
    suite = load_suite(
        write_suite(tmp_path / "s", [{"prompt": "Hi", "expected": "x"}], sampling={"max_tokens": 5})
    )
    model = OfflineModel(base, None, "tiny")
    sample = model.answer(suite.questions[0], suite)
    assert sample.error is None
    assert (sample.finish, sample.completion_tokens) == ("length", 5)
    assert model.answer(suite.questions[0], suite).text == sample.text
    total, tokens = model.log_probability(suite.questions[0], "some expected words", suite)
    assert tokens >= 3
    # Random weights: near to a uniform distribution over the vocabulary of 49,152.
    assert total / tokens == pytest.approx(-math.log(49_152), rel=0.1)
