"""Exporting: a version as a plain PEFT folder, which PEFT and vLLM load.

Invariant: what is written was hashed before, and calls the base by a name that leads somewhere.
"""

from __future__ import annotations

from pathlib import Path

from registry.errors import Conflict, InvalidAdapter, Occupied
from registry.records import Version
from registry.validation.intake.base_names import name_for_export
from registry.views.catalogue import Catalogue


def export(catalogue: Catalogue, version: Version, target: Path, base: str | None) -> str:
    """Copy a version's files into the new folder `target`; return what its config calls the base there.

    Raises: InvalidAdapter: they are not as published; Conflict: `target` exists; StorageFailed.
    """
    problem = catalogue.versions.problem(version)
    if problem is not None:
        raise InvalidAdapter(version.name, problem, "choose another version", reason="digest")
    ours = catalogue.root.base
    named = base or name_for_export(version.base_named, ours.name, ours.path)
    try:
        catalogue.versions.export(version, target.absolute(), named)
    except Occupied as error:
        raise Conflict(str(target), "exists already", "choose a folder that does not exist") from error
    return named
