"""From a version to the data it was trained on, down to the row.

Owns the reading of a lineage's data hashes; `registry.entries.datasets` finds them in the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from registry.api.documents import Document
from registry.entries.datasets import find_part
from registry.errors import NotFound
from registry.names import parse_model
from train.dataset.split import source_row

if TYPE_CHECKING:
    from registry.store import Registry


class TraceDocument(Document):
    """One data file of a version: what it was used for, its hash, and where it came from.

    The others are null where the root stores no data set with that hash, or no row was asked for.
    """

    use: str
    sha256: str
    dataset: str | None
    part: str | None
    source: str | None
    source_row: int | None


def trace_version(registry: Registry, name: str, row: int | None) -> list[TraceDocument]:
    """Return the data files in the lineage of the version `name` (`support@3`).

    Raises: UsageError: a name that is none; NotFound: no such version, or one
    without a lineage.
    """
    version = registry.resolve(parse_model(name))
    found = registry.attestations(version.adapter, version.number, "lineage")
    if not found:
        raise NotFound(f"{version.adapter}@{version.number}", "has no lineage", "it was not trained here")
    data = found[-1].body.get("data")
    hashes = dict(_hashes(data)) if isinstance(data, dict) else {}
    return [_trace(registry, use, sha256, row) for use, sha256 in hashes.items()]


def _hashes(data: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for use, source in data.items():
        # A held-out share is not a file: its rows lie in the files of the others.
        if isinstance(source, dict) and isinstance(source.get("sha256"), str) and "share" not in source:
            yield use, source["sha256"]


def _trace(registry: Registry, use: str, sha256: str, row: int | None) -> TraceDocument:
    try:
        dataset, part = find_part(registry.root, sha256)
    except NotFound:
        return TraceDocument(use=use, sha256=sha256, dataset=None, part=None, source=None, source_row=None)
    source = dataset.manifest.get("source")
    numbers = dataset.path / f"{part.removesuffix('.jsonl')}.rows.txt"
    origin = None if row is None else source_row(numbers, row)
    return TraceDocument(
        use=use,
        sha256=sha256,
        dataset=dataset.digest,
        part=part,
        source=str(source["name"]) if isinstance(source, dict) else None,
        source_row=origin,
    )
