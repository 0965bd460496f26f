"""API keys: `wardrobe_<id>_<secret>`, kept as SHA-256 only, one file per key under `keys/api/`.

Owns making, listing, revoking and checking. Invariants: a token is never on disk and is handed out once;
a key file is never removed, so revoking the last key does not open the server again, and `layout.json` says
that a key was made, so losing the files does not either; a key file that cannot be read lets nobody in.
"""

from __future__ import annotations

import errno
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from registry.errors import CorruptStore, DiskFull, Missing, NotFound, StorageFailed, UsageError
from registry.names import check_adapter_name
from registry.storage import anchor, disk, files
from registry.storage.entry import Entry, encode
from registry.storage.reserve import urgently

if TYPE_CHECKING:
    from pydantic import JsonValue

PREFIX = "wardrobe"
STALE_SECONDS = 30.0
SECRET_BYTES = 32
_ID_BYTES = 6
_ID = re.compile(r"[0-9a-f]{12}")
# A header of any length may arrive; nothing longer than this is hashed.
_MAX_TOKEN_CHARACTERS = 200
# A directory's mtime has the resolution of the kernel's tick, and over NFS another machine's clock: a
# directory that changed so recently is read again although its mtime is the one seen before.
_UNSETTLED_NS = 2_000_000_000
# What a file says that this process may not read, and not that the disk has a bad moment.
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP})


class Scope(StrEnum):
    """What a key may do; `admin` includes the others.

    `tune` is for files, fine-tuning jobs, batches and the models that come of them.
    """

    INFER = "infer"
    TUNE = "tune"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret; times are UNIX seconds, None = never.

    `problem` says why its file cannot be read: then nobody gets in with it.
    """

    id: str
    scopes: frozenset[Scope]
    note: str
    who: str
    created: float
    expires: float | None = None
    revoked: float | None = None
    problem: str = ""

    def allows(self, scope: Scope) -> bool:
        """Return whether the key's scopes include `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def state(self, now: float) -> str:
        """Return `active`, `expired`, `revoked` or `unreadable`."""
        if self.problem:
            return "unreadable"
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


@dataclass(frozen=True, slots=True)
class _Entry:
    info: KeyInfo
    token_sha256: bytes


