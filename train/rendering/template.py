"""A chat template as the base's server renders it: messages and tools in, text out.

Owns what vLLM does to a request before the template sees it (its `vllm/renderers/hf.py`): the text of a turn
is given in parts where the template walks over parts, and a developer's turn becomes the system's where the
template knows no developer. Invariant: `prompt` is, letter for letter, what the server puts before an answer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from train.dataset.records import RowMessage
from train.rendering.content_format import walks_over_parts
from train.rendering.interface import Tokenizer, Tools, Unrenderable

# gpt-oss's template takes the reasoning of an answer by this name; no other name is asked for there.
_THINKING = re.compile(r"\.thinking\b|\[\s*['\"]thinking['\"]\s*\]|['\"]thinking['\"]\s+in\b")


def template_of(tokenizer: Tokenizer, tools: Tools = ()) -> str:
    """Return the text of the template that is taken with `tools`; of several, as transformers chooses.

    Raises: Unrenderable: there are several, and none is the default.
    """
    found = tokenizer.chat_template
    if not isinstance(found, dict):
        return str(found)
    name = "tool_use" if tools and "tool_use" in found else "default"
    if name not in found:
        fact = f"the base has the chat templates {', '.join(sorted(found))} and none is the default"
        raise Unrenderable(fact, "name one of them default")
    return str(found[name])


@dataclass(frozen=True, slots=True)
class _Traits:
    """What a template's text tells about what it wants to be given."""

    in_parts: bool
    knows_developer: bool
    asks_thinking: bool
    takes_reasoning_apart: bool


@lru_cache(maxsize=32)
def _traits(text: str) -> _Traits:
    asks_thinking = _THINKING.search(text) is not None
    return _Traits(
        in_parts=walks_over_parts(text),
        knows_developer='"developer"' in text or "'developer'" in text,
        asks_thinking=asks_thinking,
        # It does not look for a thought in the content.
        takes_reasoning_apart="</think>" not in text and (asks_thinking or "reasoning" in text),
    )


class Template:
    """The chat template of one tokenizer, for one set of tools."""

    def __init__(self, tokenizer: Tokenizer, tools: Tools = ()) -> None:
        self._tokenizer = tokenizer
        self._tools = [dict(one) for one in tools] or None
        self._traits = _traits(template_of(tokenizer, tools))

    @property
    def takes_reasoning_apart(self) -> bool:
        """Tell whether it takes the reasoning of an answer beside the content, and only there."""
        return self._traits.takes_reasoning_apart

    def prompt(self, messages: Sequence[RowMessage]) -> str:
        """Return what the server puts before the answer to `messages`.

        Raises: Unrenderable.
        """
        return self._render(self._given(messages), prompt=True)

    def answered(self, messages: Sequence[RowMessage]) -> str:
        """Return the conversation as the template writes it down, its last turn an answer.

        Raises: Unrenderable.
        """
        given = self._given(messages)
        if self._traits.asks_thinking and messages[-1].reasoning:
            given[-1]["thinking"] = messages[-1].reasoning
        return self._render(given, prompt=False)

    def _given(self, messages: Sequence[RowMessage]) -> list[dict[str, Any]]:
        chat = [message.chat() for message in messages]
        if not self._traits.knows_developer and any(one["role"] == "developer" for one in chat):
            chat = _with_one_system_turn(chat)
        if self._traits.in_parts:
            for one in chat:
                if one["role"] != "tool":  # the server joins a result's parts
                    one["content"] = [{"type": "text", "text": one["content"]}]
        return chat

    def _render(self, chat: list[dict[str, Any]], *, prompt: bool) -> str:
        if not chat:
            raise Unrenderable(
                "an answer comes first, before any question",
                'begin with the user\'s turn, or give that answer "weight": 0',
            )
        try:
            return self._apply(chat, prompt=prompt)
        except Exception as error:  # a template runs the code of whoever wrote it: anything can come
            fact = f"the chat template refuses it: {_reason(error)}"
            raise Unrenderable(fact, self._way_out(chat, prompt=prompt)) from error

    def _apply(self, chat: list[dict[str, Any]], *, prompt: bool) -> str:
        return self._tokenizer.apply_chat_template(
            chat, tools=self._tools, tokenize=False, add_generation_prompt=prompt
        )

    def _way_out(self, chat: list[dict[str, Any]], *, prompt: bool) -> str:
        """Return what makes the template take a conversation that it refuses, found by trying."""
        tries = {
            "put the system's text into the first user turn: this template takes no system turn": [
                one for one in chat if one["role"] != "system"
            ],
            "put the system's text first, as one turn": _with_one_system_turn(chat),
            "join turns of one role that follow each other, so that user and assistant alternate": [
                one for before, one in pairwise([{"role": ""}, *chat]) if before["role"] != one["role"]
            ],
            "leave tools, calls and results out: this template shows none": [
                one for one in chat if one["role"] != "tool" and "tool_calls" not in one
            ],
        }
        for remedy, changed in tries.items():
            if changed != chat and changed:
                with contextlib.suppress(Exception):  # refused as well: not the way out
                    self._apply(changed, prompt=prompt)
                    return remedy
        return "correct the row or the chat template"


def _with_one_system_turn(chat: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `chat` with developers' turns as the system's, all of which stand first as one."""
    chat = [{**one, "role": "system"} if one["role"] == "developer" else one for one in chat]
    first = [one["content"] for one in chat if one["role"] == "system"]
    if len(first) == 1 and chat[0]["role"] == "system":
        return list(chat)
    merged = {"role": "system", "content": "\n\n".join(text for text in first if text)}
    return [merged, *(one for one in chat if one["role"] != "system")]


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
