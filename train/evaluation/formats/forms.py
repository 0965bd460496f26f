"""What is written in a suite: its messages, items and settings. Shapes only.

Owns the keys that a suite file and an item may have, each default in one place. How they are read and
checked against each other is `suites.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from registry.settings.models import Strict
from train.dataset.forms.calls import read_tools
from train.evaluation.formats.rows import read_row
from train.evaluation.formats.specs import Spec


class ExpectedCall(Strict):
    """A call that is expected; `arguments` are an object."""

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


class SuiteMessage(Strict):
    """One message of a conversation: of OpenAI's form, results of tools and earlier calls included."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    tool_call_id: str = ""
    name: str = ""

    @property
    def written(self) -> dict[str, JsonValue]:
        """Return the message as the API takes it, without what is empty."""
        more: dict[str, JsonValue] = self.model_dump(mode="json", exclude_defaults=True)
        return {"role": self.role, "content": self.content} | more

    @property
    def said(self) -> str:
        """Return content and calls, for people."""
        calls = [json.dumps(call.get("function", call)) for call in self.tool_calls]
        return "\n".join([self.content, *calls] if self.content or not calls else calls)


def called(calls: Sequence[ExpectedCall]) -> SuiteMessage:
    """Return the assistant's turn that makes `calls`."""
    written = [
        {
            "id": f"call{number:05}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for number, call in enumerate(calls, start=1)
    ]
    return SuiteMessage.model_validate({"role": "assistant", "tool_calls": written})


class SuiteItem(Strict):
    """One question: `prompt` or `messages`; `expected` is one right answer or several.

    `tools` may be called, `calls` are the calls that are right (an empty list: none). A row of training with
    its answer at the end is an item too: the answer is what is expected. `tags` are its slices (`kind:
    refusal`), items of one `pair` must agree, `graders` limits who judges it, `data` is for templates, Python
    graders and programs.
    """

    id: str = ""
    prompt: str | None = None
    messages: tuple[SuiteMessage, ...] = ()
    expected: str | tuple[str, ...] | None = None
    tools: tuple[dict[str, JsonValue], ...] = ()
    calls: tuple[ExpectedCall, ...] | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    pair: str | None = None
    graders: tuple[str, ...] | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, value: object) -> object:
        return read_row(value) if isinstance(value, dict) else value

    @property
    def written(self) -> dict[str, JsonValue]:
        """Return what identifies the item: keys that it does not use change nothing."""
        found: dict[str, JsonValue] = self.model_dump(mode="json")
        unused = {"tools"} if not self.tools else set()
        unused |= {"calls"} if self.calls is None else set()
        found = {key: one for key, one in found.items() if key not in unused}
        if self.messages:
            found["messages"] = [message.written for message in self.messages]
        return found

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.prompt is not None) and self.messages:
            raise ValueError("has both `prompt` and `messages`: give one")
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """Return the expected answers."""
        if self.expected is None:
            return ()
        return (self.expected,) if isinstance(self.expected, str) else self.expected


class Sampling(Strict):
    """How the model answers; greedy by default. `seed` is sent where the temperature is not 0."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1, le=32_768)
    stop: tuple[str, ...] = ()
    seed: int = 0


class SuiteFile(Strict):
    """A suite as it is written."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    description: str = ""
    items: str | tuple[SuiteItem, ...]
    shots: str | tuple[SuiteItem, ...] = ()
    template: str | None = None
    system: str | None = None
    tools: tuple[dict[str, JsonValue], ...] = ()
    api: Literal["chat", "completions"] = "chat"
    sampling: Sampling = Sampling()
    graders: tuple[Spec, ...] = Field(min_length=1)
    slices: tuple[str, ...] = ()

    @field_validator("tools", mode="before")
    @classmethod
    def _as_served(cls, value: object) -> object:
        return read_tools(value)


def judges(spec: Spec, item: SuiteItem) -> bool:
    """Tell whether a grader judges an item."""
    return item.graders is None or spec.label in item.graders
