"""What a key, or its group, may do: scopes, limits, and which adapters exist for it (pure).

Owns the words and what follows from them; `groups` and `keyring` own where they are kept. Invariant: what is
not granted by both a key and its group is not granted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase

from registry.errors import UsageError

DEFAULT_GROUP = "default"
"""The group of keys that name none, and of everybody while no key was ever made."""

LARGEST_LIMIT = 10**15
LARGEST_WEIGHT = 1_000.0
SMALLEST_WEIGHT = 0.001
MAX_PATTERNS = 1_000
_PATTERN = re.compile(r"[a-z0-9*][a-z0-9._*-]{0,62}")


class Scope(StrEnum):
    """What a key may do.

    `tune` is for files, fine-tuning jobs, batches and the models that come of them; `read` sees everything
    and changes nothing, inference included.
    """

    INFER = "infer"
    TUNE = "tune"
    FEEDBACK = "feedback"
    READ = "read"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


def implied(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Return what a key with `scopes` may do: `infer` includes `feedback`, `admin` everything."""
    named = frozenset(scopes)
    if Scope.ADMIN in named:
        return ALL_SCOPES
    return named | {Scope.FEEDBACK} if Scope.INFER in named else named


def effective(scopes: Iterable[Scope], group: Group) -> frozenset[Scope]:
    """Return what a key with `scopes` may do as one of `group`; who may change things may look at them."""
    shared = implied(scopes) & group.scopes
    return shared | {Scope.READ} if Scope.ADMIN in shared else shared


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """How much a group, or one key, may use; None = no limit.

    The three per minute count any 60 seconds. `concurrency` is how many requests are in flight at once,
    `tokens_per_day` a budget of input and output together that begins anew at midnight UTC, and
    `longest_prompt` the most tokens of one prompt.
    """

    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    concurrency: int | None = None
    tokens_per_day: int | None = None
    longest_prompt: int | None = None

    def named(self) -> dict[str, int]:
        """Return the limits that there are, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}


LIMITS = tuple(field.name for field in fields(GroupLimits))
"""The names of all limits."""

NO_LIMITS = GroupLimits()


@dataclass(frozen=True, slots=True)
class Group:
    """Whom a key belongs to, and what it may do; as made here, everything.

    `adapters` are patterns, in which `*` stands for any text; `base` says whether the base model itself may
    be asked. `weight` is its part of the engine while others wait too. `evidence` says whether its requests
    and ratings count in rollouts, `priority` whether its clients may set the field of that name.
    """

    name: str
    adapters: tuple[str, ...] = ("*",)
    base: bool = True
    scopes: frozenset[Scope] = ALL_SCOPES
    limits: GroupLimits = NO_LIMITS
    weight: float = 1.0
    evidence: bool = True
    priority: bool = False

    @property
    def unrestricted(self) -> bool:
        """Return whether every adapter, and the base model, exists for it."""
        return self.base and "*" in self.adapters

    def sees(self, adapter: str) -> bool:
        """Return whether the adapter exists for it."""
        return any(fnmatchcase(adapter, pattern) for pattern in self.adapters)


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return patterns of adapters' names without doubles, in their order.

    Raises: UsageError.
    """
    found = tuple(dict.fromkeys(patterns))
    for pattern in found:
        if _PATTERN.fullmatch(pattern) is None:
            fact = f"{pattern[:80]!r} is not a pattern: 1 to 63 of a-z 0-9 . _ - and * are allowed"
            raise UsageError("adapters", fact, "write a name, or for instance legal-*", param="adapters")
    if len(found) > MAX_PATTERNS:
        fact = f"are {len(found)} patterns, {MAX_PATTERNS} are allowed"
        raise UsageError("adapters", fact, "cover several names by one with *", param="adapters")
    return found


def check_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Return scopes by their names.

    Raises: UsageError: there is no such scope.
    """
    found = set()
    for name in names:
        try:
            found.add(Scope(name))
        except ValueError as error:
            remedy = f"name some of {', '.join(Scope)}"
            raise UsageError("scopes", f"{name[:80]!r} is none", remedy, param="scopes") from error
    return frozenset(found)


def check_limits(values: Mapping[str, int | None]) -> GroupLimits:
    """Return the limits with these names and values, None = no limit.

    Raises: UsageError: there is no such limit, or its value is none.
    """
    for name, value in values.items():
        if name not in LIMITS:
            raise UsageError(name[:80], "is not a limit", f"name some of {', '.join(LIMITS)}", param="limits")
        if value is not None and (isinstance(value, bool) or not 1 <= value <= LARGEST_LIMIT):
            fact = f"{value} is not a limit: 1 to {LARGEST_LIMIT} are allowed"
            raise UsageError(name, fact, "leave it out for no limit", param=name)
    return GroupLimits(**values)


def check_weight(weight: float) -> float:
    """Return a group's weight.

    Raises: UsageError.
    """
    if not math.isfinite(weight) or not SMALLEST_WEIGHT <= weight <= LARGEST_WEIGHT:
        fact = f"{weight:g} is not a weight: {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g} are allowed"
        raise UsageError("weight", fact, "1 is what a group has by itself", param="weight")
    return float(weight)
