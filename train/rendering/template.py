"""A chat template as the base's server renders it: messages and tools in, text out.

Owns what vLLM does to a request before the template sees it (its `renderers/hf.py`): the text of a turn is
given in parts where the template walks over parts, and a developer's turn becomes the system's where the
template knows no developer. Invariant: `prompt` is, letter for letter, what the server puts before an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from train.dataset.records import Message
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


class Template:
    """The chat template of one tokenizer, for one set of tools."""

    def __init__(self, tokenizer: Tokenizer, tools: Tools = ()) -> None:
        text = template_of(tokenizer, tools)
        self._tokenizer = tokenizer
        self._tools = [dict(one) for one in tools] or None
        self._in_parts = walks_over_parts(text)
        self._knows_developer = '"developer"' in text or "'developer'" in text
        self._asks_thinking = _THINKING.search(text) is not None

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return what the server puts before the answer to `messages`.

        Raises: Unrenderable.
        """
        return self._render(self._given(messages), prompt=True)

    def answered(self, messages: Sequence[Message]) -> str:
        """Return the conversation as the template writes it down, its last turn an answer.

        Raises: Unrenderable.
        """
        given = self._given(messages)
        if self._asks_thinking and messages[-1].reasoning:
            given[-1]["thinking"] = messages[-1].reasoning
        return self._render(given, prompt=False)

    def _given(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        chat = [message.chat() for message in messages]
        if not self._knows_developer and any(one["role"] == "developer" for one in chat):
            chat = _with_one_system_turn(chat)
        if self._in_parts:
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
            return self._tokenizer.apply_chat_template(
                chat, tools=self._tools, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # a template runs the code of whoever wrote it: anything can come
            raise Unrenderable(f"the chat template refuses it: {_reason(error)}") from error


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
