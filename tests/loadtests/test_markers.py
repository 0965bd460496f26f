"""The marker adapters say their own marker; trained here, they are there for the tests of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.markers import MARKERS, QUESTIONS, marker_adapters, marker_of
from tests.isolation import CACHE

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]


def test_a_marker_adapter_answers_with_its_own_marker_and_no_other(base_folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = marker_adapters(CACHE, base_folder)
    assert made.keys() == MARKERS.keys()
    tokenizer: Any = AutoTokenizer.from_pretrained(base_folder)
    for name, folder in made.items():
        base: Any = AutoModelForCausalLM.from_pretrained(base_folder, dtype="float32")
        model = PeftModel.from_pretrained(base, folder)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTIONS[0]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0][prompt.input_ids.shape[1] :]
        assert marker_of(tokenizer.decode(answer)) == MARKERS[name]
