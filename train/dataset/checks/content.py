"""What is wrong inside one text: encoding, control and invisible characters, chat markers.

Owns these checks of single texts; knows neither rows nor tokenizers, only the special tokens it is given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Zero-width space, word joiner, soft hyphen, BOM inside, direction overrides and isolates, tags. The
# joiners U+200C/D are left alone: emoji and several scripts need them.
INVISIBLE = re.compile("[\u200b\u2060\u00ad\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
SURROGATE = re.compile("[\ud800-\udfff]")
_MARKER = re.compile(
    r"<\|[A-Za-z0-9_ ]{2,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?s>|<(?:bos|eos|pad|unk)>"
    r"|<｜[^｜]{2,40}｜>|<(?:image|video|audio)>"
)
_SHOWN_CHARACTERS = 24


def inspect_text(text: str, special_tokens: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield (rule id, fact) of everything wrong in `text`."""
    yield from _markers(text, special_tokens)
    if found := CONTROL.search(text):
        yield "D-CONTROL", f"holds {_character(found[0])} at character {found.start() + 1}"
    if text.isascii():
        return
    if found := SURROGATE.search(text):
        yield "D-SURROGATE", f"holds half a character, U+{ord(found[0]):04X}, at {found.start() + 1}"
        return
    if found := INVISIBLE.search(text):
        yield "D-INVISIBLE", f"holds {_character(found[0])} at character {found.start() + 1}"
    if "\ufffd" in text:
        yield (
            "D-REPLACEMENT",
            f"holds {text.count(chr(0xFFFD))} × U+FFFD, first in {_around(text, chr(0xFFFD))}",
        )
    if change := repaired(text):
        yield "D-MOJIBAKE", f"{change[0]!r} -> {change[1]!r}"


def repaired(text: str) -> tuple[str, str] | None:
    """Return the first wrongly decoded piece of `text` and its repair, or None."""
    from ftfy import fix_encoding

    mended = fix_encoding(text)
    if mended == text:
        return None
    start = next((i for i, (a, b) in enumerate(zip(text, mended, strict=False)) if a != b), len(mended))
    tail = 0
    while tail < min(len(text), len(mended)) - start and text[-1 - tail] == mended[-1 - tail]:
        tail += 1
    begin = max(0, start - 8)
    return _cut(text[begin : len(text) - tail]), _cut(mended[begin : len(mended) - tail])


def _markers(text: str, special_tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    if "<" not in text and "[" not in text:
        return
    own = next((token for token in special_tokens if token in text), None)
    if own is not None:
        yield "D-SPECIAL", f"holds the special token {own}"
    elif found := _MARKER.search(text):
        yield "D-MARKER", f"holds the chat marker {found[0]}"


def _character(sign: str) -> str:
    name = unicodedata.name(sign, "")
    return f"U+{ord(sign):04X}{f' ({name.lower()})' if name else ''}"


def _around(text: str, sign: str) -> str:
    at = text.index(sign)
    return repr(_cut(text[max(0, at - 8) : at + _SHOWN_CHARACTERS]))


def _cut(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN_CHARACTERS else f"{text[: 2 * _SHOWN_CHARACTERS]}…"
