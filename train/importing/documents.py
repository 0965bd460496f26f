"""The JSON document of an import: what `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import JsonValue

from registry.documents import Document
from train.importing.run import Imported


class LeftKey(Document):
    """A key of the foreign config without a counterpart, and why."""

    key: str
    value: JsonValue
    reason: str


class ImportReport(Document):
    """A foreign config in our words; `out` is null where it was only printed."""

    trainer: str
    config: dict[str, JsonValue]
    left: list[LeftKey]
    out: str | None

    @classmethod
    def of(cls, found: Imported, out: Path | None) -> Self:
        """Describe an import; `out` is where it was written."""
        left = [LeftKey(key=one.key, value=_plain(one.value), reason=one.reason) for one in found.left]
        written = None if out is None else str(out)
        return cls(trainer=found.trainer, config=found.config, left=left, out=written)


def _plain(value: object) -> JsonValue:
    # YAML reads dates as dates; JSON has none.
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {str(key): _plain(one) for key, one in value.items()} if isinstance(value, dict) else str(value)
