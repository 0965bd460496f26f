"""ROUGE-L: the longest common subsequence of words. Pure.

Words are runs of ASCII letters and digits in lower case, as in the reference implementation without
stemming; the tests compare with it where it is installed. Text without such words scores 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def rouge_l(answer: str, expected: Sequence[str]) -> float:
    """Return the F1 of the longest common subsequence, against the best of the expected texts."""
    return max((_f1(words(answer), words(text)) for text in expected), default=0.0)


def _f1(answer: list[str], expected: list[str]) -> float:
    common = common_length(answer, expected)
    if common == 0:
        return 0.0
    precision, recall = common / len(answer), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def common_length(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for index, other in enumerate(second, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == other else max(above, row[index - 1])
            diagonal = above
    return row[-1]


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return _WORD.findall(text.lower())
