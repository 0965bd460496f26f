"""GGUF: what is written loads again with transformers' own reader, and answers alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import UsageError
from tests.fakes.base import TINY
from tests.fakes.llama import load_llama, logits, make_llama
from train.merging.gguf.gguf_file import check_exportable, load_gguf, write_gguf


def byte_tokenizer(folder: Path, steps: list[Any]) -> None:
    """Give the model a byte-level BPE tokenizer with one merge, one control token, and these splitters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<|end|>", *alphabet, "th"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    from tokenizers.pre_tokenizers import ByteLevel

    folder = make_llama(tmp_path / "tiny", replace(TINY, vocab=320), tied=request.param)
    byte_tokenizer(folder, [ByteLevel(add_prefix_space=False)])
    return folder


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-5), ("bfloat16", 1e-5), ("float16", 1e-4)])
def test_the_file_answers_as_the_model(base: Path, tmp_path: Path, dtype: str, close: float) -> None:
    model = load_llama(base)  # its weights are bf16 numbers: only fp16 can round them
    file = write_gguf(model, base, dtype, tmp_path / "model.gguf")
    assert float((logits(load_gguf(file)) - logits(model)).abs().max()) < close


def test_the_file_carries_the_tokenizer_and_the_chat_template(base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    file = write_gguf(load_llama(base), base, "float16", tmp_path / "model.gguf")
    found = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    own = AutoTokenizer.from_pretrained(base)
    text = "the 3 ships<|end|>"
    assert found(text, add_special_tokens=False).input_ids == own(text, add_special_tokens=False).input_ids
    assert found.chat_template == own.chat_template
    assert found.eos_token == "<|end|>"


def test_the_way_to_split_text_is_named_as_llama_cpp_names_it(base: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits

    assert check_exportable(base) == "gpt-2"
    byte_tokenizer(base, [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    assert check_exportable(base) == "smollm"
    byte_tokenizer(base, [Digits(individual_digits=False), ByteLevel(add_prefix_space=False)])
    with pytest.raises(UsageError, match="splits text by a rule") as caught:
        check_exportable(base)
    assert "convert_hf_to_gguf.py" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, "has the architecture"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "scales its positions"),
        ({"attention_bias": True}, "has biases"),
    ],
)
def test_a_model_that_the_writer_does_not_know_is_refused(
    base: Path, changes: dict[str, Any], fact: str
) -> None:
    config = json.loads((base / "config.json").read_text()) | changes
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=fact):
        check_exportable(base)


def test_rows_of_queries_and_keys_are_put_in_pairs(base: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    model = load_llama(base)
    reader = GGUFReader(write_gguf(model, base, "float32", tmp_path / "model.gguf"))
    written = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    key = model.state_dict()["model.layers.0.self_attn.k_proj.weight"]
    half = key.shape[0] // model.config.num_key_value_heads // 2
    assert torch.equal(written["blk.0.attn_k.weight"][1], key[half])
    assert ("output.weight" in written) == (not model.config.tie_word_embeddings)
