"""What is written in a suite: its messages, items and settings. Shapes only.

Owns the keys that a suite file and an item may have, each default in one place. How they are read and
checked against each other is `suites.py`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from train.evaluation.specs import Spec
from train.evaluation.strict import Strict


class Message(Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Item(Strict):
    """One question: `prompt` or `messages`; `expected` is one right answer or several.

    `tags` are its slices (`kind: refusal`), items of one `pair` must agree, `graders` limits who judges it,
    `data` is for templates, Python graders and programs.
    """

    id: str = ""
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    expected: str | tuple[str, ...] | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    pair: str | None = None
    graders: tuple[str, ...] | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict)

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
    items: str | tuple[Item, ...]
    shots: str | tuple[Item, ...] = ()
    template: str | None = None
    system: str | None = None
    api: Literal["chat", "completions"] = "chat"
    sampling: Sampling = Sampling()
    graders: tuple[Spec, ...] = Field(min_length=1)
    slices: tuple[str, ...] = ()


def judges(spec: Spec, item: Item) -> bool:
    """Tell whether a grader judges an item."""
    return item.graders is None or spec.label in item.graders
