"""Findings that a person has looked at and accepts: `D-SECRET`, `D-SECRET:66`, `D-SECRET:test.jsonl:66`.

Owns which findings can be accepted. What training cannot read, or would refuse, cannot: accepting it would
only move the error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from registry.errors import UsageError
from train.dataset.checks.findings import CATALOGUE, Severity

_ERRORS = frozenset(
    {
        "D-MEDIA", "D-RATED", "D-TOOL", "D-RESULT", "D-LEAK", "D-PREF-CONFLICT", "D-KTO-CONFLICT", "D-SECRET",
        "D-PRIVATE-KEY",
    }
)  # fmt: skip
# They decide how a row is read, which knows no row's number.
_WHOLE = frozenset({"D-MEDIA", "D-RATED", "D-TOOL", "D-RESULT"})


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What was accepted: whole kinds, and single rows as (kind, file, row); an empty file is any."""

    written: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    rows: frozenset[tuple[str, str, int]] = field(default=frozenset())

    def covers(self, rule: str, file: str, row: int) -> bool:
        """Tell whether the finding `rule` in `row` of the file named `file` was accepted."""
        if rule in self.kinds:
            return True
        name = file.rpartition("/")[2]
        return bool(self.rows) and any((rule, one, row) in self.rows for one in ("", name))


NOTHING = Acceptance()


def checked_acceptance(written: Iterable[str]) -> Acceptance:
    """Return what `written` accepts.

    Raises: ValueError: an id that the catalogue does not have or that cannot be accepted, a row that is none.
    """
    found = tuple(dict.fromkeys(one.strip() for one in written))
    kinds: set[str] = set()
    rows: set[tuple[str, str, int]] = set()
    for one in found:
        rule, _, place = one.partition(":")
        _check_kind(rule, one=bool(place))
        file, _, row = place.rpartition(":")
        if not place:
            kinds.add(rule)
        elif row.isdecimal() and int(row) > 0:
            rows.add((rule, file, int(row)))
        else:
            raise ValueError(f"{one!r} names no row: write {rule}, {rule}:ROW or {rule}:FILE:ROW")
    return Acceptance(found, frozenset(kinds), frozenset(rows))


def parse_acceptance(written: Iterable[str]) -> Acceptance:
    """Return what `--accept D-SECRET,D-EMAIL:7` accepts.

    Raises: UsageError.
    """
    try:
        return checked_acceptance(one for part in written for one in part.split(",") if one.strip())
    except ValueError as error:
        raise UsageError("--accept", str(error), "see train/dataset/README.md", param="accept") from error


def _check_kind(rule: str, *, one: bool) -> None:
    if rule not in CATALOGUE:
        near = get_close_matches(rule.upper(), CATALOGUE, n=1, cutoff=0.5)
        raise ValueError(f"there is no finding {rule!r}{f': did you mean {near[0]!r}?' if near else ''}")
    if CATALOGUE[rule].severity is Severity.ERROR and rule not in _ERRORS:
        raise ValueError(f"{rule} cannot be accepted, for training would refuse it: {CATALOGUE[rule].remedy}")
    if one and rule in _WHOLE:
        raise ValueError(f"{rule} is accepted as a whole: it decides how rows are read")
