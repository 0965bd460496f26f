"""Web pages that may call this server from a browser: cross-origin resource sharing (pure).

A browser asks first (a preflight), and shows a page only answers that name its origin. Only where keys
exist: a key is what a page has to have, so its origin may be any; without keys every page that anybody
visits could use the server. Cookies are never spoken of: a key is a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Line = tuple[bytes, bytes]

MAX_AGE_SECONDS = 600
"""How long a browser may remember a preflight; browsers cap it themselves."""

EXPOSED = b", ".join(
    (
        b"request-id",
        b"retry-after",
        b"x-request-id",
        b"x-should-retry",
        b"x-wardrobe-adapter",
        b"x-wardrobe-arm",
        b"x-wardrobe-digest",
    )
)
"""Headers of an answer that a page may read."""

_TOKENS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_LONGEST_LIST = 2_000
_ORIGIN = re.compile(r"https?://[^/?#@\s*,]+|\*|null")


class Pages:
    """Which origins may call; `origins` as browsers write them, `*` is any."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)
        self._any = b"*" in self._origins

    def admits(self, origin: bytes | None) -> bool:
        """Return whether a page of `origin` may call."""
        return origin is not None and (self._any or origin.lower() in self._origins)

    def answer(self, origin: bytes | None) -> list[Line]:
        """Return the headers of an answer to a request of `origin`."""
        lines = [] if self._any else [(b"vary", b"Origin")]
        if self.admits(origin):
            shown = b"*" if self._any else origin or b""
            lines += [(b"access-control-allow-origin", shown), (b"access-control-expose-headers", EXPOSED)]
        return lines

    def preflight(self, headers: Mapping[bytes, bytes], methods: Iterable[str]) -> list[Line] | None:
        """Return what the answer to a preflight says beside `answer`, or None where `headers` are not one's.

        What it asks to send is what it may: nothing that a page can send is more than its key allows.
        """
        if b"access-control-request-method" not in headers or not self.admits(headers.get(b"origin")):
            return None
        lines = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
        ]
        wanted = headers.get(b"access-control-request-headers", b"")
        if len(wanted) <= _LONGEST_LIST and _TOKENS.fullmatch(wanted):
            lines.append((b"access-control-allow-headers", wanted))
        if headers.get(b"access-control-request-private-network") == b"true":
            lines.append((b"access-control-allow-private-network", b"true"))
        return lines


def is_origin(text: str) -> bool:
    """Return whether `text` is an origin as a browser writes it (scheme, host, port), or `*`."""
    return _ORIGIN.fullmatch(text.rstrip("/")) is not None
