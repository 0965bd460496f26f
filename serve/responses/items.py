"""The items of a responses request: what `input` holds, as vLLM understands it.

Pure functions of bytes. An item that needs no change keeps the client's own bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from serve.errors import BadBody

_PARTS = {"output_text": "text", "refusal": "refusal", "input_text": "text", "text": "text"}
"""Where the text of a part of an assistant's turn is, by its type."""

_UNFINISHED = frozenset({"in_progress", "incomplete"})
"""An assistant's turn that the model is to go on with: vLLM reads it from the item as a whole."""

_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_items = msgspec.json.Decoder(list[dict[str, Any]]).decode


def read_items(raw: Raw | None) -> list[bytes]:
    """Return each item of `input`; a plain string is one turn of the user's.

    Raises: BadBody: neither a string nor a list.
    """
    text = b"null" if raw is None else bytes(raw)
    try:
        if text.startswith(b'"'):
            return [b'{"type":"message","role":"user","content":' + text + b"}"]
        return [bytes(one) for one in _decode_list(text)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadBody(
            "input", "is neither a string nor a list of items", "send one of them", param="input"
        ) from error


def join_items(items: list[bytes]) -> Raw:
    """Return `input` as a list of `items`."""
    return Raw(b"[" + b",".join(items) + b"]")


def needs_mending(raw: Raw) -> bool:
    """Return True when an item may be one that vLLM refuses, or of which it loses a part."""
    text = bytes(raw)
    return b'"output_text"' in text or b'"refusal"' in text


def mend(items: list[bytes]) -> list[bytes]:
    """Return `items` with each assistant's turn as one text.

    NOTE: vLLM refuses a turn of `output_text` parts without `type` and id, which Vercel's SDK and Codex
    send, with 239 validation errors (vllm#33089), and takes the first of several parts only. Remove when it
    does neither.
    """
    try:
        return [_mended(one) for one in items]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return items  # not objects: vLLM refuses them in its own words


def _mended(item: bytes) -> bytes:
    if b'"output_text"' not in item and b'"refusal"' not in item:
        return item
    found = msgspec.json.decode(item, type=dict[str, Any])
    parts = found.get("content")
    if found.get("role") != "assistant" or not isinstance(parts, list):
        return item
    if found.get("status") in _UNFINISHED:
        return msgspec.json.encode({"type": "message", **found})
    texts = [_text(part) for part in parts]
    if None in texts:
        return item
    joined = "".join(text or "" for text in texts)
    return msgspec.json.encode({"type": "message", "role": "assistant", "content": joined})


def _text(part: object) -> str | None:
    if not isinstance(part, dict):
        return None
    text = part.get(_PARTS.get(str(part.get("type")), ""))
    return text if isinstance(text, str) else None


def reference_of(item: bytes) -> str | None:
    """Return the id that an `item_reference` names, None for any other item."""
    if b'"item_reference"' not in item:
        return None
    try:
        found = msgspec.json.decode(item, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return str(found.get("id")) if found.get("type") == "item_reference" else None


def identity_of(item: bytes) -> str | None:
    """Return an item's own id, None where it has none."""
    try:
        return msgspec.json.decode(msgspec.json.decode(item, type=dict[str, Raw])["id"], type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        return None


def shown_item(item: bytes, identity: str) -> dict[str, Any]:
    """Return an item of `input` as OpenAI lists it: with a type, parts and an id."""
    found = msgspec.json.decode(item, type=dict[str, Raw])
    shown: dict[str, Any] = {"id": identity, "type": "message", **found}
    shown["id"] = identity
    content = found.get("content")
    if content is not None and bytes(content).startswith(b'"'):
        kind = "output_text" if bytes(found.get("role", b"")) == b'"assistant"' else "input_text"
        shown["content"] = [{"type": kind, "text": content}]
    return shown
