"""What a body asks to be worked on: messages, parts, tools, and the text of its prompts (pure).

Text is what a prompt is made of; media is not, wherever it stands: base64 of an image is no reason to
refuse anybody. A prompt whose characters are more than the longest tokens could bring into the context
cannot fit, whatever its tokens are, so it is refused before it is rendered or tokenised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from serve.bounds.grammars import CONSTRAINTS, GrammarLimits, check_grammars
from serve.errors import BadBody, PromptTooLong, TooComplex
from serve.protocol.numbers import whole_number

_COUNTS = ("n", "best_of")
"""How many answers are wanted; vLLM bounds its other numbers (log-probabilities) itself."""

ASKED = CONSTRAINTS.union(_COUNTS)
"""The fields with which a small body can ask for much."""

_CONVERSATIONS = ("messages", "input")
_PROMPTS = ("prompt", "input", "query", "queries", "documents", "text_1", "text_2", "data_1", "data_2")
_PREAMBLES = ("system", "instructions", "suffix")
_PARTS = ("content", "tool_calls", "output", "summary")
_NO_TEXT = frozenset(
    {
        "audio", "audio_embeds", "audio_url", "data", "encrypted_content", "file", "file_data", "file_url",
        "image", "image_embeds", "image_url", "input_audio", "prompt_embeds", "signature", "source", "video",
        "video_url",
    }
)  # fmt: skip
"""Keys whose values are media, or opaque: nobody reads them as text."""

_LABELS = frozenset({"call_id", "id", "role", "status", "tool_call_id", "type"})
"""Keys whose values a template turns into something else, or leaves out."""

_SOMETIMES_LEFT_OUT = frozenset({"reasoning", "reasoning_content", "thinking"})
"""Keys of earlier thoughts: many chat templates leave them out, so they say nothing of what fits."""


@dataclass(frozen=True, slots=True)
class ContentLimits:
    """The limits on one body; `prompt_characters` is None where the engine cannot say."""

    messages: int
    parts: int
    tools: int
    choices: int
    grammars: GrammarLimits
    prompt_characters: int | None
    text_characters: int


def check_content(fields: Mapping[str, Raw], limits: ContentLimits, *, fits: bool) -> None:
    """Pass when a request holds no more than is allowed; `fits` says that each prompt must fit the context.

    Raises: TooComplex, PromptTooLong, BadBody.
    """
    check_easy(fields, limits)
    if "tools" in fields:
        _check_count("tools", len(_list_of(fields["tools"])), limits.tools, "max_tools")
    total = preamble = sum(_characters(_decode(fields[name])) for name in _PREAMBLES if name in fields)
    for name, prompt in _prompts(fields, limits):
        total += _characters(prompt)
        most = limits.prompt_characters
        if fits and most is not None and total > most:
            own = preamble + _characters(prompt, _NO_TEXT | _LABELS | _SOMETIMES_LEFT_OUT)
            if own > most:
                fact = f"has {own} characters, and {most} are the most that the longest tokens could bring in"
                raise PromptTooLong(name, f"{fact}to this model's context", "send a shorter one", param=name)
    most = max(limits.text_characters, limits.prompt_characters or 0)
    if total > most:
        fact = f"holds {total} characters of text, and {most} are the most for one request"
        raise PromptTooLong("body", fact, "send several requests, or raise limits.max_text_characters")


def check_easy(fields: Mapping[str, Raw], limits: ContentLimits) -> None:
    """Pass when a body that is small and flat asks for no more than is allowed; it matters for `ASKED` alone.

    Raises: TooComplex, BadBody.
    """
    check_grammars(fields, limits.grammars)
    for name in _COUNTS:
        wanted = whole_number(fields[name]) if name in fields else None
        if wanted is not None:
            _check_count(name, wanted, limits.choices, "max_choices", "answers to be given")


def _prompts(fields: Mapping[str, Raw], limits: ContentLimits) -> Iterator[tuple[str, Any]]:
    """Yield the prompts, each a text or a conversation, with the name of their field."""
    for name in dict.fromkeys((*_CONVERSATIONS, *_PROMPTS)):
        if name not in fields:
            continue
        value = _decode(fields[name])
        if not isinstance(value, list):
            yield name, value
        elif value and isinstance(value[0], int):
            continue  # tokens of one prompt; their number is the engine's business
        elif name in _CONVERSATIONS and any(isinstance(one, dict) for one in value):
            _check_conversation(name, value, limits)
            yield name, value
        else:
            _check_count(name, len(value), limits.messages, "max_messages")
            for one in value:
                if isinstance(one, list) and any(isinstance(inner, dict) for inner in one):
                    _check_conversation(name, one, limits)
                yield name, one


def _check_conversation(name: str, items: list[Any], limits: ContentLimits) -> None:
    _check_count(name, len(items), limits.messages, "max_messages")
    parts = sum(
        len(item[key])
        for item in items
        if isinstance(item, dict)
        for key in _PARTS
        if isinstance(item.get(key), list)
    )
    _check_count(name, parts, limits.parts, "max_parts", "content parts and tool calls")


def _check_count(name: str, found: int, most: int, setting: str, what: str = "") -> None:
    if found > most:
        fact = f"has {found} {what or 'of them'}, and {most} are allowed"
        raise TooComplex(name, fact, f"send fewer, or raise limits.{setting}", param=name)


def _characters(value: Any, left_out: frozenset[str] = _NO_TEXT) -> int:
    """Return the length of all texts in `value`, without what stands under the keys `left_out`."""
    found, open_values = 0, [value]
    while open_values:
        one = open_values.pop()
        if isinstance(one, str):
            found += len(one)
        elif isinstance(one, list):
            open_values += one
        elif isinstance(one, dict):
            open_values += [inner for key, inner in one.items() if key not in left_out]
    return found


def _list_of(raw: Raw) -> list[Raw]:
    try:
        return msgspec.json.decode(raw, type=list[Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []  # no list: the server behind refuses it, in its own words


def _decode(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody("body", f"is not JSON: {error}", "send JSON") from error
