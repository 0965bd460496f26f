"""Token ids of texts that grow: a text's ids, and those of what is added behind it.

Owns which tokens a text ends with. A tokenizer cuts a text at its added tokens (`<|im_end|>` and their like)
before anything else, so what stands behind the last of them alone decides how an addition is split. Only that
much is tokenised again, and a conversation of many turns once instead of once per answer. Invariant: the ids
are those that the whole text gives; where that cannot be told from its end, the whole text is tokenised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from train.rendering.interface import Tokenizer

# A thought's marks are tokens of the model, and part of what an answer may say.
THOUGHT_MARKS = frozenset({"<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>"})


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text and its ids; `exact` is False where the ids are not what the whole text gives."""

    text: str
    ids: tuple[int, ...]
    exact: bool = True


class Tokens:
    """The tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        self._call: Any = tokenizer
        self.marks = {one: str(token) for one, token in added.items()}
        self._cuts = bool(getattr(tokenizer, "is_fast", False))
        special = {str(token) for token in added.values() if token.special} | {*tokenizer.all_special_tokens}
        self._special = _any_of(special - THOUGHT_MARKS)
        self._special_thoughts = _any_of(special & THOUGHT_MARKS)
        self._tail_ids = lru_cache(maxsize=256)(self.ids)

    def ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of `text`; the template has written the special tokens already."""
        return tuple(self._call(text, add_special_tokens=False).input_ids)

    def write(self, text: str, begun: TokenizedText | None = None) -> TokenizedText:
        """Return `text` with its ids; `begun` may be what it begins with."""
        if begun is not None and begun.exact and text.startswith(begun.text):
            added = self.added(begun, text[len(begun.text) :])
            if added is not None:
                return TokenizedText(text, begun.ids + added)
        return TokenizedText(text, self.ids(text))

    def added(self, written: TokenizedText, more: str) -> tuple[int, ...] | None:
        """Return the ids of `more` behind `written`; None where those of `written` would change."""
        tail, tail_ids = self._tail(written)
        whole = self.ids(tail + more)
        return whole[len(tail_ids) :] if whole[: len(tail_ids)] == tail_ids else None

    def special_in(self, text: str, *, thoughts: bool) -> str | None:
        """Return a special token in `text`; with `thoughts`, one that marks a thought is none."""
        found = self._special.search(text) or (None if thoughts else self._special_thoughts.search(text))
        return found.group() if found else None

    def decode(self, ids: tuple[int, ...]) -> str:
        """Return the text of `ids`, special tokens included."""
        return str(self._call.decode(list(ids)))

    def _tail(self, written: TokenizedText) -> tuple[str, tuple[int, ...]]:
        """Return the end of `written` that decides how an addition is split, from the last added token on."""
        if self._cuts:
            for position in range(len(written.ids) - 1, -1, -1):
                if (mark := self.marks.get(written.ids[position])) is not None:
                    at = written.text.rfind(mark)
                    tail, ids = written.text[at:], written.ids[position:]
                    if at >= 0 and self._tail_ids(tail) == ids:
                        return tail, ids
                    break
        return written.text, written.ids


_KNOWN: WeakKeyDictionary[Any, Tokens] = WeakKeyDictionary()


def tokens_of(tokenizer: Tokenizer) -> Tokens:
    """Return the tokens of `tokenizer`, which are read once: it must not be given more afterwards."""
    found = _KNOWN.get(tokenizer)
    if found is None:
        found = _KNOWN[tokenizer] = Tokens(tokenizer)
    return found


def _any_of(words: set[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
