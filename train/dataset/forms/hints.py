"""What to do with a row that fits no form, or more than one.

Owns the guess which columns are the question and the answer, and the words of the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import chain

from train.dataset.records import Malformed

# Names that people give to what a model is asked and to what it answers, where no form has them.
_ASKED = (
    "prompt", "question", "instruction", "query", "problem", "input", "frage", "pregunta", "sentence",
    "article", "document", "dialogue", "source", "review", "text", "body", "ticket", "message", "request",
    "context", "passage", "title", "eingabe", "anfrage",
)  # fmt: skip
_ANSWERED = (
    "completion", "response", "answer", "output", "reply", "target", "solution", "antwort", "respuesta",
    "continuation", "gold", "label", "summary", "highlights", "intent", "sentiment", "category", "class",
    "translation", "generation", "assistant", "result", "ausgabe", "code",
)  # fmt: skip
_NEAREST = 0.75
_SHOWN_KEYS = 20
_NO_TEXTS = ("id", "type", "format", "template")
_NO_TEXT_STARTS = ("is_", "has_", "num_")


def keys_fault(keys: Sequence[str]) -> Malformed:
    """Return the fault of a row whose `keys` fit no form, with the mapping that may be meant."""
    more = "…" if len(keys) > _SHOWN_KEYS else ""
    fact = f"has the keys {sorted(keys)[:_SHOWN_KEYS]}{more}, which fit no form"
    asked, answered = guess(keys)
    if asked and answered:
        return Malformed(fact, "D-FORM", f"perhaps --columns prompt={asked},completion={answered}")
    if asked or answered:
        there, missing = ("a question", "answer") if asked else ("an answer", "question")
        return Malformed(
            f"{fact}: {asked or answered!r} looks like {there}, and there is no {missing}",
            "D-FORM",
            "map it: --columns prompt=COLUMN,completion=COLUMN",
        )
    return Malformed(fact, "D-FORM", "map its columns: --columns prompt=COLUMN,completion=COLUMN")


def ambiguous(ways: Sequence[str], mappings: Sequence[str]) -> Malformed:
    """Return the fault of a row that two forms fit, which say different things."""
    fact = f"fits {' and '.join(ways[:3])}, which say different things"
    return Malformed(fact, "D-FORM", f"choose with --columns {' or '.join(mappings[:3])}")


def guess(keys: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the keys that may be the question and the answer, None where none looks like it."""
    asked = _nearest(keys, _ASKED)
    return asked, _nearest([key for key in keys if key != asked], _ANSWERED)


def _nearest(keys: Sequence[str], names: Sequence[str]) -> str | None:
    lowered = {
        low: key
        for key in keys
        if not (low := key.lower()).endswith(_NO_TEXTS) and not low.startswith(_NO_TEXT_STARTS)
    }
    exact = (lowered[name] for name in names if name in lowered)
    inside = (key for name in names for low, key in lowered.items() if len(name) > 4 and name in low)
    near = (lowered[found[0]] for name in names if (found := get_close_matches(name, lowered, 1, _NEAREST)))
    return next(chain(exact, inside, near), None)
