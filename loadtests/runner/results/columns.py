"""The records of a run as columns: some 200 bytes a request, so that millions fit.

Owns which requests are measured and the selections of them; what is computed from a selection is
`figures`'. Names (models, arms, kinds of errors) are kept once and referred to by number.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.runner.records import CANCELLED, ERROR, OK, UNFINISHED, RequestRecord

OUTCOMES = (OK, ERROR, CANCELLED, UNFINISHED)
Mask = NDArray[np.bool_]
Column = NDArray[np.float64]
_NUMBERS = ("at", "sent", "first", "ended", "prompt_tokens", "output_tokens", "pieces")
_WORDS = ("adapter", "version", "arm", "error")


@dataclass
class _Builder:
    numbers: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in _NUMBERS})
    codes: dict[str, array[int]] = field(default_factory=lambda: {name: array("i") for name in _WORDS})
    words: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in _WORDS})
    outcome: array[int] = field(default_factory=lambda: array("b"))
    flags: array[int] = field(default_factory=lambda: array("b"))
    details: dict[str, str] = field(default_factory=dict)

    def add(self, record: RequestRecord) -> None:
        for name, column in self.numbers.items():
            value = getattr(record, name)
            column.append(np.nan if value is None else value)
        for name, codes in self.codes.items():
            known = self.words[name]
            codes.append(known.setdefault(getattr(record, name), len(known)))
        self.outcome.append(OUTCOMES.index(record.outcome))
        self.flags.append(record.stream + 2 * record.wrong_adapter + 4 * record.wrong_text)
        if record.error:
            self.details.setdefault(record.error, record.detail)


@dataclass(frozen=True)
class RequestColumns:
    """All requests of a run; `details` holds a sentence for each kind of error."""

    numbers: dict[str, Column]
    codes: dict[str, NDArray[np.int32]]
    words: dict[str, tuple[str, ...]]
    outcome: NDArray[np.int8]
    stream: Mask
    wrong_adapter: Mask
    wrong_text: Mask
    details: dict[str, str]

    @classmethod
    def of(cls, records: Iterable[RequestRecord]) -> RequestColumns:
        """Return the columns of `records`."""
        builder = _Builder()
        for record in records:
            builder.add(record)
        flags = np.frombuffer(builder.flags, dtype=np.int8) if builder.flags else np.empty(0, np.int8)
        return cls(
            {name: np.array(values, dtype=float) for name, values in builder.numbers.items()},
            {name: np.array(values, dtype=np.int32) for name, values in builder.codes.items()},
            {name: tuple(known) for name, known in builder.words.items()},
            np.array(builder.outcome, dtype=np.int8),
            (flags & 1).astype(bool),
            (flags & 2).astype(bool),
            (flags & 4).astype(bool),
            builder.details,
        )

    def __len__(self) -> int:
        return len(self.outcome)

    def __getattr__(self, name: str) -> Any:
        """Return a column of numbers by its name."""
        if name in _NUMBERS:
            return self.numbers[name]
        raise AttributeError(name)

    def is_(self, word: str, value: str) -> Mask:
        """Return where the word (`adapter`, `version`, `arm`, `error`) is `value`."""
        known = self.words[word]
        code = known.index(value) if value in known else -1
        return np.asarray(self.codes[word] == code)

    def ended_as(self, outcome: str) -> Mask:
        """Return where a request ended so."""
        return np.asarray(self.outcome == OUTCOMES.index(outcome))

    def open_within(self, spans: Iterable[tuple[float, float]]) -> Mask:
        """Return where a request was open at some time of a span."""
        found = np.zeros(len(self), dtype=bool)
        for begin, end in spans:
            found |= (self.sent <= end) & (self.ended >= begin)
        return found

    def values(self, word: str, mask: Mask) -> list[str]:
        """Return the values of a word within `mask`, sorted, without the empty one."""
        codes = np.unique(self.codes[word][mask])
        return sorted(name for name in (self.words[word][code] for code in codes) if name)
