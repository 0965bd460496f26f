"""API keys: `wardrobe_<id>_<secret>`, kept as SHA-256 only, one file per key under `keys/api/`.

Owns making, listing, revoking and checking. Invariants: a token is never on disk and is handed out once;
a key file is never removed, so revoking the last key does not open the server again; a key file that
cannot be read lets nobody in.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from registry import disk, files
from registry.errors import CorruptStore, NotFound, StorageFailed, UsageError

PREFIX = "wardrobe"
SECRET_BYTES = 32
_ID_BYTES = 6
_ID = re.compile(r"[0-9a-f]{12}")
# A header of any length may arrive; nothing longer than this is hashed.
_MAX_TOKEN_CHARACTERS = 200
# A directory's mtime has the resolution of the kernel's tick, and over NFS another machine's clock: a
# directory that changed so recently is read again although its mtime is the one seen before.
_UNSETTLED_NS = 2_000_000_000


class Scope(StrEnum):
    """What a key may do; `admin` includes `infer`."""

    INFER = "infer"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret; times are UNIX seconds, None = never."""

    id: str
    scopes: frozenset[Scope]
    note: str
    who: str
    created: float
    expires: float | None = None
    revoked: float | None = None

    def allows(self, scope: Scope) -> bool:
        """Return whether the key's scopes include `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def state(self, now: float) -> str:
        """Return `active`, `expired` or `revoked`."""
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
        self._write(_Entry(info, _hash(token)))
        return info, token

    def list(self) -> list[KeyInfo]:
        """Return every key that was ever made, oldest first.

        Raises: CorruptStore: when a key file cannot be understood.
        """
        infos = [_read(path).info for path in _key_files(self._folder)]
        return sorted(infos, key=lambda info: (info.created, info.id))

    def revoke(self, key_id: str) -> KeyInfo:
        """Take a key out of use for good; a whole token is accepted as well as its id.

        Revoking twice changes nothing. Raises: NotFound.
        """
        key_id = key_id.split("_")[1] if key_id.startswith(f"{PREFIX}_") else key_id
        path = self._path(key_id)
        if _ID.fullmatch(key_id) is None or not path.is_file():
            raise NotFound(f"key {key_id!r}", "does not exist", "see `wardrobe keys list`", param="id")
        entry = _read(path)
        if entry.info.revoked is not None:
            return entry.info
        revoked = replace(entry.info, revoked=self._clock())
        self._write(_Entry(revoked, entry.token_sha256))
        return revoked

    def in_use(self) -> bool:
        """Return whether any key was ever made: from then on every request needs one."""
        return bool(_key_files(self._folder))

    def _path(self, key_id: str) -> Path:
        return self._folder / f"{key_id}.json"

    def _write(self, entry: _Entry) -> None:
        files.replace(self._path(entry.info.id), _encode(entry), mode=files.SECRET_MODE)


class KeyRing:
    """The keys in memory, for the hot path: `check` touches no disk and takes no lock.

    The owner calls `refresh` at least once a second; any thread may, one at a time.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = keys_folder(root)
        self._clock = clock
        self._entries: Mapping[str, _Entry] = MappingProxyType({})
        self._stamp: tuple[int, int] | None = None
        self._settled = False
        self._enabled = False
        self.refresh()

    @property
    def enabled(self) -> bool:
        """Return whether requests need a key; once True it stays so in this process."""
        return self._enabled

    def check(self, token: str) -> KeyInfo | None:
        """Return the key that `token` is, or None for a wrong, expired or revoked one."""
        if len(token) > _MAX_TOKEN_CHARACTERS:
            return None
        _, _, rest = token.partition("_")
        entry = self._entries.get(rest.partition("_")[0])
        if entry is None or not hmac.compare_digest(entry.token_sha256, _hash(token)):
            return None
        return entry.info if entry.info.state(self._clock()) == "active" else None

    def refresh(self) -> bool:
        """Read the keys again if their folder has changed (else one `stat`); return whether it was read.

        Raises: StorageFailed: the folder cannot be read; the keys known so far stay in force.
        """
        try:
            found = self._folder.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            fact = f"the keys cannot be read ({error.strerror})"
            raise StorageFailed(str(self._folder), fact, "check the mount and its rights") from error
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp == self._stamp and self._settled:
            return False
        settled = time.time_ns() - found.st_mtime_ns > _UNSETTLED_NS
        paths = _key_files(self._folder)
        entries = {path.stem: entry for path in paths if (entry := _read_or_none(path)) is not None}
        self._entries = MappingProxyType(entries)
        self._enabled = self._enabled or bool(paths)
        self._stamp, self._settled = stamp, settled
        return True


def keys_folder(root: Path) -> Path:
    """Return where the keys of `root` lie."""
    return root / "keys" / "api"


def _key_files(folder: Path) -> list[Path]:
    names = disk.names(folder)
    return [folder / name for name in names if name.endswith(".json") and _ID.fullmatch(name[:-5])]


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _encode(entry: _Entry) -> bytes:
    info = entry.info
    fields = {
        "id": info.id,
        "token_sha256": entry.token_sha256.hex(),
        "scopes": sorted(info.scopes),
        "note": info.note,
        "who": info.who,
        "created": info.created,
        "expires": info.expires,
        "revoked": info.revoked,
    }
    return json.dumps(fields, indent=2).encode() + b"\n"


def _read(path: Path) -> _Entry:
    try:
        fields = json.loads(disk.read(path))
        info = KeyInfo(
            id=path.stem,
            scopes=frozenset(Scope(name) for name in fields["scopes"]),
            note=str(fields["note"]),
            who=str(fields["who"]),
            created=float(fields["created"]),
            expires=_time(fields["expires"]),
            revoked=_time(fields["revoked"]),
        )
        return _Entry(info, bytes.fromhex(fields["token_sha256"]))
    except (ValueError, KeyError, TypeError) as error:
        remedy = "restore it from a backup, or remove it and make a new key"
        raise CorruptStore(str(path), f"is not a key file ({error})", remedy) from error


def _read_or_none(path: Path) -> _Entry | None:
    try:
        return _read(path)
    except (CorruptStore, FileNotFoundError):
        # It lets nobody in; `wardrobe keys list` names it.
        return None


def _time(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{value!r} is no time")
