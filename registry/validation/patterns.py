"""PEFT's per-module patterns (`rank_pattern`, `alpha_pattern`), matched as PEFT and vLLM match them.

A key is a regular expression that must match a suffix of the module's name beginning at a dot; the first
match wins. Owns that rule, and the refusal of expressions that could run for ever: adapters come from
outside, and vLLM would evaluate them too. Invariant: sorting the keys, which the canonical config does,
never changes a match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value", int, float)

_PLAIN = re.compile(r"[A-Za-z0-9_.]+")
# Backtracking is polynomial in the number of repeats and of groups, exponential when a group repeats.
_MAX_REPEATS = 2
_MAX_GROUPS = 2
_MAX_EXPRESSIONS = 64
_MAX_CHARS = 256
_REPEAT = re.compile(r"(?<![\\(])[*+?{]")
_GROUP = re.compile(r"(?<!\\)\(")
_REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{?]")
_BACK_REFERENCE = re.compile(r"\\[1-9]|\(\?(?!:)")


class PatternTable(Generic[Value]):
    """A pattern table, compiled.

    Raises (when made): ValueError: for a key that is not an expression, or one that is not safe to run.
    """

    def __init__(self, patterns: Mapping[str, Value]) -> None:
        self._plain: dict[str, tuple[int, Value]] = {}
        self._expressions: list[tuple[int, re.Pattern[str], Value]] = []
        for place, (key, value) in enumerate(patterns.items()):
            if _PLAIN.fullmatch(key):
                self._plain[key] = (place, value)
            else:
                self._expressions.append((place, _compile(key), value))
        if len(self._expressions) > _MAX_EXPRESSIONS:
            raise ValueError(f"holds {len(self._expressions)} expressions; at most {_MAX_EXPRESSIONS}")

    def find(self, module: str, default: Value) -> Value:
        """Return the value of the first pattern that matches `module`, else `default`."""
        parts = module.split(".")
        suffixes = (".".join(parts[start:]) for start in range(len(parts)))
        found = [self._plain[suffix] for suffix in suffixes if suffix in self._plain]
        for place, expression, value in self._expressions:
            if expression.match(module):
                found.append((place, value))
                break
        return min(found, key=lambda item: item[0])[1] if found else default


def depends_on_order(patterns: Mapping[str, float], modules: Sequence[str]) -> str | None:
    """Return a module whose value changes when the keys are sorted, or None."""
    keys = list(patterns)
    if keys == sorted(keys):
        return None
    given, canonical = PatternTable(patterns), PatternTable(dict(sorted(patterns.items())))
    none = next(iter(patterns.values()))
    return next((name for name in modules if given.find(name, none) != canonical.find(name, none)), None)


def _compile(key: str) -> re.Pattern[str]:
    too_many = len(_REPEAT.findall(key)) > _MAX_REPEATS or len(_GROUP.findall(key)) > _MAX_GROUPS
    if len(key) > _MAX_CHARS or too_many or _REPEATED_GROUP.search(key) or _BACK_REFERENCE.search(key):
        raise ValueError(f"holds an expression that is too costly to evaluate: {key[:80]!r}")
    try:
        return re.compile(rf"(.*\.)?({key})$")
    except re.error as error:
        raise ValueError(f"holds {key[:80]!r}, which is not an expression: {error}") from error
