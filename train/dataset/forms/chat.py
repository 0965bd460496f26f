"""Lists of messages: OpenAI's, ShareGPT's and their relatives, to turns.

Owns what a turn may hold. Invariant: nothing of a turn is left out in silence; what cannot be trained on
(pictures, sounds) is an error that names the message. A key whose value is null or empty is not a key:
clients write all that they know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from train.dataset.forms.calls import read_calls, shown, written_call
from train.dataset.records import ROLES, Malformed, RowMessage, ToolCall

__all__ = ["read_conversation", "read_messages", "shown", "text", "written"]

_REASONING = ("reasoning_content", "reasoning", "thinking")
_SWITCHES = ("train", "training", "loss")
_WEIGHTS = {"weight", "loss_weight", *_SWITCHES}
_KEYS = {
    "role", "from", "content", "value", "name", "tool_calls", "function_call", "tool_call_id", "refusal",
    *_REASONING, *_WEIGHTS,
}  # fmt: skip
# What a key of these names holds would be missed; any other beside a turn's own is bookkeeping.
_MISSED = re.compile(r"image|img|audio|video|media|file|tool|call|chosen|reject|mask|learn|weight|content")
_MISSPELT = 0.75
_CALLING = "function_call"
_ANSWERING = {"assistant", _CALLING}
_SENDERS = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "chatbot": "assistant", "bot": "assistant", "ai": "assistant", "prompter": "user",
    "observation": "tool", "function": "tool", "ipython": "tool",
    "tool_response": "tool", "tool_result": "tool", "function_response": "tool",
    _CALLING: _CALLING, "tool_call": _CALLING, "tool_calls": _CALLING, **{role: role for role in ROLES},
}  # fmt: skip
_TEXT_PARTS = {None, "text", "input_text", "output_text", "refusal"}
_THOUGHT_PARTS = {"thinking", "reasoning"}
_THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
_EMPTY: tuple[object, ...] = (None, "", [], {})


def read_messages(messages: object, where: str = "messages", *, learn: bool = True) -> tuple[RowMessage, ...]:
    """Read `[{"role": …, "content": …}, …]`, or the same with `from` and `value`.

    A turn may have `tool_calls` (or the old `function_call`), `tool_call_id`, reasoning, `name`, and a
    `weight` of 0 or 1. Without `learn` no answer is trained on.

    Raises: Malformed: naming the message, counted from 0.
    """
    if not isinstance(messages, list) or not messages:
        raise Malformed(f"{where} is {shown(messages)}, not a list of messages")
    turns: list[RowMessage] = []
    for index, one in enumerate(messages):
        if (plain := _plain(one, learn=learn)) is not None:
            turns.append(plain)
        else:
            turns += _turns(f"{where}[{index}]", one, learn=learn)
    return tuple(turns)


def read_conversation(turns: object, system: object = None) -> tuple[RowMessage, ...]:
    """Read ShareGPT's form, `[{"from": "human"|"gpt"|…, "value": …}, …]`.

    Raises: Malformed: naming the turn, counted from 0.
    """
    if not isinstance(turns, list) or not turns:
        raise Malformed(f"conversations is {shown(turns)}, not a list of turns")
    given = system is not None and system != ""
    head = (RowMessage("system", text(system, "system"), learn=False),) if given else ()
    return head + read_messages(turns, "conversations")


def written(message: RowMessage) -> dict[str, object]:
    """Return the turn as a file has it: read again, it is the same."""
    found: dict[str, object] = {"role": message.role, "content": message.content}
    if message.reasoning:
        found["reasoning_content"] = message.reasoning
    if message.calls:
        found["tool_calls"] = [written_call(call) for call in message.calls]
    if message.call_id:
        found["tool_call_id"] = message.call_id
    if message.name:
        found["name"] = message.name
    if message.role == "assistant" and not message.learn:
        found["weight"] = 0
    return found


def text(value: object, where: str, *, rule: str | None = None) -> str:
    """Return `value`, which must be a text; with `rule`, one that is not blank.

    Raises: Malformed: with `rule` for a blank text.
    """
    if not isinstance(value, str):
        raise Malformed(f"{where} is {shown(value)}, not a text")
    if rule is not None and not value.strip():
        raise Malformed(f"{where} is {shown(value)}, not a text", rule)
    return value


@dataclass(slots=True)
class _Content:
    """What stands in a turn's content; results of tools only where Anthropic's users bring them."""

    texts: list[str]
    thoughts: list[str]
    calls: list[ToolCall]
    results: list[RowMessage]

    @property
    def text(self) -> str:
        # As vLLM joins the parts of a request.
        return "\n".join(self.texts)


def _plain(given: object, *, learn: bool) -> RowMessage | None:
    """Return a turn of role and content alone, which nearly all are; None for what needs a closer look."""
    if not isinstance(given, dict) or len(given) != 2:
        return None
    role, content = given.get("role"), given.get("content")
    if role not in ROLES or not isinstance(content, str) or (role == "assistant" and not content.strip()):
        return None
    return RowMessage(role, content, learn=learn and role == "assistant")


def _turns(where: str, given: object, *, learn: bool) -> Iterator[RowMessage]:
    if not isinstance(given, dict):
        raise Malformed(f"{where} is {shown(given)}, not an object")
    message = {key: value for key, value in given.items() if value not in _EMPTY}
    ignored = _ignored(where, message)
    key = "content" if "content" in given or "value" not in given else "value"
    role = _role(where, given)
    content = _content(given.get(key), f"{where}.{key}", role, message)
    yield from content.results
    if content.results and not content.texts:
        return
    calls = (*content.calls, *_calls(where, role, message))
    yield RowMessage(
        "assistant" if role == _CALLING else role,
        _said(where, key, given.get(key), role, content, calls, message),
        learn=_weight(where, role, message) and learn,
        reasoning=_reasoning(where, role, message, content),
        calls=calls,
        call_id=_only(where, "tool_call_id", role, "tool", message),
        name=text(message.get("name", ""), f"{where}.name"),
        ignored=ignored,
    )


def _ignored(where: str, message: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a turn that are bookkeeping (`timestamp`, `toxic`)."""
    unknown = sorted(message.keys() - _KEYS)
    if held := [one for one in unknown if _MISSED.search(one.lower()) or _looks_known(one)]:
        raise Malformed(f"{where} has the unknown keys {held}")
    return tuple(unknown)