class KeyStore:
    """The keys of one root; every call reads or writes the disk."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._folder = keys_folder(root)
        self._clock = clock

    def create(
        self, scopes: Iterable[Scope], *, who: str, note: str = "", lifetime_seconds: float | None = None
    ) -> tuple[KeyInfo, str]:
        """Make a key and return it with its token, of which no other copy exists.

        Raises: UsageError: without a scope, or with a lifetime that is not positive.
        """
        granted = frozenset(scopes)
        if not granted:
            raise UsageError("scope", "none is given", f"name one of {', '.join(Scope)}", param="scope")
        if lifetime_seconds is not None and not lifetime_seconds > 0:
            fact = f"{lifetime_seconds:g} seconds is not a lifetime"
            raise UsageError("expires", fact, "give a positive one, such as 90d", param="expires")
        now = self._clock()
        expires = None if lifetime_seconds is None else now + lifetime_seconds
        info = KeyInfo(secrets.token_hex(_ID_BYTES), granted, note, who, now, expires)
        token = f"{PREFIX}_{info.id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        files.make_directory(self._folder, mode=0o700)
        # First what closes the door, so that no crash leaves a key that a lost file would undo.
        _note_made(self._root)
        self._write(_Entry(info, _hash(token)))
        return info, token

    def list(self) -> list[KeyInfo]:
        """Return every key that was ever made, oldest first; one that cannot be read has a `problem`.

        Raises: StorageFailed: the keys cannot be listed.
        """
        infos = [_read_or_problem(path).info for path in _key_files(self._folder)]
        return sorted(infos, key=lambda info: (info.created, info.id))

    def revoke(self, key_id: str) -> KeyInfo:
        """Take a key out of use for good, on a full disk too; a whole token is accepted as well as its id.

        Revoking twice changes nothing. Raises: NotFound; StorageFailed.
        """
        key_id = key_id.split("_")[1] if key_id.startswith(f"{PREFIX}_") else key_id
        path = self._path(key_id)
        if _ID.fullmatch(key_id) is None or not disk.exists(path):
            raise NotFound(f"key {key_id!r}", "does not exist", "see `wardrobe keys list`", param="id")
        entry = _read_or_problem(path)
        if entry.info.revoked is not None:
            return entry.info
        revoked = _Entry(replace(entry.info, problem="", revoked=self._clock()), entry.token_sha256)
        try:
            urgently(self._root, lambda: self._write(revoked))
        except DiskFull:
            # One that is read half done, or left so by a crash, lets nobody in: as it shall be.
            files.rewrite(path, _encode(revoked))
        return revoked.info

    def in_use(self) -> bool:
        """Return whether any key was ever made: from then on every request needs one.

        Raises: StorageFailed: that cannot be told.
        """
        return bool(_key_files(self._folder)) or _were_made(self._root)

    def _path(self, key_id: str) -> Path:
        return self._folder / f"{key_id}.json"

    def _write(self, entry: _Entry) -> None:
        files.replace(self._path(entry.info.id), _encode(entry), mode=files.SECRET_MODE)


class KeyRing:
    """The keys in memory, for the hot path: `check` touches no disk and takes no lock.

    The owner calls `refresh` at least once a second; any thread may, one at a time. With `required` every
    request needs a key, also where none can be found. `renewed` is the time of `monotonic` at which the keys
    were last known to be those on the disk; after `stale_seconds` without news they are not to be trusted.
    """

    def __init__(
        self,
        root: Path,
        *,
        required: bool = False,
        stale_seconds: float = STALE_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.renewed = -math.inf
        self._root = root
        self._folder = keys_folder(root)
        self._clock = clock
        self._monotonic = monotonic
        self._entries: Mapping[str, _Entry] = MappingProxyType({})
        self._stamp: tuple[int, int] | None = None
        self._settled = False
        self._shut: dict[Path, int] = {}
        self._stale_seconds = stale_seconds
        self._lent = secrets.token_bytes(SECRET_BYTES)
        self._enabled = required
        try:
            self.refresh()
        except StorageFailed:
            self._enabled = True  # whether keys are needed cannot be told: nobody is let in

    @property
    def enabled(self) -> bool:
        """Return whether requests need a key; once True it stays so in this process."""
        return self._enabled

    def age(self) -> float:
        """Return for how many seconds the keys may have been others than those known here."""
        return self._monotonic() - self.renewed

    def stale(self) -> bool:
        """Return whether the keys have not been renewed for so long that one may have been revoked."""
        return self._monotonic() - self.renewed > self._stale_seconds

    def check(self, token: str) -> KeyInfo | None:
        """Return the key that `token` is, or None for a wrong, expired or revoked one."""
        if len(token) > _MAX_TOKEN_CHARACTERS:
            return None
        _, _, rest = token.partition("_")
        entry = self._entries.get(rest.partition("_")[0])
        if entry is None or not (
            hmac.compare_digest(entry.token_sha256, _hash(token)) or self._is_lent(entry.info.id, token)
        ):
            return None
        return entry.info if entry.info.state(self._clock()) == "active" else None

    def _is_lent(self, key_id: str, token: str) -> bool:
        return hmac.compare_digest(self.lend(key_id).encode(), token.encode("utf-8", "surrogateescape"))

    def lend(self, key_id: str) -> str:
        """Return a token by which this process itself asks in the name of a key, and nobody else can.

        It is of use for as long as the key is, and to this process only.
        """
        proof = hmac.digest(self._lent, key_id.encode(), "sha256").hex()
        return f"{PREFIX}_{key_id}_{proof}"

    def allows(self, key_id: str, scope: Scope) -> bool:
        """Return whether the key with this id may do `scope` now; where there are no keys, everybody may."""
        if not self._enabled:
            return True
        entry = self._entries.get(key_id)
        return entry is not None and entry.info.state(self._clock()) == "active" and entry.info.allows(scope)

    def refresh(self) -> bool:
        """Read the keys again if their folder has changed (else one `stat`); return whether it was read.

        Raises: StorageFailed: they cannot be read, or are not there although they are needed. The keys known
        so far stay in force, unless the folder is there and empty; `renewed` tells since when.
        """
        now = self._monotonic()
        read = self._read_again()
        self.renewed = now
        return read

    def _read_again(self) -> bool:
        anchor.confirm(self._root)
        try:
            found = disk.status(self._folder)
        except Missing as error:
            self._enabled = self._enabled or _were_made(self._root)
            if self._enabled:
                raise _lost(self._folder) from error
            return False
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp == self._stamp and self._settled and self._shut == _marks(self._shut):
            return False
        settled = time.time_ns() - found.st_mtime_ns > _UNSETTLED_NS
        paths = _key_files(self._folder)
        self._enabled = self._enabled or bool(paths) or _were_made(self._root)
        entries = {path.stem: entry for path in paths if (entry := _read_or_none(path)) is not None}
        self._entries = MappingProxyType(entries)
        if self._enabled and not paths:
            raise _lost(self._folder)
        # Rights that are given back change the file and not the folder.
        self._shut = _marks(path for path in paths if path.stem not in entries)
        self._stamp, self._settled = stamp, settled
        return True


def keys_folder(root: Path) -> Path:
    """Return where the keys of `root` lie."""
    return root / "keys" / "api"


def _key_files(folder: Path) -> list[Path]:
    names = disk.names(folder)
    return [folder / name for name in names if name.endswith(".json") and _ID.fullmatch(name[:-5])]


def _marks(paths: Iterable[Path]) -> dict[Path, int]:
    return {path: disk.status(path).st_ctime_ns for path in paths}


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _were_made(root: Path) -> bool:
    try:
        return Entry.read(root / anchor.LAYOUT).fields.get("keys") is True
    except Missing:
        return False  # no root, or one that is being made


def _note_made(root: Path) -> None:
    if not _were_made(root) and disk.exists(layout := root / anchor.LAYOUT):
        files.replace(layout, encode({**Entry.read(layout).fields, "keys": True}))


def _lost(folder: Path) -> StorageFailed:
    fact = "holds no key, though keys were made"
    return StorageFailed(str(folder), fact, "restore it, or make a new key with `wardrobe keys create`")


def _encode(entry: _Entry) -> bytes:
    info = entry.info
    fields: dict[str, JsonValue] = {
        "id": info.id,
        "token_sha256": entry.token_sha256.hex(),
        "scopes": [*sorted(info.scopes)],
        "note": info.note,
        "who": info.who,
        "created": info.created,
        "expires": info.expires,
        "revoked": info.revoked,
    }
    return encode(fields)


def _read(path: Path) -> _Entry:
    try:
        entry = Entry.read(path)
        info = KeyInfo(
            id=path.stem,
            scopes=frozenset(Scope(name) for name in entry.texts("scopes")),
            note=entry.text("note"),
            who=entry.text("who"),
            created=entry.number("created"),
            expires=entry.optional_number("expires"),
            revoked=entry.optional_number("revoked"),
        )
        return _Entry(info, bytes.fromhex(entry.text("token_sha256")))
    except (ValueError, CorruptStore) as error:
        remedy = "restore it from a backup, or revoke it and make a new key"
        raise CorruptStore(str(path), f"is not a key file ({error})", remedy) from error


def _read_or_none(path: Path) -> _Entry | None:
    """Return a key, None for one that lets nobody in because it cannot be read.

    Raises: StorageFailed: nothing can be said of it now.
    """
    try:
        return _read(path)
    except (CorruptStore, Missing):
        return None
    except StorageFailed as error:
        cause = error.__cause__
        # An operator's rights differ from the server's: this key is out, and the others go on.
        if isinstance(cause, OSError) and cause.errno in _CLOSED:
            return None
        raise


def _read_or_problem(path: Path) -> _Entry:
    try:
        return _read(path)
    except (CorruptStore, StorageFailed) as error:
        return _Entry(KeyInfo(path.stem, frozenset(), "", "", 0.0, problem=str(error)), b"")


def shared_secret(root: Path, name: str) -> bytes:
    """Return the 32 random bytes called `name` that all servers of a root share, made by whoever asks first.

    Raises: InvalidName; CorruptStore: the file has another size; StorageFailed.
    """
    path = root / "keys" / check_adapter_name(name)
    files.make_directory(path.parent, mode=0o700)
    if not disk.exists(path):
        files.claim(path, secrets.token_bytes(SECRET_BYTES), mode=files.SECRET_MODE)
    found = disk.read(path)
    if len(found) != SECRET_BYTES:
        fact = f"holds {len(found)} bytes, not {SECRET_BYTES}"
        raise CorruptStore(str(path), fact, "remove it to make a new one")
    return found
