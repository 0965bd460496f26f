"""The JSON document of an import: what `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import JsonValue

from registry.api.documents import Document
from train.importing.draft import Note
from train.importing.run import Imported


class TakenKey(Document):
    """A key of the foreign config that ours says too; `ours` is its dotted key where there is one."""

    key: str
    value: JsonValue
    ours: str


class NotedKey(Document):
    """A key of the foreign config that does something else here, or nothing, and why."""

    key: str
    value: JsonValue
    reason: str

    @classmethod
    def of(cls, note: Note) -> Self:
        """Describe one note."""
        return cls(key=note.key, value=_plain(note.value), reason=note.reason)


class ImportReport(Document):
    """A foreign config in our words; `out` is null where it was only printed.

    `changed` and `lost` make the result another one; `unneeded` changes nothing that is learnt.
    """

    trainer: str
    config: dict[str, JsonValue]
    taken: list[TakenKey]
    changed: list[NotedKey]
    lost: list[NotedKey]
    unneeded: list[NotedKey]
    out: str | None

    @classmethod
    def of(cls, found: Imported, out: Path | None) -> Self:
        """Describe an import; `out` is where it was written."""
        by_weight = {
            weight: [NotedKey.of(one) for one in found.notes if one.weight == weight]
            for weight in ("changed", "lost", "same")
        }
        taken = [TakenKey(key=one.key, value=_plain(one.value), ours=one.ours) for one in found.taken]
        return cls(
            trainer=found.trainer,
            config=found.config,
            taken=taken,
            changed=by_weight["changed"],
            lost=by_weight["lost"],
            unneeded=by_weight["same"],
            out=None if out is None else str(out),
        )


def _plain(value: object) -> JsonValue:
    # YAML reads dates as dates; JSON has none.
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {str(key): _plain(one) for key, one in value.items()} if isinstance(value, dict) else str(value)
