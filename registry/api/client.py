"""The desk over HTTP: the admin API of a running server, called with httpx.

Owns the mapping between calls and routes, and between the server's errors and our error tree. Invariant:
the key is sent to the given URL only; redirects are not followed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from registry import errors
from registry.api import documents as doc
from registry.errors import Conflict, InvalidAdapter, UsageError, WardrobeError
from registry.names import check_adapter_name, check_alias_name
from registry.validation.adapter import uploadable
from registry.validation.folder import open_regular
from registry.validation.peft import CONFIG_NAME, with_base

if TYPE_CHECKING:
    from registry.api.desk import Progress, Registration

_Document = TypeVar("_Document", bound=BaseModel)

_PREFIX = "/admin/v1"
# Hashing a version of several GB on the server takes a while; connecting does not.
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)


class Client:
    """A desk on the server at `url` (`http://host:port`); use it as a context manager, or close it."""

    def __init__(
        self, url: str, *, key: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = _checked_url(url)
        self._http = httpx.Client(
            base_url=self._url, headers=_authorization(key), timeout=_TIMEOUT, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def list(self) -> doc.AdapterList:
        """Return every adapter in brief."""
        return self.ask(doc.AdapterList, "GET", "/adapters")

    def show(self, adapter: str) -> doc.AdapterDocument:
        """Return one adapter with its live versions."""
        return self.ask(doc.AdapterDocument, "GET", _path(adapter))

    def show_version(self, adapter: str, number: int) -> doc.VersionDetail:
        """Return one version with its files and attestations."""
        return self.ask(doc.VersionDetail, "GET", _path(adapter, "versions", number))

    def history(self, adapter: str) -> doc.HistoryDocument:
        """Return every alias move of one adapter."""
        return self.ask(doc.HistoryDocument, "GET", _path(adapter, "history"))

    def audit(self, since: float | None = None) -> doc.AuditList:
        """Return every change from `since` (UNIX seconds) on."""
        query = {} if since is None else {"since": since}
        return self.ask(doc.AuditList, "GET", "/audit", params=query)

    def register(self, registration: Registration, advance: Progress) -> doc.PublishedDocument:
        """Upload a folder's files; `advance` is told of the bytes as they are read for sending."""
        names, left_out, warnings = uploadable(registration.folder, check_adapter_name(registration.adapter))
        with ExitStack() as stack:
            parts = [
                ("files", (name, _Counted(stack.enter_context(_opened(path, registration.adapter)), advance)))
                for name in names
                for path in [registration.folder / name]
            ]
            if registration.golden is not None:
                golden = stack.enter_context(_opened(registration.golden, "golden prompts"))
                parts.append(("golden", ("golden.jsonl", _Counted(golden, advance))))
            path = _path(registration.adapter, "versions")
            found = self.ask(
                doc.PublishedDocument, "POST", path, files=parts, data=_form_fields(registration)
            )
        told = {"left_out": sorted({*found.left_out, *left_out}), "warnings": [*warnings, *found.warnings]}
        return found.model_copy(update=told)

    def verify(self, adapter: str | None = None, number: int | None = None) -> doc.VerifyReport:
        """Hash versions again; one that is not as published is quarantined."""
        body = doc.VerifyRequest(adapter=adapter, version=number)
        return self.ask(doc.VerifyReport, "POST", "/verify", body)

    def set_alias(self, adapter: str, alias: str, number: int, force: str = "") -> doc.MoveDocument:
        """Point an alias to a version; `force` is the reason for moving `stable` past what it lacks."""
        path = _path(adapter, "aliases", check_alias_name(alias))
        return self.ask(doc.MoveDocument, "PUT", path, doc.MoveRequest(version=number, force=force))

    def remove_alias(self, adapter: str, alias: str) -> doc.MoveDocument:
        """Remove an alias; its history stays."""
        return self.ask(doc.MoveDocument, "DELETE", _path(adapter, "aliases", check_alias_name(alias)))

    def promote(self, adapter: str, number: int, force: str = "") -> doc.MoveDocument:
        """Point `stable` to a version; `force` as in `set_alias`."""
        path = _path(adapter, "promote")
        return self.ask(doc.MoveDocument, "POST", path, doc.MoveRequest(version=number, force=force))

    def rollback(self, adapter: str) -> doc.MoveDocument:
        """Undo the last forward move of `stable`."""
        return self.ask(doc.MoveDocument, "POST", _path(adapter, "rollback"))

    def delete(self, adapter: str, number: int) -> doc.DeletedDocument:
        """Put a tombstone on a version."""
        return self.ask(doc.DeletedDocument, "DELETE", _path(adapter, "versions", number))

    def gc(self, *, apply: bool, now: bool = False) -> doc.GcDocument:
        """Collect what nothing uses, or say what would be collected; `now` frees the room at once."""
        return self.ask(doc.GcDocument, "POST", "/gc", doc.GcRequest(apply=apply, now=now))

    def export(self, adapter: str, number: int, target: Path, base: str | None = None) -> doc.ExportDocument:
        """Download a version's files into the new folder `target`, checked against the manifest.

        Its config calls the base `base`, else as the adapter's own did, else by its served name: the
        server's folders mean nothing here.

        Raises: Conflict: when `target` exists; InvalidAdapter: when a file arrives changed.
        """
        version = self.show_version(adapter, number)
        if target.exists():
            raise Conflict(str(target), "exists already", "choose a new folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            for file in version.files:
                _check_plain(file.path)
                self._download(_path(adapter, "versions", number, "files", file.path), file, scratch)
            named = base or version.base_named or self.status().base.name
            config = scratch / CONFIG_NAME
            config.write_bytes(with_base(config.read_bytes(), named))
            scratch.chmod(0o755)
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return doc.ExportDocument(
            adapter=adapter, version=number, digest=version.digest, path=str(target), base=named
        )

    def replicas(self) -> doc.ReplicaList:
        """Return every replica by its last heartbeat."""
        return self.ask(doc.ReplicaList, "GET", "/replicas")

    def status(self) -> doc.StatusDocument:
        """Return the whole at a glance."""
        return self.ask(doc.StatusDocument, "GET", "/status")

    def drain(self, *, draining: bool = True) -> doc.DrainDocument:
        """Let the answering replica refuse new work, or take it again."""
        return self.ask(doc.DrainDocument, "POST", "/drain", doc.DrainRequest(draining=draining))

    def ask(
        self, kind: type[_Document], method: str, path: str, body: BaseModel | None = None, **extra: Any
    ) -> _Document:
        """Send one request to `path` under the admin API and return its answer as a `kind`.

        Raises: WardrobeError: the server's refusal as our own error, or that it cannot be reached.
        """
        if body is not None:
            extra["json"] = body.model_dump(mode="json")
        with self._reaching():
            response = self._http.request(method, _PREFIX + path, **extra)
        if not response.is_success:
            raise self._refusal(response)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise self._foreign(response) from error

    def _download(self, path: str, file: doc.FileDocument, folder: Path) -> None:
        digest = sha256()
        with self._reaching(), self._http.stream("GET", _PREFIX + path) as response:
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            with (folder / file.path).open("xb") as writer:
                for chunk in response.iter_bytes():
                    digest.update(chunk)
                    writer.write(chunk)
        if digest.hexdigest() != file.sha256:
            fact = f"arrived with sha256 {digest.hexdigest()}, not {file.sha256}"
            raise InvalidAdapter(file.path, fact, "export it again", reason="digest")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            fact = "did not answer in time"
            raise WardrobeError(self._url, fact, "see whether the server is alive and try again") from error
        except httpx.TransportError as error:
            fact = f"cannot be reached ({error})"
            raise WardrobeError(self._url, fact, "start the server, or correct --url") from error

    def _refusal(self, response: httpx.Response) -> WardrobeError:
        try:
            body = doc.ErrorDocument.model_validate_json(response.content).error
        except ValidationError:
            return self._foreign(response)
        if response.status_code == 401:
            return errors.Denied(self._url, body.message, "give a key with --key or WARDROBE_KEY")
        return _rebuilt(body, response.status_code)

    def _foreign(self, response: httpx.Response) -> WardrobeError:
        fact = f"answered {response.status_code} in a form that no Wardrobe server sends"
        return WardrobeError(self._url, fact, "correct --url: it is the server's root, http://host:port")


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


def _path(adapter: str, *parts: str | int) -> str:
    return "/".join(
        ("/adapters", check_adapter_name(adapter), *(quote(str(part), safe="") for part in parts))
    )


def _check_plain(name: str) -> None:
    # A server's word is not trusted with a path of this machine.
    if name in {"", ".", ".."} or "/" in name or "\\" in name or "\0" in name:
        fact = "is not a plain file name"
        raise InvalidAdapter(repr(name), fact, "do not trust this server", reason="path")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an IPv6 address without its bracket, a port that is not a number
        valid = False
    if not valid:
        fact = f"{url!r} is not http://host:port or https://host:port"
        raise UsageError("--url", fact, "write for instance http://127.0.0.1:8000", param="url")
    return url.rstrip("/")


def _authorization(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    if not key.isascii() or not key.isprintable():
        raise UsageError("--key", "holds characters that no key has", "copy it again", param="key")
    return {"authorization": f"Bearer {key}"}


def _form_fields(registration: Registration) -> Mapping[str, str]:
    fields = {
        "alias": registration.alias or "",
        "no_stable": "true" if registration.no_stable else "",
        "note": registration.note,
        "allow_duplicate": "true" if registration.allow_duplicate else "",
        "require": ",".join(registration.require),
    }
    return {name: value for name, value in fields.items() if value}


@contextmanager
def _opened(path: Path, subject: str) -> Iterator[IO[bytes]]:
    # As the local command opens it: what is not a regular file is told by name, and nothing waits on a pipe.
    with open_regular(path, subject)[0] as file:
        yield file


def _rebuilt(body: doc.ErrorBody, status: int) -> WardrobeError:
    """Return the error that the server raised; its message is whole, so it becomes the fact."""
    kind = _BY_CODE.get(body.code or "")
    if kind is InvalidAdapter:
        return InvalidAdapter("", body.message, reason="", param=body.param)
    error = (kind or WardrobeError)("", body.message, param=body.param)
    error.http_status, error.type, error.code = status, body.type, body.code or error.code
    return error


def _tree(kind: type[WardrobeError]) -> Iterator[type[WardrobeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


# Only the tree of `registry.errors`: a code of the server's own tree becomes a plain WardrobeError.
_BY_CODE = {kind.code: kind for kind in _tree(WardrobeError) if kind.__module__ == errors.__name__}
