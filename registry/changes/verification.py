"""Verification: whether a version's files are still what was published.

Owns what follows when they are not: the version goes into quarantine and is served no more.
"""

from __future__ import annotations

from registry.errors import CorruptStore, InvalidAdapter, Quarantined, StorageFailed, WardrobeError
from registry.records import VerifyResult, Version
from registry.storage import anchor
from registry.storage.reserve import urgently
from registry.views import history
from registry.views.catalogue import Catalogue


def quarantine(catalogue: Catalogue, adapter: str, number: int, reason: str, *, who: str) -> None:
    """Forbid that a live version is served; the first reason stays.

    Raises: NotFound.
    """
    catalogue.require(adapter)
    if number not in catalogue.live(adapter):
        catalogue.require_version(adapter, number)
    catalogue.quarantine.put(adapter, number, reason, who)
    catalogue.mark(adapter)


def verify(catalogue: Catalogue, adapter: str | None, number: int | None) -> list[VerifyResult]:
    """Hash live versions again and quarantine those that are not as published.

    What cannot be looked at, or not be quarantined, is told with its result, and the others go on.

    Raises: NotFound.
    """
    names = None if adapter is None else [catalogue.require(adapter)]
    if adapter is not None and number is not None and number not in catalogue.live(adapter):
        catalogue.require_version(adapter, number)
    live, problems = catalogue.each(catalogue.live, names)
    found = [VerifyResult(name, ok=False, problem=problem) for name, problem in problems.items()]
    for name, numbers in live.items():
        wanted = numbers if number is None else [number]
        found.extend(_verify(catalogue, name, each) for each in wanted)
    return found


def verify_version(catalogue: Catalogue, version: Version, *, content: bool = True) -> None:
    """Look at a version again before it is loaded; without `content` its files are not hashed.

    A file that this process has hashed before is not read again unless it was changed since.

    Raises: Quarantined: it was quarantined before; InvalidAdapter: its files are not as published (reason
    `digest`), and it is in quarantine now; RootAway: nothing can be said of a root that is not there.
    """
    order = catalogue.quarantine.read(version.adapter, version.number)
    if order is not None:
        fact = f"is quarantined ({order.reason})"
        raise Quarantined(version.name, fact, "choose another version", param="version")
    problem = catalogue.versions.problem(version, content=content, afresh=False)
    if problem is not None:
        problem = _confirmed(catalogue, version, content=content)
    if problem is not None:
        # On a root that cannot be written it is refused all the same, and at every try.
        _put(catalogue, version.adapter, version.number, problem)
        remedy = "register the adapter again from where it was trained"
        raise InvalidAdapter(version.name, problem, remedy, reason="digest")


def _verify(catalogue: Catalogue, adapter: str, number: int) -> VerifyResult:
    name = f"{adapter}@{number}"
    try:
        version = catalogue.versions.read(adapter, number)
        problem = catalogue.versions.problem(version)
        if problem is not None:
            problem = _confirmed(catalogue, version, content=True)
        problem = problem or _contradiction(catalogue, version)
    except CorruptStore as error:
        problem = str(error)
    except StorageFailed as error:
        return VerifyResult(name, ok=False, problem=str(error))  # not read, which proves nothing
    if problem is not None:
        problem += _put(catalogue, adapter, number, problem)
    return VerifyResult(name, problem is None, problem)


def _confirmed(catalogue: Catalogue, version: Version, *, content: bool) -> str | None:
    """Look once more, with the root known to be there: one that goes away for a moment damages no version.

    Raises: RootAway.
    """
    anchor.confirm(catalogue.root.path)
    problem = catalogue.versions.problem(version, content=content)
    anchor.confirm(catalogue.root.path)
    return problem


def _put(catalogue: Catalogue, adapter: str, number: int, problem: str) -> str:
    """Put a damaged version into quarantine; return what to add to the problem where that is impossible."""
    try:
        urgently(catalogue.root.path, lambda: quarantine(catalogue, adapter, number, problem, who="verify"))
    except WardrobeError as error:
        return f" (and it cannot be put into quarantine: {error})"
    return ""


def _contradiction(catalogue: Catalogue, version: Version) -> str | None:
    """Tell a version whose folder was replaced as a whole: the alias logs remember its digest."""
    for move in history.history(catalogue, version.adapter):
        if move.version == version.number and move.digest not in {None, version.digest}:
            return f"{move.alias} was pointed to {move.digest}, the folder holds {version.digest}"
    return None
