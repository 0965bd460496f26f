"""Lists of messages: OpenAI's and ShareGPT's, to turns.

Owns what a turn may hold. Invariant: nothing of a turn is left out in silence; what cannot be trained on
(pictures, tool calls) is an error that names the message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from train.dataset.records import ROLES, Malformed, Message

_MESSAGE_KEYS = {"role", "content", "weight", "name"}
_SENDERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "model": "assistant", "assistant": "assistant", "system": "system", "tool": "tool",
    "observation": "tool",
}  # fmt: skip


def read_messages(messages: object, where: str = "messages", *, learn: bool = True) -> tuple[Message, ...]:
    """Read OpenAI's form, `[{"role": …, "content": …, "weight": 0|1}, …]`.

    Without `learn` no answer is trained on.

    Raises: Malformed: naming the message, counted from 0.
    """
    if not isinstance(messages, list) or not messages:
        raise Malformed(f"{where} is {shown(messages)}, not a list of messages")
    return tuple(_message(f"{where}[{index}]", one, learn=learn) for index, one in enumerate(messages))


def read_conversation(turns: object, system: object = None) -> tuple[Message, ...]:
    """Read ShareGPT's form, `[{"from": "human"|"gpt"|…, "value": …}, …]`.

    Raises: Malformed: naming the turn, counted from 0.
    """
    if not isinstance(turns, list) or not turns:
        raise Malformed(f"conversations is {shown(turns)}, not a list of turns")
    if all(isinstance(turn, dict) and "role" in turn for turn in turns):
        return read_messages(turns, "conversations")
    given = system is not None and system != ""
    head = (Message("system", text(system, "system"), learn=False),) if given else ()
    return head + tuple(_turn(f"conversations[{index}]", turn) for index, turn in enumerate(turns))


def text(value: object, where: str, *, rule: str | None = None) -> str:
    """Return `value`, which must be a text; with `rule`, one that is not blank.

    Raises: Malformed: with `rule` for a blank text.
    """
    if not isinstance(value, str):
        raise Malformed(f"{where} is {shown(value)}, not a text")
    if rule is not None and not value.strip():
        raise Malformed(f"{where} is {shown(value)}, not a text", rule)
    return value


def shown(value: object) -> str:
    """Return `value` as JSON of at most 40 characters."""
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 40 else f"{written[:37]}…"


def _message(where: str, message: object, *, learn: bool) -> Message:
    if not isinstance(message, dict):
        raise Malformed(f"{where} is {shown(message)}, not an object")
    if unknown := sorted(set(message) - _MESSAGE_KEYS):
        raise Malformed(f"{where} has the unknown keys {unknown}")
    role, weight = message.get("role"), message.get("weight", 1)
    if role not in ROLES:
        raise Malformed(f"{where}.role is {shown(role)}, not one of {', '.join(ROLES)}", "D-ROLE")
    rule = "D-EMPTY" if role == "assistant" else None
    content = text(_parts(message.get("content")), f"{where}.content", rule=rule)
    if isinstance(weight, bool) or weight not in (0, 1):
        raise Malformed(f"{where}.weight is {shown(weight)}, not 0 or 1")
    return Message(role, content, learn=learn and role == "assistant" and weight == 1)


def _parts(content: object) -> object:
    # OpenAI also takes a list of parts; texts are joined, anything else stays and is refused.
    if not isinstance(content, list) or not all(_is_text_part(part) for part in content):
        return content
    return "".join(part["text"] for part in content)


def _is_text_part(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _turn(where: str, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise Malformed(f"{where} is {shown(turn)}, not an object")
    if unknown := sorted(set(turn) - {"from", "value", "weight"}):
        raise Malformed(f"{where} has the unknown keys {unknown}")
    message: Mapping[str, Any] = {
        "role": _sender(where, turn.get("from")),
        "content": turn.get("value"),
        "weight": turn.get("weight", 1),
    }
    return _message(where, message, learn=True)


def _sender(where: str, sender: object) -> str:
    role = _SENDERS.get(sender) if isinstance(sender, str) else None
    if role is None:
        raise Malformed(f"{where}.from is {shown(sender)}, not one of {', '.join(_SENDERS)}", "D-ROLE")
    return role
