"""Modules of others that have the name of one of our packages: found by file, told, never run in silence.

Users keep a `train.py` or a folder `registry/` beside their data. For `python -m …` and `python -c …` Python
looks into the working directory first, and into every folder of PYTHONPATH before it looks for what is
installed. What we start ourselves gets `-P` and PYTHONSAFEPATH, so the first is no danger. The second is the
user's own, so it stays as it is: the commands that need the package refuse to run, by file, and no others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from registry.errors import UsageError

PACKAGES = ("registry", "serve", "train", "deploy", "loadtests")
"""The import names of this distribution."""

SAFE_PATH: Mapping[str, str] = {"PYTHONSAFEPATH": "1"}
"""For the environment of a child: neither it nor a Python below it imports from its working directory."""

HOME = Path(__file__).resolve().parents[1]
"""Where our packages lie side by side, installed or in a checkout."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A module of somebody else at `place` (a file or a folder) that has our package's `name`."""

    name: str
    place: Path


def python(*arguments: str) -> list[str]:
    """Return the command line of this Python with `arguments`, its working directory not on its path."""
    return [sys.executable, "-P", *arguments]


def require_own(name: str) -> None:
    """Pass where `name` is none of our packages, or leads to it.

    Raises: UsageError: another module would be imported in its place, by file.
    """
    place = _place(_find(name)) if name in PACKAGES else None
    if place is not None and HOME not in place.parents:
        fact = f"{place} is imported in place of Wardrobe's own"
        raise UsageError(f"package {name}", fact, f"take {place.parent} off PYTHONPATH, or rename it")


def beside(folder: Path) -> list[Foreign]:
    """Return what `python -m …` in `folder` would import in place of our packages."""
    if folder.resolve() == HOME:
        return []
    found = ((name, _place(_find_in(name, folder))) for name in PACKAGES)
    return [Foreign(name, place) for name, place in found if place is not None]


def warnings(folder: Path) -> list[str]:
    """Return what a user is told at a start in `folder`: modules of our names, there or found before ours."""
    told = [
        f"{one.place} has the name of Wardrobe's package {one.name}: it is not used here, but `python -m` in "
        "this folder finds it first; say `python -P -m`, or rename it"
        for one in beside(folder)
    ]
    for name in PACKAGES:
        try:
            require_own(name)
        except UsageError as error:
            told.append(str(error))
    return told


def _find(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except (ImportError, ValueError):
        return None


def _find_in(name: str, folder: Path) -> ModuleSpec | None:
    spec = PathFinder.find_spec(name, [str(folder)])
    if spec is not None and spec.loader is None and _is_found_by_path(name):
        return None  # a folder without `__init__.py` gives way to a package that is found later
    return spec


def _is_found_by_path(name: str) -> bool:
    """Return whether our package is found on the path; an editable install has a finder behind it."""
    spec = PathFinder.find_spec(name)
    return spec is not None and spec.loader is not None


def _place(spec: ModuleSpec | None) -> Path | None:
    if spec is None:
        return None
    if spec.origin is not None:
        path = Path(spec.origin)
        return (path.parent if path.name.startswith("__init__.") else path).resolve()
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]).resolve() if folders else None
