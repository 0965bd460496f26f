"""The response id that tells by itself which version answered, and cannot be forged.

`<16 hex>.<version>.<arm letter>.<unit digest>.<20 hex of MAC>`, for instance
`9f31c04be2a7d415.support@3.s.0c6e1f0a55d9b3e2.5d0e…`. vLLM puts a prefix (`chatcmpl-`, `resp_`) before
it and sometimes an index behind. The key lies in the root, so every replica verifies every id.
"""

from __future__ import annotations

import hmac
import os
import random
import re
from dataclasses import dataclass
from hashlib import blake2b

_PERSON = b"wardrobe-id-v1"
_MAC_BYTES = 10
_ID = re.compile(
    r"(?:[A-Za-z]+[-_])?"
    r"(?P<text>[0-9a-f]{16}\.(?P<version>[a-z0-9][a-z0-9._-]{0,62}@[0-9]{1,9})"
    r"\.(?P<arm>[schxb])\.(?P<unit>[0-9a-f]{16}))"
    r"\.(?P<mac>[0-9a-f]{20})(?:[-_][0-9]+)*"
)

BASE_SUBJECT = "base@0.b"
"""What an answer of the base model carries in place of a version and an arm."""


@dataclass(frozen=True, slots=True)
class AnsweredBy:
    """What a verified id says: `version` is `support@3` (`base@0` for the base), `arm` its letter."""

    version: str
    arm: str
    unit: str


class IdIssuer:
    """Issues and verifies ids under one key."""

    def __init__(self, key: bytes) -> None:
        self._keyed = blake2b(key=key, digest_size=_MAC_BYTES, person=_PERSON)
        # It only tells two ids apart; that nobody can guess one is the work of the MAC.
        self._random = random.Random(os.urandom(32))  # noqa: S311

    def issue(self, subject: str, unit: str) -> str:
        """Return a fresh id for `subject` (`support@3.s`) and a unit's digest (16 hex digits)."""
        text = f"{self._random.getrandbits(64):016x}.{subject}.{unit}"
        mac = self._keyed.copy()
        mac.update(text.encode())
        return f"{text}.{mac.hexdigest()}"

    def verify(self, response_id: str) -> AnsweredBy | None:
        """Return what `response_id` says, or None when it is not one that a holder of the key issued."""
        found = _ID.fullmatch(response_id)
        if found is None or not hmac.compare_digest(self._mac(found["text"]), found["mac"]):
            return None
        return AnsweredBy(found["version"], found["arm"], found["unit"])

    def _mac(self, text: str) -> str:
        mac = self._keyed.copy()
        mac.update(text.encode())
        return mac.hexdigest()