def _looks_known(key: str) -> bool:
    return bool(get_close_matches(key.lower(), _KEYS, n=1, cutoff=_MISSPELT))


def _role(where: str, given: Mapping[str, Any]) -> str:
    key = "from" if "from" in given and "role" not in given else "role"
    sender = given.get(key)
    role = _SENDERS.get(sender.strip().lower()) if isinstance(sender, str) else None
    if role is None:
        known = ", ".join(_SENDERS if key == "from" else ROLES)
        raise Malformed(f"{where}.{key} is {shown(sender)}, not one of {known}", "D-ROLE")
    return role


def _said(
    where: str,
    key: str,
    given: object,
    role: str,
    content: _Content,
    calls: tuple[ToolCall, ...],
    message: Mapping[str, Any],
) -> str:
    """Return the turn's text; an answer that neither says nor calls anything is an error."""
    refusal = text(message.get("refusal", ""), f"{where}.refusal")
    if refusal and content.text.strip():
        raise Malformed(f"{where} has both content and a refusal")
    found = refusal or content.text
    if role in _ANSWERING and not calls:
        return text(given if given is None and not found else found, f"{where}.{key}", rule="D-EMPTY")
    if given is None and not calls and role != "tool":
        raise Malformed(f"{where}.{key} is null, not a text")
    return found


def _content(given: object, where: str, role: str, message: Mapping[str, Any]) -> _Content:
    found = _Content([], [], [], [])
    if role == _CALLING and "tool_calls" not in message and "function_call" not in message:
        return _called(given, where)
    if isinstance(given, list) and (role != "tool" or _is_parts(given)):
        for index, part in enumerate(given):
            _add_part(found, part, f"{where}[{index}]", role)
    elif isinstance(given, str):
        found.texts.append(given)
    elif given is not None and role == "tool":
        # A result as an object or a number: clients send it to the API as JSON.
        found.texts.append(json.dumps(given, ensure_ascii=False))
    elif given is not None:
        raise Malformed(f"{where} is {shown(given)}, not a text")
    return found


