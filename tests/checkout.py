"""The files of the checkout, by git: nothing that a command or a person left beside them."""

from __future__ import annotations

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("registry", "serve", "train", "deploy", "loadtests")
REGISTRY_ROOMS = ("settings", "validation", "storage", "entries", "views", "changes", "tuning", "api")
"""The rooms of the registry that its own README describes; `cli` and `report` only show."""


def tracked_files() -> list[Path]:
    """Return every tracked file that is there."""
    return _listed("--cached")


def new_files() -> list[Path]:
    """Return the files of our packages and tests that are not tracked yet, and not ignored either."""
    return _listed("--others", "--exclude-standard", "--", *PACKAGES, "tests")


def _listed(*options: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z", *options], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return [REPOSITORY / name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
