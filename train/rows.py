"""Rows of training data: JSON Lines in, conversations out.

Owns the two accepted forms and their error messages; knows no tokenizer. A row is either
`{"messages": [{"role": …, "content": …, "weight": 0|1}, …]}`, where `weight: 0` keeps an answer from being
learnt, or `{"prompt": …, "completion": …}`, which is a conversation of one question and one answer.
Invariant: every row that comes out has at least one answer to learn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import UsageError

ROLES = ("system", "developer", "user", "assistant", "tool")
_MESSAGE_KEYS = {"role", "content", "weight", "name"}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `learn` is True for the answers that are trained on."""

    role: str
    content: str
    learn: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation and the line of the file (from 1) that it came from."""

    number: int
    messages: tuple[Message, ...]


def read_rows(path: Path) -> list[Row]:
    """Read every row of the JSON Lines file at `path`; blank lines are skipped.

    Raises: UsageError: naming file and row, for anything that is not one of the two forms.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            str(path), f"cannot be read ({reason})", "name a JSON Lines file in UTF-8"
        ) from error
    rows = [_read_row(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UsageError(str(path), "holds no rows", "write one JSON object per line")
    return rows


def hash_file(path: Path) -> str:
    """Return the SHA-256 (hex) of the bytes of the file at `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def row_error(path: Path, number: int, fact: str, remedy: str) -> UsageError:
    """Build the error about one row, so that all of them read alike."""
    return UsageError(f"{path} row {number}", fact, remedy)


def _read_row(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise row_error(path, number, f"is not JSON: {error}", "write one JSON object per line") from error
    try:
        return Row(number, _messages(row))
    except _Malformed as error:
        remedy = 'write {"messages": [{"role": …, "content": …}]} or {"prompt": …, "completion": …}'
        raise row_error(path, number, str(error), remedy) from error


class _Malformed(ValueError):
    """What is wrong with a row, in words."""


def _messages(row: object) -> tuple[Message, ...]:
    if not isinstance(row, dict):
        raise _Malformed(f"is {_shown(row)}, not a JSON object")
    if set(row) == {"messages"}:
        return _chat(row["messages"])
    if set(row) == {"prompt", "completion"}:
        return _pair(row)
    raise _Malformed(f"has the keys {sorted(row)}")


def _pair(row: Mapping[str, Any]) -> tuple[Message, ...]:
    for key in ("prompt", "completion"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise _Malformed(f"{key} is {_shown(row[key])}, not a text")
    return Message("user", row["prompt"], learn=False), Message("assistant", row["completion"], learn=True)


def _chat(messages: object) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise _Malformed(f"messages is {_shown(messages)}, not a list of messages")
    chat = tuple(_message(index, message) for index, message in enumerate(messages))
    if not any(message.learn for message in chat):
        raise _Malformed("has no assistant message to learn from")
    return chat


def _message(index: int, message: object) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise _Malformed(f"{where} is {_shown(message)}, not an object")
    if unknown := sorted(set(message) - _MESSAGE_KEYS):
        raise _Malformed(f"{where} has the unknown keys {unknown}")
    role, content, weight = message.get("role"), message.get("content"), message.get("weight", 1)
    if role not in ROLES:
        raise _Malformed(f"{where}.role is {_shown(role)}, not one of {', '.join(ROLES)}")
    if not isinstance(content, str) or (role == "assistant" and not content.strip()):
        raise _Malformed(f"{where}.content is {_shown(content)}, not a text")
    if isinstance(weight, bool) or weight not in (0, 1):
        raise _Malformed(f"{where}.weight is {_shown(weight)}, not 0 or 1")
    return Message(role, content, learn=role == "assistant" and weight == 1)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"
