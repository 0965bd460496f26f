"""Rows on the real template: how many tokens, how many are learnt, what `max_length` cuts off.

Owns the findings that need a base's tokenizer. It renders with `train.epoch.encoding.render`,
the one that training uses, so what is found here is what training would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.dataset.records import CanonicalRow, Conversation, RowKind, RowMessage
from train.epoch.encoding import IGNORED, LabelledTokens, Tokenizer, render
from train.rendering.showing import ToolsHidden


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row in tokens; of a preference, the longer of its two conversations."""

    tokens: int
    learnt: int
    findings: tuple[tuple[str, str], ...]


class Rendering:
    """Renders samples with one tokenizer, up to `max_length` tokens."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        if not tokenizer.chat_template:
            raise UsageError("base model", "has no chat template", "use an instruct model")
        self._tokenizer = tokenizer
        self._max_length = max_length
        self.special_tokens = tuple(tokenizer.all_special_tokens)

    def render(self, sample: CanonicalRow) -> Rendered:
        """Return the counts and findings of `sample`."""
        if sample.form.kind is RowKind.TEXT:
            ids = self._tokenizer(sample.text, add_special_tokens=False).input_ids
            return Rendered(len(ids), len(ids), ())
        parts = [self._conversation(messages, sample.tools) for messages in _conversations(sample)]
        longest = max(parts, key=lambda part: part.tokens)
        return Rendered(longest.tokens, longest.learnt, tuple(f for part in parts for f in part.findings))

    def _conversation(
        self, messages: tuple[RowMessage, ...], tools: tuple[Mapping[str, Any], ...]
    ) -> Rendered:
        try:
            examples = render(Conversation(0, messages, tools), self._tokenizer)
        except ToolsHidden as error:
            return Rendered(0, 0, (("D-TOOLS", str(error)),))
        except ValueError as error:
            return Rendered(0, 0, (("D-TEMPLATE", str(error)),))
        found = [self._example(one) for one in examples]
        cuts = list(dict.fromkeys(finding for one in found for finding in one.findings))
        if any(one.learnt for one in found):  # what is left of the row is learnt
            cuts = [("D-CUT", fact) for _, fact in cuts]
        return Rendered(max(one.tokens for one in found), sum(one.learnt for one in found), tuple(cuts))

    def _example(self, example: LabelledTokens) -> Rendered:
        learnt = sum(label != IGNORED for label in example.labels[: self._max_length])
        return Rendered(len(example.ids), learnt, tuple(self._cuts(example, learnt)))

    def _cuts(self, example: LabelledTokens, learnt: int) -> Iterator[tuple[str, str]]:
        if len(example.ids) <= self._max_length:
            return
        fact = f"has {len(example.ids)} tokens, max_length is {self._max_length}"
        if learnt == 0:
            first = next(index for index, label in enumerate(example.labels) if label != IGNORED)
            yield "D-CUT-OFF", f"{fact}, and its answer begins at token {first + 1}"
        else:
            yield "D-CUT", f"{fact}: {example.learnt - learnt} tokens of the answer are cut off"


def load_rendering(base: Path, max_length: int) -> Rendering:
    """Return the rendering with the tokenizer in the model folder `base`.

    Raises: UsageError: when it holds no tokenizer, or one without a chat template.
    """
    return Rendering(load_tokenizer_of(base), max_length)


def load_tokenizer_of(base: Path) -> Any:
    """Return the tokenizer in the model folder `base`.

    Raises: UsageError: when it holds none.
    """
    from train.model.loading import load_tokenizer

    try:
        return load_tokenizer(base)
    except (OSError, ValueError) as error:
        raise UsageError(str(base), "holds no tokenizer", "name a model folder", param="base") from error


def _conversations(sample: CanonicalRow) -> tuple[tuple[RowMessage, ...], ...]:
    if sample.rejected:
        return sample.messages, sample.prompt + sample.rejected
    return (sample.messages,)
