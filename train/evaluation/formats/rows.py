"""From a row of training to an item: its last answer is what is expected.

Owns which keys of a row are read so; everything else of an item stays as it is. Messages of plain role and
content are left to the item's own checks, which name a misspelt key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from train.dataset.forms.calls import linked, read_tools, tools_of
from train.dataset.forms.chat import read_messages, written
from train.dataset.records import RowMessage

_PLAIN = {"role", "content"}
_UNUSED = {"functions", "parallel_tool_calls"}


def read_row(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of an item: OpenAI's tools and turns, and an answer at the end as the expected one.

    Raises: Malformed: naming the message.
    """
    found = {key: one for key, one in value.items() if key not in _UNUSED}
    if tools := tools_of(value):
        found["tools"] = tools
    elif "tools" in found:
        found["tools"] = read_tools(found["tools"])
    messages = value.get("messages")
    if not isinstance(messages, list) or all(_is_plain(one) for one in messages):
        return found
    turns = list(linked(read_messages(messages), tools)[0])
    if turns[-1].role == "assistant" and not found.keys() & {"expected", "calls"}:
        found |= _expected(turns.pop())
    return found | {"messages": [_question(turn) for turn in turns]}


def _is_plain(message: object) -> bool:
    if not isinstance(message, Mapping):
        return True
    return message.keys() <= _PLAIN and message.get("role") != "assistant"


def _question(turn: RowMessage) -> dict[str, object]:
    return {key: one for key, one in written(turn).items() if key != "weight"}


def _expected(turn: RowMessage) -> dict[str, Any]:
    calls = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in turn.calls]
    return {"calls": calls} | ({"expected": turn.content} if turn.content else {})
