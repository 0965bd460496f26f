"""Where rows lie: a path, and which part of it.

Owns the address of data as people write it. A path may be a file, a folder, a pattern (`data/*.parquet`) or
a data set of the hub (`hf://org/name@revision`).
"""

from __future__ import annotations

from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

PACKED_SUFFIXES = frozenset({".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz"})
_HUB = "hf:"


@dataclass(frozen=True, slots=True)
class DataPath:
    """A path, and the part (`split`) of a data set that has several."""

    path: Path
    split: str | None = None

    def __str__(self) -> str:
        """Return it as an error names it."""
        shown = shown_path(self.path)
        return shown if self.split is None else f"{shown} ({self.split})"


Where = Path | DataPath


def place_of(where: Where) -> DataPath:
    """Return `where` as a place; of a path alone, with no part named."""
    return where if isinstance(where, DataPath) else DataPath(where)


def name_of(where: Where) -> str:
    """Return the last part of the path, with the part of the data set behind it: `rows.csv`, `chat/train`."""
    place = place_of(where)
    return place.path.name if place.split is None else f"{place.path.name}/{place.split}"


def label_of(place: DataPath) -> str:
    """Return the short name that a place has in reports where nobody gave it one."""
    path = place.path.parent if has_magic(place.path.name) else place.path
    if path.suffix.lower() in PACKED_SUFFIXES:
        path = path.with_suffix("")
    stem = path.stem or "data"
    return stem if place.split is None else f"{stem}-{place.split.replace('/', '-')}"


def hub_name(path: Path) -> str | None:
    """Return `org/name@revision` of `hf://org/name@revision`; None where `path` lies on a disk.

    `Path` has made one slash of two.
    """
    if path.parts[:1] != (_HUB,):
        return None
    return "/".join(path.parts[1:]).removeprefix("datasets/")


def absolute(folder: Path, path: Path) -> Path:
    """Return `path` counted from `folder`; a data set of the hub stays what it is."""
    return path if hub_name(path) is not None else folder / path


def shown_path(path: Path) -> str:
    """Return the path as somebody would write it."""
    name = hub_name(path)
    return str(path) if name is None else f"hf://{name}"
