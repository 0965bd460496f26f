"""All pages of the reference, and the folder that holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.reference import commands, disk, http, metrics, settings, templates

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"

PAGES: dict[str, Callable[[], str]] = {
    "cli.md": commands.render,
    "http.md": http.render,
    "settings.md": settings.render_settings,
    "training.md": settings.render_training,
    "templates.md": templates.render,
    "metrics.md": metrics.render,
    "on-disk.md": disk.render,
}


def write_pages(folder: Path = FOLDER) -> list[str]:
    """Write every page and return the names of those that changed."""
    return write_changed(folder, PAGES)


def write_changed(folder: Path, made: Mapping[str, Callable[[], str]]) -> list[str]:
    """Write into `folder` what each function makes and return the names of the files that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, make in made.items():
        text, path = make(), folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(name)
    return changed
