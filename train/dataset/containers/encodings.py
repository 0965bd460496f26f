"""What text is encoded in: byte order marks, UTF-16 without one, and a name for what is no UTF-8.

Pure functions of bytes. UTF-16 and UTF-32 are read; other encodings are named, never guessed at in silence.
"""

from __future__ import annotations

import codecs
import unicodedata

BOM = codecs.BOM_UTF8
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MOST_NULS, _FEWEST_NULS = 0.9, 0.1
_AROUND = 12


def find_wide(head: bytes) -> tuple[str, int] | None:
    """Return (codec, bytes of its mark) where text of `head` has two or four bytes a character.

    Without a mark it must be plain to see: nearly every second byte is zero, and nearly no other is.
    """
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return codec, len(mark)
    pairs = len(head) // 2
    if pairs < 4:
        return None
    first, second = (head[at : 2 * pairs : 2].count(0) / pairs for at in (0, 1))
    if second > _MOST_NULS and first < _FEWEST_NULS:
        return "utf-16-le", 0
    return ("utf-16-be", 0) if first > _MOST_NULS and second < _FEWEST_NULS else None


def name_encoding(data: bytes, start: int) -> tuple[str | None, str]:
    """Return the encoding that `data`, which is no UTF-8 at `start`, is likely in, and the text around there.

    None where it is none of Western languages: a single row is too little to tell the others apart by.
    Latin-1 is told as WINDOWS-1252, which holds it.
    """
    if _is_western(data):
        return "WINDOWS-1252", data[max(0, start - _AROUND) : start + _AROUND].decode("cp1252", "replace")
    return None, ""


def _is_western(data: bytes) -> bool:
    """Tell whether the high bytes are letters and signs of Western languages, few among ASCII."""
    high = [one for one in data if one > 0x7F]
    try:
        text = bytes(high).decode("cp1252")
    except UnicodeDecodeError:
        return False
    likely = sum(unicodedata.category(one)[0] in "LPS" for one in text)
    return len(high) < 0.3 * len(data) and likely == len(high)
