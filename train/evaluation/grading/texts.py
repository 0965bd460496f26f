"""Reading an answer: folding, extracting, finding the label. Pure.

Invariant: what is extracted depends on the answer's text alone, never on what was expected.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

_FENCE = re.compile(r"\A\s*```[A-Za-z0-9_+-]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_BLOCK = re.compile(r"```[A-Za-z0-9_+-]*\s*\n(.*?)```", re.DOTALL)
_DROP = str.maketrans("", "", string.punctuation)


def extract(text: str, pattern: str | None) -> str | None:
    """Return the first group (or the whole) of the last match of `pattern`, None without a match."""
    if pattern is None:
        return text
    found = None
    for found in re.finditer(pattern, text):  # noqa: B007  the last one is wanted
        pass
    if found is None:
        return None
    return next((group for group in found.groups() if group is not None), found[0])


def fold(text: str, *, casefold: bool = False, punctuation: bool = True) -> str:
    """Return `text` in NFC with white space folded; without case or punctuation where wanted."""
    folded = unicodedata.normalize("NFC", text)
    folded = folded.casefold() if casefold else folded
    folded = folded if punctuation else folded.translate(_DROP)
    return " ".join(folded.split())


def find_label(text: str, labels: Sequence[str], pattern: str | None, *, casefold: bool = True) -> str | None:
    """Return the label that an answer names, None where it names none.

    With a pattern, what it extracts must be a label; else the label that occurs first counts, as a whole
    word, and of two at one place the longer.
    """
    extracted = extract(text, pattern)
    if extracted is None:
        return None
    if pattern is not None:
        wanted = fold(extracted, casefold=casefold)
        return next((label for label in labels if fold(label, casefold=casefold) == wanted), None)
    hits = [(place, -len(label), label) for label in labels if (place := _place(text, label, casefold)) >= 0]
    return min(hits)[2] if hits else None


def unfence(text: str) -> str:
    """Return what a code fence around the whole answer holds, or the answer itself."""
    match = _FENCE.match(text)
    return match[1] if match else text


def code_of(text: str) -> str:
    """Return the first fenced block of an answer, or the answer itself."""
    match = _BLOCK.search(text)
    return match[1] if match else text


def _place(text: str, label: str, casefold: bool) -> int:
    flags = re.IGNORECASE if casefold else 0
    match = re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text, flags)
    return match.start() if match else -1
