"""What vLLM puts before an answer: its own code for requests and templates, without an engine."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

_CONFIG: Any = SimpleNamespace(
    tokenizer="base",
    model="base",
    tokenizer_revision=None,
    revision=None,
    code_revision=None,
    trust_remote_code=False,
    enable_prompt_embeds=False,
    multimodal_config=None,
    is_multimodal_model=False,
    allowed_local_media_path="",
    allowed_media_domains=None,
    hf_config=SimpleNamespace(model_type="llama"),
)


def served_ids(tokenizer: Any, chat: Sequence[dict[str, Any]], tools: Sequence[Any] = ()) -> list[int]:
    """Return the ids that vLLM gives to its engine for a request with `chat` and `tools`."""
    from vllm.renderers.chat_utils import parse_chat_messages
    from vllm.renderers.hf import safe_apply_chat_template

    given = [dict(one) for one in tools] or None
    format_ = "openai" if content_in_parts(tokenizer.get_chat_template(None, given)) else "string"
    conversation, _, _ = parse_chat_messages(copy.deepcopy(list(chat)), _CONFIG, format_)
    text = safe_apply_chat_template(
        _CONFIG,
        tokenizer,
        conversation,
        tools=given,
        chat_template=tokenizer.get_chat_template(None, given),
        tokenize=False,
        add_generation_prompt=True,
        continue_final_message=False,
    )
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def content_in_parts(template: str) -> bool:
    """Tell whether vLLM gives the content of a turn to `template` in parts."""
    from vllm.renderers import hf

    return bool(hf._detect_content_format(template, default="string") == "openai")
