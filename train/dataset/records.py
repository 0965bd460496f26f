"""What a row of a data file is, whatever form it was written in.

Owns the values that pass between reading, checking and training; knows no file and no tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

ROLES = ("system", "developer", "user", "assistant", "tool")


class CheckWatcher(Protocol):
    """Whoever watches a check or a split."""

    def phase(self, label: str, total: int, *, in_bytes: bool = False) -> None:
        """Take note: a phase of `total` steps or bytes begins."""

    def advance(self, amount: int) -> None:
        """Take note of steps or bytes that are done."""


class Unwatched:
    """A progress that nobody sees."""

    def phase(self, label: str, total: int, *, in_bytes: bool = False) -> None:
        """Do nothing."""

    def advance(self, amount: int) -> None:
        """Do nothing."""


class RowKind(Enum):
    """What a row can teach: answers, a choice between two, a thumb up or down, plain text."""

    SUPERVISED = "supervised"
    PREFERENCE = "preference"
    KTO = "kto"
    TEXT = "text"


class RowForm(Enum):
    """How a row is written down."""

    CHAT = "chat"
    SHAREGPT = "sharegpt"
    ALPACA = "alpaca"
    PROMPT = "prompt/completion"
    PREFERENCE = "preference"
    OPENAI_PREFERENCE = "openai preference"
    KTO = "kto"
    CALLS = "xlam"
    TEXT = "text"

    @property
    def kind(self) -> RowKind:
        """Return what rows of this form can teach."""
        return _KINDS.get(self, RowKind.SUPERVISED)


_KINDS = {
    RowForm.PREFERENCE: RowKind.PREFERENCE,
    RowForm.OPENAI_PREFERENCE: RowKind.PREFERENCE,
    RowForm.KTO: RowKind.KTO,
    RowForm.TEXT: RowKind.TEXT,
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call in an assistant's turn; `arguments` is JSON, as OpenAI's API writes it."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class RowMessage:
    """One turn; `learn` is True for the answers that are trained on.

    `reasoning` is what a reasoning model thought before `content`, `calls` are the tools that an assistant's
    turn calls, `call_id` is the call whose result a tool's turn is, `name` who speaks. Empty: there is none.
    `ignored` are keys of the turn that say nothing about it to training.
    """

    role: str
    content: str
    learn: bool
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""
    ignored: tuple[str, ...] = field(default=(), compare=False)

    def unlearnt(self) -> RowMessage:
        """Return the same turn, given and not learnt."""
        return replace(self, learn=False) if self.learn else self

    @property
    def texts(self) -> tuple[str, ...]:
        """Return everything that the turn says: thoughts, content, and the arguments of its calls."""
        return tuple(
            one for one in (self.reasoning, self.content, *(call.arguments for call in self.calls)) if one
        ) or ("",)

    @property
    def said(self) -> str:
        """Return the turn as one text, its calls as `name(arguments)`, for comparing and for people."""
        if not self.calls and not self.reasoning:
            return self.content
        calls = (f"{call.name}({call.arguments})" for call in self.calls)
        return "\n".join(one for one in (self.reasoning, self.content, *calls) if one)

    def chat(self) -> dict[str, Any]:
        """Return the turn as chat templates take it, which is as vLLM gives it to them.

        That is OpenAI's form, with arguments as an object where they are one.
        """
        found: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            # vLLM gives both names: templates ask for either.
            found |= {"reasoning": self.reasoning, "reasoning_content": self.reasoning}
        if self.calls:
            found["tool_calls"] = [_call(one) for one in self.calls]
        if self.call_id:
            found["tool_call_id"] = self.call_id
        if self.name:
            found["name"] = self.name
        return found


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation and the line of the file (from 1) that it came from.

    `tools` are the tools that the assistant may call, in OpenAI's form.
    """

    number: int
    messages: tuple[RowMessage, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class CanonicalRow:
    """One row in the canonical form.

    `messages` is the conversation; of a preference it ends with the chosen answer, of a KTO row with the
    rated one. `rejected` is the other answer, `liked` the rating, `text` a plain document. `tools` are the
    tools that answers may call, in OpenAI's form. `extra` names the keys that training does not read, `notes`
    are findings (rule, fact) about how the row was read.
    """

    form: RowForm
    messages: tuple[RowMessage, ...] = ()
    rejected: tuple[RowMessage, ...] = ()
    liked: bool | None = None
    text: str = ""
    extra: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def prompt(self) -> tuple[RowMessage, ...]:
        """Return the turns before the last answer."""
        return self.messages[: self._answer]

    @property
    def answer(self) -> tuple[RowMessage, ...]:
        """Return the turns from the last answer on."""
        return self.messages[self._answer :]

    @property
    def texts(self) -> tuple[str, ...]:
        """Return every text of the row, in order."""
        if self.text:
            return (self.text,)
        return tuple(one for message in (*self.messages, *self.rejected) for one in message.texts)

    @property
    def _answer(self) -> int:
        learnt = [index for index, message in enumerate(self.messages) if message.learn]
        return learnt[-1] if learnt else len(self.messages)


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = call.arguments
    # In vLLM's order of keys: some templates show the whole object.
    function = {"arguments": arguments, "name": call.name}
    return ({"id": call.id} if call.id else {}) | {"function": function, "type": "function"}


def joined(messages: Sequence[RowMessage]) -> str:
    """Return the texts of `messages`, one after the other, with their roles."""
    return "\n".join(f"{message.role}: {message.said}" for message in messages)


class Malformed(ValueError):
    """What is wrong with a row, in words; `rule` is the finding of the catalogue that it is.

    `remedy` is what to do where that is another thing than for every row of the rule.
    """

    def __init__(self, fact: str, rule: str = "D-SCHEMA", remedy: str = "") -> None:
        super().__init__(fact)
        self.rule = rule
        self.remedy = remedy
