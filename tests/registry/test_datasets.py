"""A data set is named by its manifest, found by its parts, and whole or not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from registry.entries.datasets import find_part, publish_dataset, read_datasets
from registry.errors import CorruptStore, NotFound
from registry.storage import files
from registry.store import Registry


class Killed(BaseException):
    """The process dies at this step."""


def hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    return path


def test_the_folder_is_named_by_the_hash_of_its_manifest_and_the_same_content_is_one(
    registry: Registry, part: Path
) -> None:
    dataset, created = publish_dataset(registry.root, {"train.jsonl": part}, {"seed": 1})
    again, created_again = publish_dataset(registry.root, {"train.jsonl": part}, {"seed": 1})
    assert (created, created_again) == (True, False)
    assert dataset.path == registry.root / "datasets" / dataset.digest
    assert again.digest == dataset.digest == hashed(dataset.path / "manifest.json")
    assert (dataset.path / "train.jsonl").read_bytes() == part.read_bytes()
    other, _ = publish_dataset(registry.root, {"train.jsonl": part}, {"seed": 2})
    assert {one.digest for one in read_datasets(registry.root)} == {dataset.digest, other.digest}


def test_a_part_is_found_by_its_hash(registry: Registry, part: Path) -> None:
    with pytest.raises(NotFound, match="is in no data set"):
        find_part(registry.root, hashed(part))
    dataset, _ = publish_dataset(registry.root, {"train.jsonl": part}, {})
    assert find_part(registry.root, hashed(part)) == (dataset, "train.jsonl")


def test_a_manifest_that_was_changed_is_reported(registry: Registry, part: Path) -> None:
    dataset, _ = publish_dataset(registry.root, {"train.jsonl": part}, {})
    path = dataset.path / "manifest.json"
    path.chmod(0o644)
    path.write_text("{}")
    with pytest.raises(CorruptStore, match="another manifest than its name says"):
        find_part(registry.root, "0" * 64)
    path.write_text("{")
    with pytest.raises(CorruptStore, match="no readable manifest"):
        list(read_datasets(registry.root))


def test_whatever_step_the_writer_dies_at_a_data_set_is_whole_or_not_there(
    registry: Registry, part: Path
) -> None:
    steps = 0
    while True:
        died = _publish_until(registry.root, part, steps)
        found = list(read_datasets(registry.root))
        assert all((one.path / "train.jsonl").read_bytes() == part.read_bytes() for one in found)
        if not died:
            break
        steps += 1
    assert steps > 5
    assert len(found) == 1


def _publish_until(root: Path, part: Path, last: int) -> bool:
    """Publish, and die at the step after `last` others; return whether it came so far."""
    left = last

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    try:
        with files.watch_steps(die):
            publish_dataset(root, {"train.jsonl": part}, {})
    except Killed:
        return True
    return False
