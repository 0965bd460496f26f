"""API keys: `wardrobe_<id>_<secret>`, kept as SHA-256 only, one file per key under `keys/api/`.

Owns making, listing and revoking; `keyring` has them in memory. Invariants: a token is never on disk and is
handed out once; a key file is never removed, so revoking the last key does not open the server again, and
`layout.json` says that a key was made, so losing the files does not either; a key file that cannot be read
lets nobody in.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from registry.entries.groups import GroupStore, encode_limits, read_limits
from registry.entries.rights import DEFAULT_GROUP, NO_LIMITS, GroupLimits, Scope
from registry.errors import CorruptStore, DiskFull, Missing, NotFound, StorageFailed, UsageError
from registry.names import check_adapter_name
from registry.storage import disk, files
from registry.storage.disk import closed_to_us
from registry.storage.entry import Entry, encode
from registry.storage.marks import noted, put_mark
from registry.storage.reserve import urgently

if TYPE_CHECKING:
    from pydantic import JsonValue

PREFIX = "wardrobe"
KEYS_MADE = "keys"
"""What `layout.json` says once a key was made."""
SECRET_BYTES = 32
_ID_BYTES = 6
_ID = re.compile(r"[0-9a-f]{12}")
# A header of any length may arrive; nothing longer than this is hashed.
MAX_TOKEN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret; times are UNIX seconds, None = never.

    `limits` are the key's own, beside its group's. `problem` says why its file cannot be read: then nobody
    gets in with it.
    """

    id: str
    scopes: frozenset[Scope]
    note: str
    who: str
    created: float
    expires: float | None = None
    revoked: float | None = None
    group: str = DEFAULT_GROUP
    limits: GroupLimits = NO_LIMITS
    problem: str = ""

    def state(self, now: float) -> str:
        """Return `active`, `expired`, `revoked` or `unreadable`."""
        if self.problem:
            return "unreadable"
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """What a key's file holds."""

    info: KeyInfo
    token_sha256: bytes


class KeyStore:
    """The keys of one root; every call reads or writes the disk."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._folder = keys_folder(root)
        self._clock = clock

    def create(
        self,
        scopes: Iterable[Scope],
        *,
        who: str,
        note: str = "",
        lifetime_seconds: float | None = None,
        group: str = DEFAULT_GROUP,
        limits: GroupLimits = NO_LIMITS,
    ) -> tuple[KeyInfo, str]:
        """Make a key and return it with its token, of which no other copy exists.

        Raises: UsageError: without a scope, or with a lifetime that is not positive; NotFound: there is no
        such group; CorruptStore: what it is cannot be read; StorageFailed.
        """
        granted = frozenset(scopes)
        if not granted:
            raise UsageError("scope", "none is given", f"name one of {', '.join(Scope)}", param="scope")
        if lifetime_seconds is not None and not lifetime_seconds > 0:
            fact = f"{lifetime_seconds:g} seconds is not a lifetime"
            raise UsageError("expires", fact, "give a positive one, such as 90d", param="expires")
        GroupStore(self._root).get(group)
        now = self._clock()
        expires = None if lifetime_seconds is None else now + lifetime_seconds
        info = KeyInfo(secrets.token_hex(_ID_BYTES), granted, note, who, now, expires, None, group, limits)
        token = f"{PREFIX}_{info.id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        files.make_directory(self._folder, mode=0o700)
        # First what closes the door, so that no crash leaves a key that a lost file would undo.
        put_mark(self._root, KEYS_MADE)
        self._write(KeyEntry(info, token_hash(token)))
        return info, token

    def list(self) -> list[KeyInfo]:
        """Return every key that was ever made, oldest first; one that cannot be read has a `problem`.

        Raises: StorageFailed: the keys cannot be listed.
        """
        infos = [_read_or_problem(path).info for path in key_files(self._folder)]
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
        revoked = KeyEntry(replace(entry.info, problem="", revoked=self._clock()), entry.token_sha256)
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
        return bool(key_files(self._folder)) or noted(self._root, KEYS_MADE)

    def _path(self, key_id: str) -> Path:
        return self._folder / f"{key_id}.json"

    def _write(self, entry: KeyEntry) -> None:
        files.replace(self._path(entry.info.id), _encode(entry), mode=files.SECRET_MODE)


def keys_folder(root: Path) -> Path:
    """Return where the keys of `root` lie."""
    return root / "keys" / "api"


def ungrouped_keys(root: Path, now: float) -> list[KeyInfo]:
    """Return the active keys of the group `default`, where those from before there were groups are.

    Raises: StorageFailed.
    """
    found = KeyStore(root).list()
    return [info for info in found if info.group == DEFAULT_GROUP and info.state(now) == "active"]


def key_files(folder: Path) -> list[Path]:
    """Return the files of all keys.

    Raises: StorageFailed.
    """
    names = disk.names(folder)
    return [folder / name for name in names if name.endswith(".json") and _ID.fullmatch(name[:-5])]


def token_hash(token: str) -> bytes:
    """Return what is kept of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _encode(entry: KeyEntry) -> bytes:
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
        "group": info.group,
        "limits": encode_limits(info.limits),
    }
    return encode(fields)


def _read(path: Path) -> KeyEntry:
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
            # One of a release without groups has neither.
            group=entry.optional_text("group") or DEFAULT_GROUP,
            limits=read_limits(entry),
        )
        return KeyEntry(info, bytes.fromhex(entry.text("token_sha256")))
    except (ValueError, CorruptStore, UsageError) as error:
        remedy = "restore it from a backup, or revoke it and make a new key"
        raise CorruptStore(str(path), f"is not a key file ({error})", remedy) from error


def read_key(path: Path) -> KeyEntry | None:
    """Return a key, None for one that lets nobody in because it cannot be read.

    Raises: StorageFailed: nothing can be said of it now.
    """
    try:
        return _read(path)
    except (CorruptStore, Missing):
        return None
    except StorageFailed as error:
        # An operator's rights differ from the server's: this key is out, and the others go on.
        if not closed_to_us(error):
            raise
        return None


def _read_or_problem(path: Path) -> KeyEntry:
    try:
        return _read(path)
    except (CorruptStore, StorageFailed) as error:
        return KeyEntry(KeyInfo(path.stem, frozenset(), "", "", 0.0, problem=str(error)), b"")


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
