"""The salt of the prefix cache: nobody can tell by its timing what another group has asked (pure).

vLLM shares the KV blocks of equal beginnings, so that a prompt which was asked before answers sooner. The
salt goes into the hash of the first block: what two groups ask has no block in common. Invariant: a client
cannot choose another group's salt, for it has the root's key in it; its own salt divides its group's blocks
further.
"""

from __future__ import annotations

import hmac

import msgspec
from msgspec import Raw

CACHE_SALT = "cache_salt"
_DIGITS = 32
"""Of the salt: 128 bits in hex. vLLM takes 128 characters, none of `@ / \\` and NUL among them."""


class GroupSalt:
    """Salts the requests of one group under the root's `key`."""

    __slots__ = ("_group", "_key", "_plain")

    def __init__(self, key: bytes, group: str) -> None:
        self._key = key
        self._group = group.encode()
        self._plain = self._salt(b"")

    def season(self, fields: dict[str, Raw]) -> None:
        """Set the salt of a request; a client's own goes into it.

        A client's that is no text, or empty, stays: vLLM refuses it in its own words.
        """
        own = fields.get(CACHE_SALT)
        if own is None or bytes(own) == b"null":
            fields[CACHE_SALT] = self._plain
            return
        try:
            text = msgspec.json.decode(own, type=str)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if text:
            fields[CACHE_SALT] = self._salt(text.encode("utf-8", "surrogatepass"))

    def _salt(self, own: bytes) -> Raw:
        # A group's name holds no NUL, so the two cannot run into each other.
        digest = hmac.digest(self._key, self._group + b"\0" + own, "sha256").hex()[:_DIGITS]
        return Raw(f'"{digest}"'.encode())
