"""What rendering takes and gives: a tokenizer, and rows of token ids with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

IGNORED = -100  # torch's ignore_index: no loss at this position

Tools = Sequence[Mapping[str, Any]]


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    eos_token_id: int | None
    chat_template: Any
    all_special_tokens: list[str]

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        *,
        tools: list[Any] | None,
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> str:
        """Render `conversation` to text."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        """Tokenise `text`; the result has `input_ids`."""


@dataclass(frozen=True, slots=True)
class LabelledTokens:
    """Token ids of one training example and their labels: the id itself, or -100 where nothing is learnt.

    `answers` are the indices of the messages that are learnt in it, `thoughtless` of those whose reasoning
    the template leaves out.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    answers: tuple[int, ...]
    thoughtless: tuple[int, ...] = ()

    @property
    def learnt(self) -> int:
        """Return the number of tokens with a loss."""
        return sum(label != IGNORED for label in self.labels)


class Unrenderable(ValueError):
    """A conversation that the base's template cannot show; `remedy` is the way out."""

    def __init__(self, fact: str, remedy: str = "correct the row or the chat template") -> None:
        super().__init__(fact)
        self.remedy = remedy
