"""A repair of one row: its texts mended where they stand, everything else as it was.

Owns which values of a row are texts: those of the columns that its form reads. Roles, ids and names stay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from train.dataset.checks.personal import hide
from train.dataset.checks.scan import inspect_turns
from train.dataset.forms import understand
from train.dataset.forms.cells import is_packed, unpacked
from train.dataset.records import CanonicalRow, Malformed
from train.dataset.repair.rules import RepairSettings
from train.dataset.sources import RawRow

_KEPT = frozenset({"role", "from", "type", "id", "tool_call_id", "call_id", "weight", "loss_weight", "train"})
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class RepairAction:
    """One thing that a repair did or saw: `action` is changed, dropped, listed or left.

    `of` is the row that stays instead.
    """

    row: int
    rule: str
    action: str
    fact: str = ""
    before: str = ""
    after: str = ""
    of: int = 0

    def renumbered(self, numbers: Sequence[int]) -> RepairAction:
        """Return the same change of the rows that `numbers` (from 0) has for these (from 1)."""
        return replace(self, row=numbers[self.row - 1], of=numbers[self.of - 1] if self.of else 0)


@dataclass(frozen=True, slots=True)
class Mended:
    """A row after its repair: its bytes, what it says (None: it goes, or cannot be read), what was done."""

    data: bytes
    sample: CanonicalRow | None
    changes: tuple[RepairAction, ...]


def mend_row(line: RawRow, settings: RepairSettings) -> Mended:
    """Return the row of `line` repaired."""
    changes: list[RepairAction] = []
    try:
        row, sample = _read(line.number, _parsed(line, settings, changes), settings, changes)
    except Malformed as fault:
        action = "dropped" if fault.rule in settings.rules else "left"
        fact = hide(str(fault))
        return Mended(
            line.data.replace(b"\n", b" "), None, (RepairAction(line.number, fault.rule, action, fact),)
        )
    if (reason := _hopeless(sample, settings)) is not None:
        return Mended(b"", None, (*changes, RepairAction(line.number, reason[0], "dropped", reason[1])))
    data = dumped(row) if changes or b"\n" in line.data else line.data
    return Mended(data, sample, tuple(changes))


def dumped(row: object) -> bytes:
    """Return a row as one line of JSON."""
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(row).encode()


def _parsed(line: RawRow, settings: RepairSettings, changes: list[RepairAction]) -> Any:
    try:
        return line.parse()
    except Malformed as fault:
        if fault.rule != "D-ENCODING" or "D-ENCODING" not in settings.rules or line.fault is not None:
            raise
        # What is no UTF-8 was written on a desktop of the West far more often than anywhere else.
        text = line.data.decode("cp1252", "replace")
        changes.append(RepairAction(line.number, "D-ENCODING", "changed", "read as Windows-1252"))
        return RawRow(line.number, text.encode(), line.size).parse()


def _read(
    number: int, row: Any, settings: RepairSettings, changes: list[RepairAction]
) -> tuple[dict[str, Any], CanonicalRow]:
    plan, _ = understand(row, settings.reading)
    columns = [settings.reading.columns.get(key, key) for key in plan.keys.values()]
    heads = {column if column in row else column.split(".")[0] for column in columns}
    after = dict(row)
    for head in heads & row.keys():
        after[head] = _mended(row[head], number, settings, changes)
    return after, understand(after, settings.reading)[1]


def _mended(value: Any, number: int, settings: RepairSettings, changes: list[RepairAction]) -> Any:
    if isinstance(value, str):
        if is_packed(value):
            found = _mended(unpacked(value), number, settings, changes)
            return value if found == unpacked(value) else json.dumps(found, ensure_ascii=False)
        after, rules = settings.mended(value)
        changes += (RepairAction(number, rule, "changed", "", *_shown(value, after)) for rule in rules)
        return after
    if isinstance(value, list):
        return [_mended(one, number, settings, changes) for one in value]
    if isinstance(value, dict):
        return {
            key: one if key in _KEPT else _mended(one, number, settings, changes)
            for key, one in value.items()
        }
    return value


def _hopeless(sample: CanonicalRow, settings: RepairSettings) -> tuple[str, str] | None:
    """Return the rule and the fact of a row that nothing can mend."""
    if "D-REPLACEMENT" in settings.rules and any("\ufffd" in text for text in sample.texts):
        return "D-REPLACEMENT", "characters were lost"
    if "D-EMPTY-INPUT" in settings.rules:
        return next((found for found in inspect_turns(sample.messages) if found[0] == "D-EMPTY-INPUT"), None)
    return None


def _shown(before: str, after: str) -> tuple[str, str]:
    """Return both texts from a little before the first difference on, shortened and masked."""
    # Masked as a whole first: a piece of a number may not look like one.
    before, after = hide(before), hide(after)
    pairs = enumerate(zip(before, after, strict=False))
    differs = next((index for index, (one, other) in pairs if one != other), min(len(before), len(after)))
    begin = max(0, differs - _SHOWN_CHARACTERS // 4)
    return _cut(before, begin), _cut(after, begin)


def _cut(text: str, begin: int) -> str:
    return json.dumps(text[begin : begin + _SHOWN_CHARACTERS])[1:-1]
