"""Keys and groups in memory, for the hot path: who asks, and what is granted.

Owns when they are read again, and what a key and its group come to together: a `Caller`, made once for each
key and change. Invariants: a key whose group cannot be told, as one that cannot be read, lets nobody in; once
keys were needed they are needed for good; what was lost with its folder is not taken for what never was.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from registry.entries.keys import (
    KEYS_MADE,
    MAX_TOKEN_CHARACTERS,
    PREFIX,
    SECRET_BYTES,
    KeyEntry,
    KeyInfo,
    key_files,
    keys_folder,
    read_key,
    token_hash,
)
from registry.entries.known_groups import KnownGroups
from registry.entries.rights import ALL_SCOPES, DEFAULT_GROUP, NO_LIMITS, Group, GroupLimits, Scope, effective
from registry.errors import Missing, StorageFailed
from registry.storage import anchor, disk
from registry.storage.marks import noted

STALE_SECONDS = 30.0
ANONYMOUS = "anonymous"
"""Who asks where no key was ever made."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who asks: a key as one of its group; the same object for as long as neither changes.

    `who` is the key's id, or `anonymous` where keys are not in use (`key` is None then); `limits` are the
    key's own; `scopes` are what key and group both grant; `sees_all`: also what other keys made.
    """

    who: str
    group: Group
    key: KeyInfo | None = None
    limits: GroupLimits = NO_LIMITS
    scopes: frozenset[Scope] = field(init=False)
    sees_all: bool = field(init=False)

    def __post_init__(self) -> None:
        own = ALL_SCOPES if self.key is None else self.key.scopes
        object.__setattr__(self, "scopes", effective(own, self.group))
        object.__setattr__(self, "sees_all", Scope.READ in self.scopes)

    def allows(self, scope: Scope) -> bool:
        """Return whether `scope` is granted."""
        return scope in self.scopes


@dataclass(frozen=True, slots=True)
class _Known:
    entry: KeyEntry
    caller: Caller


class KeyRing:
    """The keys and groups in memory: `check` touches no disk and takes no lock.

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
        self.anonymous = Caller(ANONYMOUS, _NOTHING)
        self._root = root
        self._folder = keys_folder(root)
        self._clock = clock
        self._monotonic = monotonic
        self._entries: Mapping[str, KeyEntry] = {}
        self._groups = KnownGroups(root)
        self._known: Mapping[str, _Known] = MappingProxyType({})
        self._stamp: tuple[int, int] | None = None
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

    @property
    def groups(self) -> Mapping[str, Group]:
        """Return every group that can be read, by name; another mapping after each change."""
        return self._groups.known

    @property
    def problems(self) -> Mapping[str, str]:
        """Return why groups cannot be read, by name: nobody gets in with their keys."""
        return self._groups.problems

    def infos(self) -> list[KeyInfo]:
        """Return every key that can be read, the newest first."""
        found = [entry.info for entry in self._entries.values()]
        return sorted(found, key=lambda info: (-info.created, info.id))

    def age(self) -> float:
        """Return for how many seconds the keys may have been others than those known here."""
        return self._monotonic() - self.renewed

    def stale(self) -> bool:
        """Return whether the keys have not been renewed for so long that one may have been revoked."""
        return self._monotonic() - self.renewed > self._stale_seconds

    def check(self, token: str) -> Caller | None:
        """Return who asks with `token`, None for a wrong, expired or revoked one."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        _, _, rest = token.partition("_")
        known = self._known.get(rest.partition("_")[0])
        if known is None:
            return None
        info = known.entry.info
        if not (
            hmac.compare_digest(known.entry.token_sha256, token_hash(token)) or self._is_lent(info.id, token)
        ):
            return None
        return known.caller if info.state(self._clock()) == "active" else None

    def caller(self, key_id: str) -> Caller | None:
        """Return the caller whose key has this id, None where it may not ask; without keys, everybody may."""
        if not self._enabled:
            return self.anonymous
        known = self._known.get(key_id)
        if known is None or known.entry.info.state(self._clock()) != "active":
            return None
        return known.caller

    def evidence_groups(self, adapter: str) -> frozenset[str]:
        """Return the groups that may give evidence of an adapter and have an active key to do so with.

        A key counts whose own scopes name `infer`: one that an administrator has gives none by itself.
        """
        now = self._clock()
        return frozenset(
            known.caller.group.name
            for known in self._known.values()
            if Scope.INFER in known.entry.info.scopes & known.caller.scopes
            and known.caller.group.evidence
            and known.caller.group.sees(adapter)
            and known.entry.info.state(now) == "active"
        )

    def _is_lent(self, key_id: str, token: str) -> bool:
        return hmac.compare_digest(self.lend(key_id).encode(), token.encode("utf-8", "surrogateescape"))

    def lend(self, key_id: str) -> str:
        """Return a token by which this process itself asks in the name of a key, and nobody else can.

        It is of use for as long as the key is, and to this process only.
        """
        proof = hmac.digest(self._lent, key_id.encode(), "sha256").hex()
        return f"{PREFIX}_{key_id}_{proof}"

    def allows(self, key_id: str, scope: Scope) -> bool:
        """Return whether the key with this id may do `scope` now."""
        caller = self.caller(key_id)
        return caller is not None and caller.allows(scope)

    def refresh(self) -> bool:
        """Read the keys and groups again where their folders have changed (else one look at each).

        Return whether anything was read. Raises: StorageFailed: they cannot be read, or are not there
        although they are needed. Those known so far stay in force, unless the keys' folder is there and
        empty; `renewed` tells since when.
        """
        now = self._monotonic()
        anchor.confirm(self._root)
        read = self._read_keys()
        try:
            read = self._groups.refresh() or read  # after the keys: a key is younger than its group
        finally:
            if read:
                self._join()
        self.renewed = now
        return read

    def _join(self) -> None:
        """Make the callers of what is known now; one that has not changed stays the same object."""
        groups = self._groups.known
        default = groups.get(DEFAULT_GROUP, _NOTHING)
        if self.anonymous.group is not default:
            self.anonymous = Caller(ANONYMOUS, default)
        found = {}
        for key_id, entry in self._entries.items():
            group, before = groups.get(entry.info.group), self._known.get(key_id)
            if group is None:
                continue
            if before is None or before.entry != entry or before.caller.group is not group:
                before = _Known(entry, Caller(key_id, group, entry.info, entry.info.limits))
            found[key_id] = before
        self._known = MappingProxyType(found)

    def _read_keys(self) -> bool:
        try:
            found = disk.status(self._folder)
        except Missing as error:
            self._enabled = self._enabled or noted(self._root, KEYS_MADE)
            if self._enabled:
                raise _lost(self._folder) from error
            return False
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp == self._stamp and self._shut == _marks(self._shut):
            return False
        settled = disk.settled(found)
        paths = key_files(self._folder)
        self._enabled = self._enabled or bool(paths) or noted(self._root, KEYS_MADE)
        self._entries = {path.stem: entry for path in paths if (entry := read_key(path)) is not None}
        if self._enabled and not paths:
            self._known = MappingProxyType({})
            raise _lost(self._folder)
        # Rights that are given back change the file and not the folder.
        self._shut = _marks(path for path in paths if path.stem not in self._entries)
        self._stamp = stamp if settled else None
        return True


_NOTHING = Group(DEFAULT_GROUP, adapters=(), base=False, scopes=frozenset())
"""What a `default` that cannot be read may do."""


def _marks(paths: Iterable[Path]) -> dict[Path, int]:
    return {path: disk.status(path).st_ctime_ns for path in paths}


def _lost(folder: Path) -> StorageFailed:
    fact = "holds no key, though keys were made"
    return StorageFailed(str(folder), fact, "restore it, or make a new key with `wardrobe keys create`")