def _called(given: object, where: str) -> _Content:
    """Read ShareGPT's turn of calls: JSON, with the thoughts before it where there are some."""
    if not isinstance(given, str):
        return _Content([], [], list(read_calls(given, where)), [])
    thought = _THOUGHT.match(given)
    calls = read_calls(given[thought.end() :] if thought else given, where)
    return _Content([], [thought[1].strip()] if thought else [], list(calls), [])


def _is_parts(given: list[Any]) -> bool:
    return bool(given) and all(isinstance(part, dict) and "type" in part for part in given)


def _add_part(found: _Content, part: object, where: str, role: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, str):
        found.texts.append(part)
    elif not isinstance(part, dict) or not isinstance(kind, str | None):
        raise Malformed(f"{where} is {shown(part)}, not a text")
    elif kind in _TEXT_PARTS:
        keys = ("text", "value", "refusal")
        found.texts.append(text(_first(part, keys, part), where))
    elif kind in _THOUGHT_PARTS and role == "assistant":
        found.thoughts.append(text(_first(part, ("thinking", "reasoning", "text", "value"), part), where))
    elif kind == "tool_call" and role == "assistant":
        found.calls += read_calls(_first(part, ("value", "tool_call"), part), where)
    elif kind == "tool_use" and role == "assistant":
        call = {"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")}
        found.calls += read_calls(call, where)
    elif kind == "tool_result" and role in {"user", "tool"}:
        inner = _content(part.get("content"), where, "tool", {})
        result = RowMessage("tool", inner.text, learn=False, call_id=str(part.get("tool_use_id") or ""))
        found.results.append(result)
    else:
        raise Malformed(f"{where} is {shown(part)}, not a text")


def _first(part: Mapping[str, Any], keys: tuple[str, ...], default: object) -> object:
    return next((part[key] for key in keys if part.get(key) is not None), default)


def _calls(where: str, role: str, message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    given = [key for key in ("tool_calls", "function_call") if key in message]
    if given and role not in _ANSWERING:
        raise Malformed(f"{where} has {given[0]}, and only the assistant calls tools", "D-CALL")
    if len(given) == 2:
        raise Malformed(f"{where} has both tool_calls and function_call", "D-CALL")
    return read_calls(message[given[0]], f"{where}.{given[0]}") if given else ()


def _reasoning(where: str, role: str, message: Mapping[str, Any], content: _Content) -> str:
    named = {text(message[key], f"{where}.{key}") for key in _REASONING if key in message}
    found = [*content.thoughts, *(one for one in named if one not in content.thoughts)]
    if found and role not in _ANSWERING:
        raise Malformed(f"{where} has reasoning, and only the assistant thinks")
    if len(named) > 1:
        raise Malformed(f"{where} has reasoning twice, and the texts differ")
    return "\n".join(found)


def _only(where: str, key: str, role: str, owner: str, message: Mapping[str, Any]) -> str:
    if key in message and role != owner:
        raise Malformed(f"{where} has {key}, and its role is {role}")
    return text(message.get(key, ""), f"{where}.{key}")


def _weight(where: str, role: str, message: Mapping[str, Any]) -> bool:
    """Tell whether the turn is learnt: by weight, LLaMA-Factory's loss_weight, Axolotl's train."""
    found = {}
    for key in _WEIGHTS & message.keys():
        value = message[key]
        if value not in (0, 1) or (isinstance(value, bool) and key not in _SWITCHES):
            raise Malformed(f"{where}.{key} is {shown(value)}, not 0 or 1")
        found[key] = bool(value)
    if len(set(found.values())) > 1:
        raise Malformed(f"{where} has weights that contradict each other")
    if role in _ANSWERING:
        return False not in found.values()
    # OpenAI's weight may stand in every turn; the others say that this very turn is to be learnt.
    if wanted := sorted(key for key, value in found.items() if value and key != "weight"):
        raise Malformed(f"{where} has {wanted[0]}, and only the assistant's turns are learnt")
    return False
