"""A foreign config on its way into ours: what is taken, what is left, and why.

Owns the bookkeeping that makes nothing vanish: whoever translates takes keys out of the foreign config;
every key that nobody took is named with a reason. Keys that are empty or false ask for nothing and are passed
over. Knows no trainer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.errors import UsageError

Convert = Callable[[Any], Any]
"""From a foreign value to ours.

Raises: Unusable: it has no counterpart, and why.
"""

_EMPTY: tuple[object, ...] = (None, False, "", [], {}, "none", "None", "no")


class Unusable(Exception):
    """A value without a counterpart; the text says why."""


@dataclass(frozen=True, slots=True)
class Left:
    """One key of the foreign config that has no counterpart, as written there, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a foreign key goes: our dotted key, and how its value changes."""

    key: str
    convert: Convert = lambda value: value


@dataclass(slots=True)
class Draft:
    """The foreign config `source` (of the file `subject`), and our config as far as it is made."""

    subject: str
    source: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def take(self, key: str, default: Any = None) -> Any:
        """Return the value of a foreign key, which then counts as translated."""
        value = self.source.pop(key, None)
        return default if value is None else value

    def set(self, key: str, value: Any) -> None:
        """Set our dotted key."""
        place = self.config
        *sections, last = key.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value

    def has(self, key: str) -> bool:
        """Tell whether our dotted key is set."""
        place: Any = self.config
        for part in key.split("."):
            if not isinstance(place, dict) or part not in place:
                return False
            place = place[part]
        return True

    def leave(self, key: str, value: Any, reason: str) -> None:
        """Name a foreign key that has no counterpart, unless it asks for nothing."""
        if not is_empty(value):
            self.left.append(Left(key, value, reason))

    def follow(self, rules: Mapping[str, Rule]) -> None:
        """Translate every key of `rules` that the source has."""
        for key, rule in rules.items():
            if key not in self.source:
                continue
            value = self.source.pop(key)
            if value is None or value == "":
                continue
            try:
                self.set(rule.key, rule.convert(value))
            except Unusable as reason:
                self.leave(key, value, str(reason))

    def finish(self, reasons: Mapping[str, str], unknown: str) -> None:
        """Name all that is left; `reasons` are by a key or, with a `*` at the end, by its beginning."""
        for key in sorted(self.source):
            self.leave(key, self.source[key], _reason(key, reasons) or unknown)
        self.source.clear()

    def refuse(self, key: str, value: Any, remedy: str) -> UsageError:
        """Return the error for what no config of ours can say."""
        return UsageError(self.subject, f"{key}: {value} cannot be imported", remedy, param=key)


def is_empty(value: Any) -> bool:
    """Tell whether a value asks for nothing; 0 is a number."""
    return any(value is empty or (type(value) is type(empty) and value == empty) for empty in _EMPTY)


def number(value: Any) -> float:
    """Read a number; YAML takes `2e-4` for text."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise Unusable("is not a number") from error


def whole(value: Any) -> int:
    """Read a whole number of at least 1."""
    found = number(value)
    if found != int(found) or found < 1:
        raise Unusable("is not a whole number of at least 1, which ours must be")
    return int(found)


def names(value: Any) -> list[str]:
    """Read names: a list, or text with commas."""
    found = value.split(",") if isinstance(value, str) else list(value)
    return [str(name).strip() for name in found if str(name).strip()]


def adapter_name(text: str, fallback: str) -> str:
    """Return a name that an adapter can have, made of `text` or else of `fallback`."""
    for candidate in (text, fallback, "imported"):
        last = re.sub(r"[^a-z0-9._-]+", "-", candidate.rstrip("/").rpartition("/")[2].lower())
        if found := last.strip("._-")[:63]:
            return found
    return "imported"


def _reason(key: str, reasons: Mapping[str, str]) -> str | None:
    if key in reasons:
        return reasons[key]
    return next(
        (why for name, why in reasons.items() if name.endswith("*") and key.startswith(name[:-1])), None
    )
