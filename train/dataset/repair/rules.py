"""What a repair does to one text, by the finding that it mends.

Owns the rules, which are findings of `data check`, and their order. Invariant: a text that was mended is not
changed by mending it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from registry.errors import UsageError
from train.dataset.checks.content import CONTROL, INVISIBLE, SURROGATE
from train.dataset.checks.personal import masked
from train.dataset.forms import PLAIN, RowMapping

MASKED = (
    "D-SECRET", "D-PRIVATE-KEY", "D-EMAIL", "D-PHONE", "D-IP", "D-CARD", "D-IBAN", "D-SSN",
)  # fmt: skip
"""Masked by a word in brackets."""
CHANGED = ("D-BOM", "D-ENCODING", "D-SURROGATE", "D-MOJIBAKE", "D-CONTROL", "D-INVISIBLE", "D-SPECIAL")
"""Mended in place."""
DROPPED = ("D-REPLACEMENT", "D-EMPTY", "D-EMPTY-INPUT", "D-DUPLICATE", "D-NEAR")
"""The row goes."""
LISTED = ("D-CONFLICT", "D-PREF-CONFLICT", "D-KTO-CONFLICT")
"""Named in the report; which row is right, only a person knows."""
RULES = (*CHANGED, *MASKED, *DROPPED)
DEFAULT = RULES
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """Which rules are applied, how rows are read, and the special tokens of the base."""

    rules: frozenset[str] = frozenset(DEFAULT)
    reading: RowMapping = PLAIN
    special_tokens: tuple[str, ...] = ()
    overwrite: bool = False
    _masks: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_masks", self.rules & set(MASKED))

    def mended(self, text: str) -> tuple[str, tuple[str, ...]]:
        """Return `text` after every rule, and the rules that changed it."""
        used: dict[str, None] = {}
        for _ in range(_ROUNDS):
            before = text
            for rule, mend in _MENDS.items():
                if rule in self.rules and (after := mend(text)) != text:
                    text, used[rule] = after, None
            if "D-SPECIAL" in self.rules and any(token in text for token in self.special_tokens):
                used["D-SPECIAL"] = None
                for token in self.special_tokens:
                    text = text.replace(token, "")
            text, found = masked(text, self._masks)
            used.update(dict.fromkeys(sorted(found)))
            if text == before:
                break
        return text, tuple(used)


def parse_rules(written: Iterable[str]) -> frozenset[str]:
    """Return the rules that `--rules D-BOM,D-DUPLICATE` names; all of them where it names none.

    Raises: UsageError: one that repairs nothing.
    """
    found = [one.strip().upper() for part in written for one in part.split(",") if one.strip()]
    for rule in found:
        if rule not in RULES:
            fact = f"{rule} is nothing that can be repaired"
            raise UsageError("--rules", fact, f"name some of {', '.join(RULES)}", param="rules")
    return frozenset(found or DEFAULT)


def _decoded(text: str) -> str:
    from ftfy import fix_encoding

    return text if text.isascii() else fix_encoding(text)


_MENDS: dict[str, Callable[[str], str]] = {
    "D-SURROGATE": lambda text: SURROGATE.sub("", text),
    "D-MOJIBAKE": _decoded,
    "D-CONTROL": lambda text: CONTROL.sub("", text),
    "D-INVISIBLE": lambda text: INVISIBLE.sub("", text),
}
