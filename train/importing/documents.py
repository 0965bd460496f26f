"""The JSON document of an import: what `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import JsonValue

from registry.api.documents import Document
from train.importing.draft import Note, Taken
from train.importing.run import Imported


class ImportReport(Document):
    """A foreign config in our words; `out` is null where it was only printed.

    `changed` and `lost` make the result another one; `unneeded` changes nothing that is learnt.
    """

    trainer: str
    config: dict[str, JsonValue]
    taken: list[Taken]
    changed: list[Note]
    lost: list[Note]
    unneeded: list[Note]
    out: str | None

    @classmethod
    def of(cls, found: Imported, out: Path | None) -> Self:
        """Describe an import; `out` is where it was written."""
        by_weight = {
            weight: [one for one in found.notes if one.weight == weight]
            for weight in ("changed", "lost", "same")
        }
        return cls(
            trainer=found.trainer,
            config=found.config,
            taken=list(found.taken),
            changed=by_weight["changed"],
            lost=by_weight["lost"],
            unneeded=by_weight["same"],
            out=None if out is None else str(out),
        )
