"""The response id that tells by itself which version answered, and cannot be forged.

`<16 hex>.<version>.<arm letter>.<unit digest>.<20 hex of MAC>`, for instance
`9f31c04be2a7d415.support@3.s.0c6e1f0a55d9b3e2.5d0e…`. vLLM puts a prefix (`chatcmpl-`, `resp_`) before
it and sometimes an index behind. The key lies in the root, so every replica verifies every id. In an open
rollout the second half of the first word is the rollout's tag, so that an old answer's feedback is none of
a later rollout's; a request to which no version writes an answer has `NO_ANSWER` there. `support@0` is the
base model as an arm of support's rollout, `base@0` the base itself.
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
    r"(?P<text>[0-9a-f]{8}(?P<tag>[0-9a-f]{8})\.(?P<version>[a-z0-9][a-z0-9._-]{0,62}@[0-9]{1,9})"
    r"\.(?P<arm>[schxb])\.(?P<unit>[0-9a-f]{16}))"
    r"(?:\.(?P<mac>[0-9a-f]{20}))?(?:[-_][0-9]+)*"
)

TAG_DIGITS = 8
"""How much of a rollout's id is its tag."""

NO_ANSWER = "0" * TAG_DIGITS
"""The tag of a request to which no version writes an answer: tokens, or an echo of the prompt."""

BASE_SUBJECT = "base@0.b"
"""What an answer of the base model carries in place of a version and an arm."""


@dataclass(frozen=True, slots=True)
class AnsweredBy:
    """What a verified id says: `version` is `support@3` (`base@0` for the base), `arm` its letter.

    `tag` is the rollout's where one was open, and random where none was.
    """

    version: str
    arm: str
    unit: str
    tag: str = ""

    @property
    def adapter(self) -> str:
        """Return the name before the `@`."""
        return self.version.rpartition("@")[0]


class IdIssuer:
    """Issues and verifies ids under one key."""

    def __init__(self, key: bytes) -> None:
        self.rekey(key)
        # It only tells two ids apart; that nobody can guess one is the work of the MAC.
        self._random = random.Random(os.urandom(32))  # noqa: S311

    def rekey(self, key: bytes) -> None:
        """Issue and verify under another key from now on."""
        self._keyed = blake2b(key=key, digest_size=_MAC_BYTES, person=_PERSON)
        self._key = key

    def derive(self, word: bytes) -> bytes:
        """Return a key of 32 bytes for another purpose; it tells nothing of this one."""
        return blake2b(word, key=self._key, digest_size=32).digest()

    def issue(self, subject: str, unit: str, tag: str = "") -> str:
        """Return a fresh id for `subject` (`support@3.s`) and a unit's digest (16 hex digits).

        `tag` is the open rollout's, `TAG_DIGITS` hex digits, or nothing.
        """
        if tag:
            text = f"{self._random.getrandbits(32):08x}{tag}.{subject}.{unit}"
        else:
            text = f"{self._random.getrandbits(64):016x}.{subject}.{unit}"
        mac = self._keyed.copy()
        mac.update(text.encode())
        return f"{text}.{mac.hexdigest()}"

    def verify(self, response_id: str) -> AnsweredBy | None:
        """Return what `response_id` says, or None when it is not one that a holder of the key issued."""
        found = _ID.fullmatch(response_id)
        if (
            found is None
            or found["mac"] is None
            or not hmac.compare_digest(self._mac(found["text"]), found["mac"])
        ):
            return None
        return AnsweredBy(found["version"], found["arm"], found["unit"], found["tag"])

    def _mac(self, text: str) -> str:
        mac = self._keyed.copy()
        mac.update(text.encode())
        return mac.hexdigest()


def without_mac(response_id: bytes) -> bytes:
    """Return what an id tells, as a claim that nobody can prove: for the header of what is not an answer."""
    return response_id.rpartition(b".")[0]


def read_claim(response_id: str) -> AnsweredBy | None:
    """Return what an id says without asking whether it is ours, None when it has not our form."""
    found = _ID.fullmatch(response_id)
    return found and AnsweredBy(found["version"], found["arm"], found["unit"], found["tag"])
