"""Data sets under the root: folders named by the hash of their manifest.

Owns `datasets/<sha256>/`: the parts of a data set and `manifest.json`, which lists every file with size
and hash beside facts that the caller gives. Invariants: the folder's name is the SHA-256 of its manifest's
bytes, so the same parts with the same facts are one data set; it is published by one rename and never
changed. A version's lineage holds the hash of the file it was trained on, by which `find_part` leads here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import CorruptStore, Missing, NotFound, Occupied
from registry.storage import disk, files
from registry.validation.canonical import canonical_json, parse_document, sha256_hex

if TYPE_CHECKING:
    from pydantic import JsonValue

FOLDER, MANIFEST = "datasets", "manifest.json"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One stored data set; `digest` is hexadecimal and the name of its folder."""

    digest: str
    path: Path
    manifest: dict[str, JsonValue]


def publish_dataset(
    root: Path, parts: Mapping[str, Path], facts: Mapping[str, JsonValue]
) -> tuple[Dataset, bool]:
    """Copy `parts` (name → file) into the root; also return whether the data set is new there.

    Raises: StorageFailed.
    """
    staged = root / "staging" / uuid.uuid4().hex
    files.make_directory(staged)
    try:
        listed: list[JsonValue] = []
        for name, path in sorted(parts.items()):
            size, digest = files.copy_new(path.resolve(), staged / name)
            listed.append({"path": name, "size": size, "sha256": digest})
        manifest: dict[str, JsonValue] = {**facts, "files": listed}
        data = canonical_json(manifest)
        files.stage(staged / MANIFEST, data)
        digest = sha256_hex(data)
        created = _publish(staged, root / FOLDER / digest)
    finally:
        files.remove_tree(staged)
    return Dataset(digest, root / FOLDER / digest, manifest), created


def read_datasets(root: Path) -> Iterator[Dataset]:
    """Yield every data set of the root, by digest.

    Raises: CorruptStore: for a manifest that is not what its folder's name says; StorageFailed.
    """
    for name in disk.names(root / FOLDER):
        yield _read(root / FOLDER / name)


def find_part(root: Path, sha256: str) -> tuple[Dataset, str]:
    """Return the data set that holds a file with this hash (hex), and the file's name in it.

    Raises: NotFound; CorruptStore; StorageFailed.
    """
    for dataset in read_datasets(root):
        for file in _listed(dataset):
            if file.get("sha256") == sha256:
                return dataset, str(file["path"])
    fact = "is in no data set of this root"
    raise NotFound(f"sha256 {sha256[:12]}", fact, "store data with `wardrobe data split`")


def _publish(staged: Path, target: Path) -> bool:
    files.make_directory(target.parent)
    try:
        files.publish_directory(staged, target)
    except Occupied:
        return False
    return True


def _read(path: Path) -> Dataset:
    remedy = "restore it from a backup"
    try:
        data = disk.read(path / MANIFEST)
        manifest = parse_document(data)
    except (Missing, ValueError) as error:
        raise CorruptStore(str(path), "has no readable manifest", remedy) from error
    if sha256_hex(data) != path.name or not isinstance(manifest, dict):
        raise CorruptStore(str(path), "holds another manifest than its name says", remedy)
    return Dataset(path.name, path, manifest)


def _listed(dataset: Dataset) -> Iterator[Mapping[str, JsonValue]]:
    listed = dataset.manifest.get("files")
    for file in listed if isinstance(listed, list) else []:
        if isinstance(file, dict):
            yield file
