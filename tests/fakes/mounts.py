"""A root that is taken away and brought back, as by an unmount and a mount."""

from __future__ import annotations

from pathlib import Path

from registry.store import Registry


def away(registry: Registry) -> Path:
    """Take the root away, leave the bare mount point, and return where the root is now."""
    elsewhere = registry.root.rename(registry.root.with_name("elsewhere"))
    registry.root.mkdir()
    return elsewhere


def back(registry: Registry, elsewhere: Path) -> None:
    """Bring it back; the mount point must still be bare."""
    registry.root.rmdir()
    elsewhere.rename(registry.root)
