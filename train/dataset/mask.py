"""Per token of a row: is it trained on, and why.

Owns the words for it. The labels come from `train.epoch.encoding.render`, the one that training uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from registry.errors import UsageError
from train.dataset.forms import read_sample
from train.dataset.forms.mapping import PLAIN, RowMapping, require_columns
from train.dataset.records import CanonicalRow, Conversation, Malformed, RowKind
from train.dataset.sources import RawRow, Where, read_lines
from train.epoch.encoding import IGNORED, LabelledTokens, render
from train.epoch.rows import row_error
from train.rendering.ends import stops_of
from train.rendering.examples import message_ends

DEFAULT_ROWS = 3


class Why(Enum):
    """Why a token is, or is not, trained on."""

    ANSWER = "answer"
    END = "end of the answer's turn"
    TEXT = "text"
    QUESTION = "before an answer: the model is given it"
    HEADER = "before an answer: the server writes it"
    UNUSED = "answer of weight 0"
    AFTER = "after the end of the turn: the server has stopped"
    CUT = "cut off by max_length"

    @property
    def learnt(self) -> bool:
        """Return True when tokens of this kind have a loss."""
        return self in {Why.ANSWER, Why.END, Why.TEXT}


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """One token; `text` is what it decodes to alone."""

    id: int
    text: str
    why: Why


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """One conversation of a row; `part` tells apart a preference's two (chosen, rejected)."""

    row: int
    part: str
    tokens: tuple[MaskedToken, ...]


def mask_file(
    path: Where, rows: frozenset[int], tokenizer: Any, max_length: int, reading: RowMapping = PLAIN
) -> Iterator[MaskedRow]:
    """Yield the rows with the numbers `rows` (none: the first three) of the file at `path`.

    Raises: UsageError: a row that cannot be read, rendered, has no trained token, or is not there.
    """
    require_columns(path, reading)
    missing = set(rows)
    for count, line in enumerate(read_lines(path)):
        if (rows and not missing) or (not rows and count == DEFAULT_ROWS):
            return
        if not rows or line.number in rows:
            missing.discard(line.number)
            yield from _mask_line(path, line, tokenizer, max_length, reading)
    if missing:
        raise UsageError(
            f"{path} row {min(missing)}", "is not in the file, or blank", "name a row of the file"
        )


def _mask_line(
    path: Where, line: RawRow, tokenizer: Any, max_length: int, reading: RowMapping
) -> Iterator[MaskedRow]:
    try:
        sample = read_sample(line.parse(), reading)
        for part, tokens in _masked(line.number, sample, tokenizer, max_length):
            if not any(token.why.learnt for token in tokens):
                raise row_error(path, line.number, "has no trained token", "raise max_length or shorten it")
            yield MaskedRow(line.number, part, tuple(tokens))
    except (Malformed, ValueError) as error:
        raise row_error(path, line.number, error, "see `wardrobe data check`") from error


def _masked(
    number: int, sample: CanonicalRow, tokenizer: Any, max_length: int
) -> Iterator[tuple[str, list[MaskedToken]]]:
    if sample.form.kind is RowKind.TEXT:
        ids = tokenizer(sample.text, add_special_tokens=False).input_ids
        yield "text", [MaskedToken(one, tokenizer.decode([one]), Why.TEXT) for one in ids]
        return
    part = "chosen" if sample.rejected else "conversation"
    yield from _explained(part, Conversation(number, sample.messages, sample.tools), tokenizer, max_length)
    if sample.rejected:
        row = Conversation(number, sample.prompt + sample.rejected, sample.tools)
        yield from _explained("rejected", row, tokenizer, max_length)


def _explained(
    part: str, row: Conversation, tokenizer: Any, max_length: int
) -> Iterator[tuple[str, list[MaskedToken]]]:
    examples = render(row, tokenizer)
    for number, example in enumerate(examples):
        name = part if len(examples) == 1 else f"{part}, example {number + 1} of {len(examples)}"
        yield name, _explain(row, example, tokenizer, max_length)


def _explain(
    row: Conversation, example: LabelledTokens, tokenizer: Any, max_length: int
) -> list[MaskedToken]:
    ids, labels, stops = example.ids, example.labels, stops_of(tokenizer)
    ends = message_ends(row, tokenizer, example)
    reasons: list[Why] = []
    for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        learn, message = index in example.answers, row.messages[index]
        unused = message.role == "assistant" and not message.learn
        reasons += _reasons(learn, unused, labels[start:end], ids[start:end], stops)
    reasons += [
        Why.HEADER if label == IGNORED else Why.END if one in stops else Why.ANSWER
        for one, label in zip(ids[len(reasons) :], labels[len(reasons) :], strict=True)
    ]
    return [
        MaskedToken(one, tokenizer.decode([one]), why if index < max_length else Why.CUT)
        for index, (one, why) in enumerate(zip(ids, reasons, strict=True))
    ]


def _reasons(
    learn: bool, unused: bool, labels: Sequence[int], ids: Sequence[int], stops: frozenset[int]
) -> Iterator[Why]:
    if not learn and all(label == IGNORED for label in labels):
        yield from [Why.UNUSED if unused else Why.QUESTION] * len(ids)
        return
    begun = False
    for one, label in zip(ids, labels, strict=True):
        if label == IGNORED:
            yield Why.AFTER if begun else Why.HEADER
        else:
            begun = True
            yield Why.END if one in stops else Why.ANSWER
