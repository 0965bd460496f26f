"""Whether a row says that its answer is bad, and KTO's rows.

Owns the names and the values of ratings. Invariant: no row that says of its own answer that it is bad
becomes a row of supervised training. `label` and `kto_tag` make it a rated row; any other rating that is
bad is an error, for nobody can tell whether it was meant as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from train.dataset.forms.chat import shown
from train.dataset.records import Malformed

RULE = "D-RATED"
# Rated by a person or a client: a good one makes the row a rated one too.
_VOTES = frozenset(
    {
        "rating", "liked", "thumbs_up", "thumbs", "thumb", "upvoted", "feedback", "desirable",
        "is_desirable", "vote",
    }
)  # fmt: skip
# Marked: a good one is a row like any other.
_MARKS = frozenset(
    {
        "correct", "is_correct", "valid", "is_valid", "verified", "passed", "accepted", "approved", "good",
        "is_good", "preferred", "helpful", "is_helpful", "score", "reward", "quality", "acceptable",
        "success", "weight",
    }
)  # fmt: skip
_FAULTS = frozenset(
    {
        "thumbs_down", "disliked", "downvoted", "undesirable", "bad", "is_bad", "wrong", "is_wrong",
        "incorrect", "is_incorrect", "is_rejected", "toxic", "is_toxic", "harmful", "is_harmful",
        "hallucinated",
    }
)  # fmt: skip
_NAMES = _VOTES | _MARKS | _FAULTS
_GOOD = frozenset(
    {
        "true", "1", "yes", "good", "up", "thumbs_up", "thumbsup", "like", "liked", "upvote", "upvoted",
        "desirable", "chosen", "accepted", "accept", "approved", "correct", "right", "helpful", "positive",
        "👍",
    }
)  # fmt: skip
_BAD = frozenset(
    {
        "false", "0", "no", "bad", "down", "thumbs_down", "thumbsdown", "dislike", "disliked", "downvote",
        "downvoted", "undesirable", "rejected", "reject", "incorrect", "wrong", "unhelpful", "negative",
        "poor", "👎",
    }
)  # fmt: skip
_LONGEST_WORD = 20


def verdict(value: object) -> bool | None:
    """Return whether a rating says good or bad; None where it says neither (a class, a number of stars)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return True if value == 1 else False if value in (0, -1) else None
    if not isinstance(value, str) or len(value) > _LONGEST_WORD:
        return None
    plain = _plain(value)
    return True if plain in _GOOD else False if plain in _BAD or value.strip() == "-1" else None


def label_of(value: object, answer: str) -> bool | None:
    """Return the rating that a `label` is; None where it is a class: the answer itself, or no rating."""
    is_answer = isinstance(value, str) and value.strip().lower() == answer.strip().lower()
    return None if is_answer else verdict(value)


def vote_of(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, bool] | None:
    """Return the key among `keys` that a person rated the answer by, and the rating; None without one."""
    for key in keys:
        found = _vote(_plain(key), row[key]) if _plain(key) in _VOTES else None
        if found is not None:
            return key, found
    return None


def refuse_bad(row: Mapping[str, Any], keys: Sequence[str], inside: str = "") -> None:
    """Refuse a row of which one of `keys` says that its answer is bad; `inside` is the key that holds it.

    Raises: Malformed: `D-RATED`.
    """
    for key in keys:
        value = row[key]
        if isinstance(value, Mapping) and not inside:
            refuse_bad(value, list(value), f"{key}.")
        elif _is_bad(_plain(key), value):
            fact = f"says {inside}{key}: {shown(value)}, and training would learn its answer as a good one"
            remedy = (
                f"rate it (--columns label={inside}{key}), ignore it (--accept {RULE}), or remove the row"
            )
            raise Malformed(fact, RULE, remedy)


def unread(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the finding that some of `keys` rate the answer in a way that says neither good nor bad."""
    named = (key for key in keys if _plain(key) in _NAMES and row[key] is not None)
    found = [key for key in named if _vote(_plain(key), row[key]) is None]
    facts = ", ".join(f"{key}: {shown(row[key])}" for key in found if not isinstance(row[key], Mapping))
    return (("D-SCORE", f"has {facts}"),) if facts else ()


def _is_bad(name: str, value: object) -> bool:
    return verdict(value) is (name in _FAULTS) and verdict(value) is not None and name in _NAMES


def _vote(name: str, value: object) -> bool | None:
    """Return what `verdict` says, but None of a 1 among `rating`, which may be one star of five."""
    found = verdict(value)
    is_star = found is True and name == "rating" and value is not True and not _is_word(value)
    return None if is_star else found


def _is_word(value: object) -> bool:
    return isinstance(value, str) and not value.strip().isdecimal()


@lru_cache(maxsize=4096)
def _plain(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_")
