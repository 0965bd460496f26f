"""Asking a stream for its usage where its client did not (pure)."""

from __future__ import annotations

import msgspec
from msgspec import Raw

USAGE_EVENTS = frozenset({"chat", "completion"})
"""Operations whose streams tell their usage in an event of its own, and only to who asks for it."""

_WANTED = Raw(b'{"include_usage":true}')
_FALSE = (b"false", b"null")


def ask_usage(fields: dict[str, Raw]) -> bool:
    """Have a stream tell its usage, and return True where its client did not ask for that."""
    if bytes(fields["stream"]) in _FALSE:
        return False
    raw = fields.get("stream_options")
    if raw is None or bytes(raw) == b"null":
        fields["stream_options"] = _WANTED
        return True
    try:
        options = msgspec.json.decode(raw, type=dict[str, Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False  # no object: vLLM refuses it
    if bytes(options.get("include_usage", b"null")) not in _FALSE:
        return False
    # Alone it means nothing; with the other it would put a usage into every event.
    options.pop("continuous_usage_stats", None)
    options["include_usage"] = Raw(b"true")
    fields["stream_options"] = Raw(msgspec.json.encode(options))
    return True
