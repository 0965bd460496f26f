"""The operations that move files over HTTP: an upload that tells of its progress, and an export.

Invariants: an export appears whole or not at all, every file checked against the manifest; a server's word is
not trusted with a path of this machine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING

from registry.api import documents as doc
from registry.api import operations
from registry.changes.publish import PublishRequest
from registry.errors import Conflict, InvalidAdapter
from registry.records import FileEntry
from registry.validation.adapter import uploadable
from registry.validation.folder import open_regular
from registry.validation.peft import CONFIG_NAME, with_base

if TYPE_CHECKING:
    from registry.api.client import HttpClient
    from registry.api.operations import Progress


def upload(client: HttpClient, request: PublishRequest, advance: Progress) -> doc.PublishedDocument:
    """Upload a folder's files; `advance` is told of the bytes as they are read for sending."""
    path = operations.register.url(name=request.adapter)
    names, left_out, warnings = uploadable(request.folder, request.adapter)
    with ExitStack() as stack:
        parts = [
            ("files", (name, _Counted(stack.enter_context(_opened(file, request.adapter)), advance)))
            for name in names
            for file in [request.folder / name]
        ]
        if request.golden is not None:
            golden = stack.enter_context(_opened(request.golden, "golden prompts"))
            parts.append(("golden", ("golden.jsonl", _Counted(golden, advance))))
        response = client.exchange("POST", path, files=parts, data=_form_fields(request))
    found = client.read(operations.register, response)
    told = {"left_out": sorted({*found.left_out, *left_out}), "warnings": [*warnings, *found.warnings]}
    return found.model_copy(update=told)


def download(
    client: HttpClient, name: str, number: int, target: Path, base: str | None = None
) -> doc.ExportDocument:
    """Download a version's files into the new folder `target`.

    Its config calls the base `base`, else as the adapter's own did, else by its served name: the server's
    folders mean nothing here.

    Raises: Conflict: when `target` exists; InvalidAdapter: when a file arrives changed.
    """
    version = operations.show_version(client, name, number)
    if target.exists():
        raise Conflict(str(target), "exists already", "choose a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for file in version.files:
            _check_plain(file.path)
            _fetch(client, operations.export.url(name=name, number=number, file=file.path), file, scratch)
        named = base or version.base_named or operations.show_status(client).base.name
        config = scratch / CONFIG_NAME
        config.write_bytes(with_base(config.read_bytes(), named))
        scratch.chmod(0o755)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return doc.ExportDocument(
        adapter=name, version=number, digest=version.digest, path=str(target), base=named
    )


def _fetch(client: HttpClient, path: str, file: FileEntry, folder: Path) -> None:
    digest = sha256()
    with client.download(path) as chunks, (folder / file.path).open("xb") as writer:
        for chunk in chunks:
            digest.update(chunk)
            writer.write(chunk)
    if digest.hexdigest() != file.sha256:
        fact = f"arrived with sha256 {digest.hexdigest()}, not {file.sha256}"
        raise InvalidAdapter(file.path, fact, "export it again", reason="digest")


def _check_plain(name: str) -> None:
    # A server's word is not trusted with a path of this machine.
    if name in {"", ".", ".."} or "/" in name or "\\" in name or "\0" in name:
        fact = "is not a plain file name"
        raise InvalidAdapter(repr(name), fact, "do not trust this server", reason="path")


class _Counted:
    """A file that tells of the bytes that are read from it."""

    def __init__(self, file: IO[bytes], advance: Progress) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._advance(len(data))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


def _form_fields(request: PublishRequest) -> Mapping[str, str]:
    fields = {
        "alias": request.alias or "",
        "no_stable": "true" if request.no_stable else "",
        "note": request.note,
        "allow_duplicate": "true" if request.allow_duplicate else "",
        "require": ",".join(request.require),
    }
    return {name: value for name, value in fields.items() if value}


@contextmanager
def _opened(path: Path, subject: str) -> Iterator[IO[bytes]]:
    # As the local command opens it: what is not a regular file is told by name, and nothing waits on a pipe.
    with open_regular(path, subject)[0] as file:
        yield file
