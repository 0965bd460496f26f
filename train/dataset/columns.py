"""What is kept of every row while a file streams by: 64 bytes of numbers, no text.

Owns the columns and the hashes that fill them. Hashes have 64 bits: among a million rows two different
texts look equal with a probability of 3 in 100 million.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.dataset.records import CanonicalRow, RowForm, RowKind, RowMessage, joined

FORMS = tuple(RowForm)
_TYPES = {
    "place": "Q", "whole": "Q", "question": "Q", "answer": "Q", "rejected": "Q",
    "question_chars": "I", "answer_chars": "I", "rejected_chars": "I", "tokens": "I", "learnt": "I",
    "form": "B", "liked": "b", "turns": "H",
}  # fmt: skip
_KINDS = np.array([list(RowKind).index(form.kind) for form in FORMS])
_MOST_TURNS = 65_535


class RowColumns:
    """Numbers about every readable row, in the order of the files."""

    def __init__(self) -> None:
        self._arrays = {name: array(code) for name, code in _TYPES.items()}

    def __len__(self) -> int:
        return len(self._arrays["place"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column; it must not grow while the result is in use."""
        return np.frombuffer(self._arrays[name], dtype=_TYPES[name])

    def add(self, place: int, sample: CanonicalRow, tokens: int, learnt: int) -> None:
        """Append a row; `tokens` and `learnt` are 0 where no tokenizer was given."""
        # With other tools the same words ask something else.
        tools = json.dumps(sample.tools) if sample.tools else ""
        question, answer = normal(joined(sample.prompt)) + tools, joined(sample.answer) or sample.text
        rejected = joined(sample.rejected)
        values = (
            place,
            text_hash(f"{question}\0{answer}\0{rejected}"),
            text_hash(question) if question else 0,
            text_hash(answer),
            text_hash(rejected) if rejected else 0,
            length(sample.prompt),
            length(sample.answer) or len(sample.text),
            length(sample.rejected),
            tokens,
            learnt,
            FORMS.index(sample.form),
            -1 if sample.liked is None else sample.liked,
            min(len(sample.messages), _MOST_TURNS),
        )
        for column, value in zip(self._arrays.values(), values, strict=True):
            column.append(value)

    def of_kind(self, kind: RowKind) -> NDArray[np.int64]:
        """Return the indices of the rows of `kind`."""
        return np.flatnonzero(_KINDS[self["form"]] == list(RowKind).index(kind))


def normal(text: str) -> str:
    """Return `text` without what does not make a question another one: case and spacing."""
    return " ".join(text.casefold().split())


def text_hash(text: str) -> int:
    """Return 64 bits of BLAKE2b of `text`, blanks around it left out."""
    return int.from_bytes(
        blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


def length(messages: Sequence[RowMessage]) -> int:
    """Return the characters of all texts of `messages`."""
    return sum(len(message.said) for message in messages)
