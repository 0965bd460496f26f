r"""Names of files as text: a file system takes any bytes, JSON and terminals take UTF-8.

Owns how the bytes that are no UTF-8, which Python hands on as lone surrogates, are written: `\xff`.
"""

from __future__ import annotations

import re

_LONE = re.compile("[\ud800-\udfff]")


def spelled(text: str) -> str:
    """Return `text` with every byte that is no UTF-8, and every lone surrogate, as an escape."""
    return text if text.isascii() else _LONE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
