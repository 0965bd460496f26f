"""What a model said and how it was judged: the values that graders take and give. Pure, light.

Invariant: `None` as a score means "not judged" (another grader's item, a pair's second half, no answer);
it is never counted as wrong in silence: a missing answer is in `Sample.error`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from train.evaluation.forms import Item, Message
    from train.evaluation.suites import Suite


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer; `finish` is the protocol's reason, `error` why there is no answer."""

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    error: str | None = None


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

    def answer(self, messages: Sequence[Message], suite: Suite) -> Sample:
        """Answer one question; a failure is in the sample's `error`."""

    def log_probability(self, messages: Sequence[Message], expected: str, suite: Suite) -> tuple[float, int]:
        """Return the sum of the natural log-probabilities of `expected` and its number of tokens.

        Raises: WardrobeError: the model cannot tell.
        """


@dataclass(frozen=True, slots=True)
class Hearing:
    """Everything a grader may look at for one model: what it was asked, what it said, what others said.

    `others` are the answers of the model that is compared with, None without one; `judge` makes a model of
    a judge's name; `spread` runs one call per item, several at once.
    """

    suite: Suite
    items: Sequence[Item]
    questions: Sequence[Sequence[Message]]
    samples: Sequence[Sample]
    model: Model
    others: Sequence[Sample] | None
    judge: Callable[[str], Model]
    spread: Callable[[Callable[[int], Grade], Sequence[int]], list[Grade]]
