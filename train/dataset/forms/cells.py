"""What stands in one cell of a row: a text, a turn, a conversation, however it is written down.

Owns the written forms of a single value: lists of messages as JSON or as Python shows them (a table keeps
them as text), ShareGPT's turns, texts in turn, pairs of input and output, HH's `Human:` and `Assistant:`.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from train.dataset.forms.chat import read_messages, shown, text
from train.dataset.records import Malformed, RowMessage

_HH_TURN = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant|System):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}
_PACKED = re.compile(r"\s*\[?\s*\{\s*[\"'](?:role|content|from|value)[\"']\s*:")
_TURN_MARKS = frozenset({"role", "from", "content", "value"})
_PAIRS = (
    ("human", "assistant"), ("user", "assistant"), ("human", "gpt"), ("input", "output"),
    ("prompt", "response"), ("question", "answer"), ("query", "response"),
)  # fmt: skip
_TURN_KEYS = ({"role", "content"}, {"from", "value"})


def read_turns(value: object, where: str, *, learn: bool = True) -> tuple[RowMessage, ...]:
    """Return the turns of a conversation; without `learn` no answer is trained on.

    Raises: Malformed.
    """
    found = unpacked(value) if isinstance(value, str) else value
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not found:
        raise Malformed(f"{where} is {shown(value)}, not a list of messages")
    if isinstance(found[0], str) or (isinstance(found[0], dict) and not found[0].keys() & _TURN_MARKS):
        found = _in_turn(found)
    return read_messages(found, where, learn=learn)


def read_question(value: object, where: str) -> tuple[RowMessage, ...]:
    """Return the turns before an answer: those of a list of messages, or one of the user.

    Raises: Malformed.
    """
    if not isinstance(value, str) or is_packed(value):
        if isinstance(value, str | list | dict):
            return read_turns(value, where, learn=False)
    elif "\n\nAssistant:" in value and (spoken := read_spoken(value)):
        turns = spoken[:-1] if spoken[-1].role == "assistant" and not spoken[-1].content else spoken
        return tuple(turn.unlearnt() for turn in turns)
    return (RowMessage("user", text(value, where, rule="D-EMPTY-INPUT"), learn=False),)


def read_answer(value: object, where: str) -> tuple[RowMessage, ...]:
    """Return the turns of an answer: a text, a message, messages, or the first of several texts.

    Raises: Malformed.
    """
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        # SQuAD's answers: texts, and where they begin.
        value = value["text"]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = value[0] if value else ""
    if isinstance(value, list | dict) or (isinstance(value, str) and is_packed(value)):
        return read_turns(value, where)
    if isinstance(value, int | float):
        remedy = f"map it, then numbers and truths are texts: --columns completion={where}"
        raise Malformed(f"{where} is {shown(value)}, not a text", remedy=remedy)
    return (RowMessage("assistant", text(value, where, rule="D-EMPTY"), learn=True),)


def read_spoken(value: object) -> tuple[RowMessage, ...]:
    """Return the turns of a text of `Human:` and `Assistant:` paragraphs (HH-RLHF); none where it is none."""
    if not isinstance(value, str) or "\n\nAssistant:" not in value:
        return ()
    marks = list(_HH_TURN.finditer(value))
    if value[: marks[0].start()].strip() or marks[0][1] == "Assistant":
        return ()
    ends = [mark.start() for mark in marks[1:]] + [len(value)]
    return tuple(
        RowMessage(_HH_ROLES[mark[1]], value[mark.end() : end].strip(), learn=mark[1] == "Assistant")
        for mark, end in zip(marks, ends, strict=True)
    )


def unpacked(value: str) -> object:
    """Return the list or object that a text is the JSON or the Python notation of; else the text."""
    if not value.lstrip().startswith(("[", "{")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return value


def is_packed(value: str) -> bool:
    """Tell whether `value` is the text of a message or of a list of them."""
    if not _PACKED.match(value):
        return False
    found = unpacked(value)
    turns = found if isinstance(found, list) else [found]
    return all(isinstance(one, dict) and any(keys <= one.keys() for keys in _TURN_KEYS) for one in turns)


def _in_turn(found: list[Any]) -> list[Any]:
    """Return texts that alternate, or pairs of a question and an answer, as messages."""
    for asked, answered in _PAIRS:
        if all(isinstance(one, dict) and one.keys() & {asked, answered} for one in found):
            given = [
                (role, one.get(key))
                for one in found
                for role, key in (("user", asked), ("assistant", answered))
            ]
            return [{"role": role, "content": text} for role, text in given if text is not None]
    if all(isinstance(one, str) for one in found):
        return [{"role": ("user", "assistant")[index % 2], "content": one} for index, one in enumerate(found)]
    return found
