"""The most that a request may use, told from its body alone (pure).

A token of a prompt is at least a byte of the body, whatever the tokenizer, and what the chat template adds is
taken to be no more than `TEMPLATE_TOKENS`. Owns these bounds, and where an answer has none yet. Invariant:
what cannot be told counts as all that the model's context can hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import Raw

from serve.protocol.numbers import whole_number
from serve.protocol.paths import Endpoint

TEMPLATE_TOKENS = 1_024
"""What a chat template adds at most: its own words, and its introduction to tools."""

_MEDIA = frozenset({b"_url", b"mage", b"udio", b"ideo", b"file", b"e_id", b"beds"})
"""The last bytes of keys whose values are more than text (`image_url`, `file_id`…): an image of a few bytes
may be a thousand tokens."""

_PROMPTS = ("messages", "input", "prompt", "prompt_embeds")
_MEDIA_LISTS = ("images", "audio", "videos")
"""Fields of a decision that hold media themselves."""

_AFTER_KEY = re.compile(rb'"[ \t\r\n]*:')

_PAIRS = ("documents", "text_1", "text_2", "data_1", "data_2", "queries")
_ANSWERS = ("n", "best_of")


class RequestSize(NamedTuple):
    """The most tokens of a request's prompts together, how many prompts, and how many answers to all of them.

    `wish` is the largest of the client's caps on an answer, None where there is none.
    """

    input: int
    prompts: int
    answers: int
    wish: int | None

    def output(self, room: int) -> int:
        """Return the most tokens of all answers, where one that is not capped has `room`."""
        return self.answers * (room if self.wish is None else min(self.wish, room))


def measure(endpoint: Endpoint, fields: Mapping[str, Raw], context: int) -> RequestSize:
    """Return the bounds of a request; `context` is the model's, in tokens."""
    if not endpoint.proves:
        return RequestSize(0, 0, 0, None)
    prompts = _count_prompts(endpoint.operation, fields)
    tokens = sum(map(len, fields.values())) + TEMPLATE_TOKENS * (prompts if endpoint.renders else 1)
    if endpoint.gives == "decisions":  # the state is repeated for each question
        tokens *= prompts
    most = prompts * context
    # A query is repeated for each document. What is large enough is not looked into.
    if tokens >= most or endpoint.gives == "scores" or _holds_media(fields):
        tokens = most
    if not endpoint.cap_fields:
        return RequestSize(tokens, prompts, 0, None)
    return RequestSize(tokens, prompts, prompts * _count_answers(fields), _wish(endpoint, fields))


def _holds_media(fields: Mapping[str, Raw]) -> bool:
    for name in _PROMPTS:
        if name in fields:
            raw = bytes(fields[name])
            keys = _AFTER_KEY.split(raw)
            keys.pop()
            for key in keys:
                if key[-4:] in _MEDIA:
                    return True
            if b"\\u" in raw and any(map(_hides, keys)):
                return True
    return any(name in fields for name in _MEDIA_LISTS)


def _hides(key: bytes) -> bool:
    """Return whether a key is spelled so as not to be known; one that ends in a backslash is text."""
    return b"\\u" in key[key.rfind(b'"') :] and not key.endswith(b"\\")


def _count_prompts(operation: str, fields: Mapping[str, Raw]) -> int:
    if operation == "chat":
        return 1
    if operation == "chat_batch":
        return _length(fields.get("messages"))
    if operation in {"completion", "embeddings"}:
        return _count_lists(fields.get("prompt" if operation == "completion" else "input"))
    if operation == "decision":
        return _length(fields.get("questions"), dict[str, Raw])
    if operation in {"score", "rerank"}:
        found = 1
        for name in _PAIRS:
            if name in fields and bytes(fields[name]).startswith(b"["):
                found *= max(1, _length(fields[name]))
        return found
    return 1


def _count_lists(raw: Raw | None) -> int:
    """Return how many prompts a text, a list of tokens, or a list of either holds."""
    if raw is None or not bytes(raw).startswith(b"["):
        return 1
    try:
        values = msgspec.json.decode(raw, type=list[Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 1
    return len(values) if values and bytes(values[0])[:1] in b'"[{' else 1


def _length(raw: Raw | None, kind: type[list[Raw] | dict[str, Raw]] = list[Raw]) -> int:
    try:
        return max(1, len(msgspec.json.decode(raw, type=kind))) if raw is not None else 1
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 1


def _count_answers(fields: Mapping[str, Raw]) -> int:
    if "n" not in fields and "best_of" not in fields:
        return 1
    return max(1, *(whole_number(fields[name]) or 1 for name in _ANSWERS if name in fields))


def _wish(endpoint: Endpoint, fields: Mapping[str, Raw]) -> int | None:
    """Return the largest cap that vLLM reads on this path; one that is no number caps nothing."""
    found: int | None = None
    for name in endpoint.cap_fields:
        if name in fields:
            value = whole_number(fields[name])
            if value is not None and (found is None or value > found):
                found = max(0, value)
    return found


def cap(endpoint: Endpoint, fields: dict[str, Raw], tokens: int) -> None:
    """Cap each answer of a request that has no cap; a field that is no number is left for vLLM to refuse."""
    name = endpoint.cap_fields[0]
    if all(one not in fields or bytes(fields[one]) == b"null" for one in endpoint.cap_fields):
        fields[name] = Raw(str(tokens).encode())
