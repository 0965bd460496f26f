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


_FORMS = "write NAME DIR, NAME=DIR NAME=DIR …, or --all DIR"


def pairs(targets: Sequence[str], above: Path | None) -> list[tuple[str, Path]]:
    """Return the adapters and folders that `NAME DIR`, `NAME=DIR …` or `--all DIR` mean.

    Raises: UsageError.
    """
    from registry.validation.folder import adapters_in

    if above is not None:
        if targets:
            raise UsageError("--all", "takes no other folders", "give --all DIR alone", param="all")
        return adapters_in(above)
    if len(targets) == 2 and "=" not in targets[0] and not _is_pair(targets[1]):
        return [_pair(targets[0], targets[1], targets[0])]
    if not targets:
        raise UsageError("NAME DIR", "is missing", _FORMS)
    if odd := [one for one in targets if "=" not in one]:
        if len(odd) == len(targets):
            fact = "names no folder" if len(targets) == 1 else "is neither NAME DIR nor NAME=DIR …"
            raise UsageError(" ".join(targets), fact, _FORMS)
        raise UsageError(" ".join(targets), f"mixes NAME DIR with NAME=DIR: {odd[0]} has no =", _FORMS)
    return [_pair(name, folder, one) for one in targets for name, _, folder in [one.partition("=")]]


def _is_pair(target: str) -> bool:
    """Return whether NAME=DIR is meant, not a folder with = in its path."""
    name, equals, _ = target.partition("=")
    return bool(equals) and "/" not in name and not at_home(target).exists()


def _pair(name: str, folder: str, written: str) -> tuple[str, Path]:
    if not name:
        raise UsageError(repr(written), "names no adapter", _FORMS)
    if not folder:
        raise UsageError(repr(written), "names no folder: it is empty, as an unset variable is", _FORMS)
    return name, at_home(folder)


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
        output.print_table(("folder", "adapter", "result", "why"), [_row(one) for one in found])
        output.print_line(_sum(found))
    refused = [one.error for one in found if one.error is not None]
    if refused:
        raise _refusal(refused, [one.request.adapter for one in found if one.error], len(found))


def _row(one: Registered) -> tuple[str, str, str, str]:
    folder = str(one.request.folder)
    if one.error is not None:
        return folder, one.request.adapter, "REFUSED", _why(one.error, one.request)
    assert one.published is not None
    name = f"{one.published.adapter}@{one.published.version}"
    return folder, name, "new" if one.published.created else "exists already", ""


def _why(error: WardrobeError, request: PublishRequest) -> str:
    """Return what an error says beside the name and the folder, which its row has."""
    name, folder = request.adapter, str(request.folder)
    text = str(error)
    for known in (f"{name}: ", f"{name!r}: ", f"{folder}: ", f"{folder} "):
        text = text.removeprefix(known)
    return text.replace(f"{folder}/", "")


def _sum(found: Sequence[Registered]) -> str:
    published = [one.published for one in found if one.published is not None]
    new = sum(one.created for one in published)
    counts = {"new": new, "there already": len(published) - new, "refused": len(found) - len(published)}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _refusal(refused: Sequence[WardrobeError], names: Sequence[str], total: int) -> WardrobeError:
    """Return the error of the whole call, with the type and the code that all refusals share."""
    verb = "was" if len(refused) == 1 else "were"
    count = f"{len(refused)} of {total} folders {verb}" if total > 1 else "was"
    subject = output.in_short(list(dict.fromkeys(names)))
    failed = WardrobeError(subject, f"{count} not registered", "mend what is said of each and run it again")
    types, codes = {one.type for one in refused}, {one.code for one in refused}
    if len(types) == 1:
        failed.type = types.pop()
    if len(codes) == 1:
        failed.code = codes.pop()
    return failed


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
