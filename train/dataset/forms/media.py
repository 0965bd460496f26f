"""Pictures, sounds and films in rows: found, refused, or left out on request.

Owns where they may stand: keys of the row, keys of a message, parts of its content, and the placeholders of
a text (`<image>`). Adapters here learn text alone; a row that is about a picture would teach it to invent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from train.dataset.records import Malformed

RULE = "D-MEDIA"
_KINDS = ("image", "images", "audio", "audios", "video", "videos")
_ENDS = ("path", "paths", "url", "urls", "file", "files")
KEYS = frozenset({*_KINDS, *(f"{kind}_{end}" for kind in _KINDS for end in _ENDS)})
_PARTS = KEYS | {"input_image", "input_audio", "file", "input_file"}
# Where people put them: alone in a line or at its beginning; `docker run <image>` is a text.
_PLACEHOLDER = re.compile(
    r"^\s*(<(?:image|video|audio)>)(?!(?s:.*)</(?:image|video|audio)>)"
    r"|(<\|(?:image|video|audio)(?:_pad)?\|>|<start_of_image>|<image_soft_token>)"
    r"|(<(?:img|image|audio|video)>)[^<\s]+(?:\.\w{2,5}|://[^<\s]+)</",
    re.MULTILINE,
)
_MARKS = ("<image", "<video", "<audio", "<img>", "<|", "<start_of_image>")
_REMEDY = f"take the row out, or have its text alone learnt: --accept {RULE}, in a config data.accept"


def media_of(row: Mapping[str, Any], extra: Sequence[str]) -> tuple[str, ...]:
    """Return the keys among `extra` that hold media."""
    return tuple(key for key in extra if key.lower() in KEYS and row[key])


def placeholder_in(texts: Sequence[str]) -> str | None:
    """Return the placeholder of a picture, a sound or a film that stands in one of `texts`."""
    for text in texts:
        if "<" in text and any(mark in text for mark in _MARKS) and (found := _PLACEHOLDER.search(text)):
            return str(next(filter(None, found.groups())))
    return None


def fault(held: Sequence[str]) -> Malformed:
    """Return the fault of a row that holds these media."""
    return Malformed(f"holds {', '.join(held)}, and only text is trained on", RULE, _REMEDY)


def instead_of(error: Malformed, row: Mapping[str, Any]) -> Malformed:
    """Return the fault of a row that cannot be read: its media where it holds some in its messages."""
    parts = parts_of(row)
    return fault(parts) if parts else error


def parts_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what of a row's messages is not text: kinds of parts, keys of messages."""
    return tuple(dict.fromkeys(found for value in row.values() for found in _held(value)))


def without_parts(value: Any) -> Any:
    """Return `value` without the media in its messages."""
    if isinstance(value, list):
        return [without_parts(one) for one in value if not _is_part(one)]
    if isinstance(value, Mapping) and ("content" in value or "value" in value or "messages" in value):
        return {key: without_parts(one) for key, one in value.items() if key not in KEYS}
    return value


def _held(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(found for one in value for found in _held(one))
    if not isinstance(value, Mapping):
        return ()
    if _is_part(value):
        return (str(value["type"]),)
    own = tuple(key for key in value if key in KEYS and value[key])
    return own + tuple(found for key in ("content", "value", "messages") for found in _held(value.get(key)))


def _is_part(value: object) -> bool:
    kind = value.get("type") if isinstance(value, Mapping) else None
    return isinstance(kind, str) and kind in _PARTS
