"""The id of a request: the client's own where it is fit for a header, else a fresh one.

Every answer of the server carries it as `x-request-id`, errors too: it is what people write to support
about. Anthropic's clients read `request-id`. It names no version; that is the response id's business.
"""

from __future__ import annotations

import os
import re

HEADER = b"x-request-id"

ANTHROPIC_HEADER = b"request-id"

ANTHROPIC_PATHS = b"/v1/messages"
"""What the paths of Anthropic's protocol begin with."""

_OWN = re.compile(rb"[\x21-\x7e]{1,128}")


def echo_id(own: bytes, otherwise: bytes) -> bytes:
    """Return the client's own id: one word of visible ASCII, 128 characters at most; else `otherwise`."""
    return own if _OWN.fullmatch(own) else otherwise


def fresh_id() -> bytes:
    """Return an id for an answer that no version gives."""
    return b"req_" + os.urandom(16).hex().encode()


def id_headers(path: bytes, own: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that name a request to `path`; `own` is what the client called it, or nothing."""
    name = echo_id(own, b"") or fresh_id()
    headers = [(HEADER, name)]
    if path.startswith(ANTHROPIC_PATHS):
        headers.append((ANTHROPIC_HEADER, name))
    return headers
