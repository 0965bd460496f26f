"""Foreign configs in a folder, imported as from there; and what was noted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.config import load_config
from train.importing.draft import Weight
from train.importing.run import Imported, import_config


def bring(folder: Path, text: str, name: str = "theirs.yaml", **options: Any) -> Imported:
    """Import `text` as a file of `folder`; ours would lie in `folder` too."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return import_config(path, out=folder, **options)


def written(folder: Path, found: Imported) -> Any:
    """Return the config as `train run` would read it."""
    path = folder / "ours.yaml"
    path.write_text(found.text())
    return load_config(path)


def changed(found: Imported) -> dict[str, str]:
    """Return the reasons of what is another one, by key."""
    return _of(found, Weight.CHANGED)


def lost(found: Imported) -> dict[str, str]:
    """Return the reasons of what the result lacks, by key."""
    return _of(found, Weight.LOST)


def same(found: Imported) -> dict[str, str]:
    """Return the reasons of what nothing depends on, by key."""
    return _of(found, Weight.SAME)


def noted(found: Imported) -> list[tuple[str, str]]:
    """Return every note's key and reason."""
    return [(one.key, one.reason) for one in found.notes]


def _of(found: Imported, weight: Weight) -> dict[str, str]:
    return {one.key: one.reason for one in found.notes if one.weight is weight}
