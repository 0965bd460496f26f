"""What `wardrobe register` does: one folder, or many in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry.cli import output
from registry.errors import UsageError, WardrobeError
from registry.home import at_home

if TYPE_CHECKING:
    from registry.api import documents as doc
    from registry.api.batch import Registered
    from registry.changes.publish import PublishRequest
    from registry.cli.session import Session


def pairs(targets: Sequence[str], above: Path | None) -> list[tuple[str, Path]]:
    """Return the adapters and folders that `NAME DIR`, `NAME=DIR …` or `--all DIR` mean.

    Raises: UsageError.
    """
    from registry.validation.folder import adapters_in

    if above is not None:
        if targets:
            raise UsageError("--all", "takes no other folders", "give --all DIR alone", param="all")
        return adapters_in(above)
    if len(targets) == 2 and "=" not in targets[0]:
        return [(targets[0], at_home(targets[1]))]
    odd = next((one for one in targets if "=" not in one), None)
    if odd is not None or not targets:
        fact = "names no folder" if odd is not None else "is missing"
        raise UsageError(odd or "NAME DIR", fact, "write NAME DIR, NAME=DIR NAME=DIR …, or --all DIR")
    parted = (one.partition("=") for one in targets)
    return [(name, at_home(folder)) for name, _, folder in parted]


def register_one(session: Session, wanted: PublishRequest) -> None:
    """Register one folder and print its version. Raises: WardrobeError."""
    from registry.api import operations

    # Only what is sent can be counted; publishing beside the files shows that it goes on.
    total = None if session.url is None else _size_bytes(wanted.folder)
    with output.progress(f"register {wanted.adapter}", total, unit_bytes=total is not None) as advance:
        document = operations.register(session.client(), wanted, advance)
    for text in _warnings(document):
        output.print_warning(text)
    if session.as_json:
        output.print_json(document)
        return
    known = "" if document.created else "  exists already"
    output.print_line(f"{document.adapter}@{document.version}  {document.digest}{known}")


def register_many(session: Session, wanted: Sequence[PublishRequest]) -> None:
    """Register several folders and print what became of each. Raises: WardrobeError: one was refused."""
    from registry.api.batch import register_all

    client = session.client()
    with output.progress("register", len(wanted)) as advance:
        found = register_all(client, wanted, lambda _: advance(1))
    for text, names in _told(found).items():
        output.print_warning(f"{output.in_short(names)}: {text}")
    if session.as_json:
        output.print_json([one.document for one in found])
    else:
        output.print_table(("folder", "version", "result", "why"), [_row(one) for one in found])
    refused = [one.error for one in found if one.error is not None]
    if refused:
        fact = f"{len(refused)} of {len(found)} were not registered"
        subject = ", ".join(dict.fromkeys(one.request.adapter for one in found if one.error))
        raise WardrobeError(subject, fact, "mend what the table says and run it again")


def _row(one: Registered) -> tuple[str, str, str, str]:
    folder = str(one.request.folder)
    if one.published is None:
        return folder, one.request.adapter, "REFUSED", str(one.error)
    name = f"{one.published.adapter}@{one.published.version}"
    return folder, name, "new" if one.published.created else "exists already", ""


def _told(found: Sequence[Registered]) -> dict[str, list[str]]:
    """Return each warning with the versions that it is about: hundreds of adapters share theirs."""
    told: dict[str, list[str]] = {}
    for document in (one.published for one in found if one.published is not None):
        for text in _warnings(document):
            told.setdefault(text, []).append(f"{document.adapter}@{document.version}")
    return told


def _warnings(document: doc.PublishedDocument) -> list[str]:
    if not document.left_out:
        return document.warnings
    return [f"left out, not part of an adapter: {output.in_short(document.left_out)}", *document.warnings]


def _size_bytes(folder: Path) -> int:
    from registry.validation.adapter import ALLOWED

    return sum(path.stat().st_size for name in ALLOWED if (path := folder / name).is_file())
