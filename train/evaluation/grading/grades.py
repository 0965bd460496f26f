"""What a model said and how it was judged: the values that graders take and give. Pure, light.

Invariant: `None` as a score means "not judged" (another grader's item, a pair's second half, no answer);
it is never counted as wrong in silence: a missing answer is in `ModelAnswer.error`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from train.dataset.records import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.evaluation.formats.forms import SuiteItem, SuiteMessage
    from train.evaluation.formats.suites import Suite

Tools = Sequence[Mapping[str, Any]]
"""Tools that an answer may call, as servers and templates take them."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer; `finish` is the protocol's reason, `error` why there is no answer.

    `calls` are the tools that it calls; its `text` is what is said besides.
    """

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    error: str | None = None
    calls: tuple[ToolCall, ...] = ()

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> ModelAnswer:
        """Return the sample whose fields are `value`, as JSON has them.

        Raises: TypeError: a field is missing or not known.
        """
        calls = tuple(ToolCall(**call) for call in value.get("calls", ()))
        return cls(**{**value, "calls": calls})

    @property
    def said(self) -> str:
        """Return text and calls, for people."""
        calls = [f"{call.name}({call.arguments})" for call in self.calls]
        return "\n".join([self.text, *calls] if self.text or not calls else calls)


@dataclass(frozen=True, slots=True)
class Grade:
    """One judgement: `score` is 0…1 (perplexity: the item's own), or None where there is none.

    `parts` are the sums that a corpus figure is made of (expected and found label of macro-F1, n-gram
    counts, log-probability and tokens); `found` is what was read in the answer, or the judge's words.
    """

    score: float | None
    parts: tuple[float, ...] = ()
    found: str = ""


NOT_JUDGED = Grade(None)


class Model(Protocol):
    """Something that answers: a served model, or one in this process."""

    name: str

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        """Answer one question that may call `tools`; a failure is in the sample's `error`."""

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        """Return the sum of the natural log-probabilities of `expected` and its number of tokens.

        Raises: WardrobeError: the model cannot tell.
        """


@dataclass(frozen=True, slots=True)
class GraderInput:
    """Everything a grader may look at for one model: what it was asked, what it said, what others said.

    `others` are the answers of the model that is compared with, None without one; `judge` makes a model of
    a judge's name; `spread` runs one call per item, several at once.
    """

    suite: Suite
    items: Sequence[SuiteItem]
    questions: Sequence[Sequence[SuiteMessage]]
    samples: Sequence[ModelAnswer]
    model: Model
    others: Sequence[ModelAnswer] | None
    judge: Callable[[str], Model]
    spread: Callable[[Callable[[int], Grade], Sequence[int]], list[Grade]]
