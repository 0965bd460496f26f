"""Tokenizers for other models' chat templates: SmolLM2's words, the template's marks as tokens.

Their marks, and at which the model's own generation_config.json says that an answer ends, are those of the
models that the templates come from.
"""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from tests.isolation import CACHE

_MARK = re.compile(
    r"<\|[^|<>\s]+\|>|<｜[^｜]+｜>|<(?:start|end)_of_turn>|</?s>|\[/?INST\]|\[gMASK\]|<sop>"
    r"|<\|[a-z_]+>|<[a-z_]+\|>|\[/?[A-Z_]+\]|<end_of_utterance>"
)
_PLAIN = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
# Llama 3's, which most of these models share: line breaks are tokens apart from the words behind them.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ENDS: dict[str, tuple[str, ...]] = {
    "cohere": ("<|END_OF_TURN_TOKEN|>",),
    "deepseek": ("<｜end▁of▁sentence｜>",),
    "diffusion_gemma": ("<eos>", "<turn|>", "<|tool_response>"),
    "gemma4": ("<eos>", "<turn|>", "<|tool_response>"),
    "gemma": ("<eos>", "<end_of_turn>"),
    "glm": ("<|endoftext|>", "<|user|>", "<|observation|>"),
    "gptoss": ("<|return|>", "<|endoftext|>", "<|call|>"),
    "idefics": ("<end_of_utterance>",),
    "llama3": ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
    "llava": ("</s>",),
    "muse": ("<|eot|>",),
    "phi": ("<|endoftext|>", "<|end|>", "<|assistant|>"),
    "smolvlm": ("<end_of_utterance>",),
}
_WORDS = 8_192
"""A sixth of the real vocabulary, which would be most of the time to load a tiny base, and of each step."""
_CHATML = ("<|im_end|>",)


def ends_of(name: str) -> tuple[str, ...]:
    """Return at which tokens the model of TRL's template `name` ends an answer; the first is its `eos`."""
    return next((ends for start, ends in ENDS.items() if name.startswith(start)), _CHATML)


def shipped_templates() -> dict[str, str]:
    """Return the models' own templates that TRL ships, by name; those made for training are left out."""
    found = importlib.util.find_spec("trl")  # not imported: that looks at every installed package for 2 s
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "chat_templates"
    return {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(folder.glob("*.jinja"))
        if not path.stem.endswith("_training")
    }


def speaking(folder: Path, template: str, ends: tuple[str, ...], stops: tuple[str, ...] | None = None) -> Any:
    """Return a tokenizer with `template`; its folder says that the model stops at `stops`, else at `ends`."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_words()))
    marks = sorted({*_MARK.findall(template), *ends, "<|bos|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    plain = [mark for mark in _PLAIN if mark in template and mark not in marks]
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in plain])
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template = "<|bos|>", ends[0], template
    ids = [tokenizer.convert_tokens_to_ids(mark) for mark in (ends if stops is None else stops)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    tokenizer.name_or_path = str(folder)
    return tokenizer


@cache
def smollm2() -> Any:
    """Return SmolLM2's own tokenizer: the shared base's where it is made already, else out of the package."""
    from transformers import AutoTokenizer

    from train.model.base_demo import NAME, is_complete, packaged_weights

    weights = packaged_weights()
    if not is_complete(CACHE / NAME):
        return AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    tokenizer = AutoTokenizer.from_pretrained(CACHE / NAME)
    tokenizer.name_or_path = str(weights.parent)
    return tokenizer


def shortened(tokenizer: Any) -> Any:
    """Return a tokenizer with the first words of the vocabulary, so that it is read and learnt in a moment.

    Ids are in the order of the merges: the words that are left are as before, and others become several.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    written = json.loads(tokenizer.backend_tokenizer.to_str())
    _shorten(written)
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(written)), **named)
    made.chat_template = tokenizer.chat_template
    return made


@cache
def _words() -> str:
    written = json.loads(smollm2().backend_tokenizer.to_str())
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    _shorten(written)
    written["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, letters]}
    return json.dumps(written)


def _shorten(written: dict[str, Any]) -> None:
    words = {word: one for word, one in written["model"]["vocab"].items() if one < _WORDS}
    written["model"]["vocab"] = words
    written["model"]["merges"] = [pair for pair in written["model"]["merges"] if "".join(pair) in words]
