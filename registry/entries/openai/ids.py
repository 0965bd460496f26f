"""Ids of files, uploads, batches and jobs: a prefix of the noun, when it was made, and what nobody guesses.

Invariant: ids of one prefix sort by the time at which they were made, so a list can go on behind one that
was deleted meanwhile.
"""

from __future__ import annotations

import hashlib
import secrets
import string

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase  # in the order of their bytes
_TIME_CHARACTERS, _OTHER_CHARACTERS = 8, 16
ID_CHARACTERS = _TIME_CHARACTERS + _OTHER_CHARACTERS
"""Letters and digits behind the prefix."""
ID_PATTERN = rf"[0-9A-Za-z]{{{ID_CHARACTERS}}}"
"""Of what stands behind the prefix."""


def new_id(prefix: str, at: float) -> str:
    """Return a new id of something that is made `at` (UNIX seconds)."""
    return f"{prefix}{_digits(round(at * 1000), _TIME_CHARACTERS)}{_random()}"


def derived_id(prefix: str, at: float, *parts: str) -> str:
    """Return the id that `at` (UNIX seconds) and `parts` always lead to.

    Who was killed and comes again makes the same thing under it.
    """
    number = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:12])
    return f"{prefix}{_digits(round(at * 1000), _TIME_CHARACTERS)}{_digits(number, _OTHER_CHARACTERS)}"


def made_at(identifier: str) -> float:
    """Return when the thing with this id was made, in UNIX seconds."""
    number = 0
    for letter in identifier[-ID_CHARACTERS:][:_TIME_CHARACTERS]:
        number = number * len(_ALPHABET) + _ALPHABET.index(letter)
    return number / 1000


def _random() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_OTHER_CHARACTERS))


def _digits(number: int, width: int) -> str:
    found = []
    for _ in range(width):
        number, index = divmod(number, len(_ALPHABET))
        found.append(_ALPHABET[index])
    return "".join(reversed(found))
