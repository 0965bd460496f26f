"""Attestations: what is found out about a version after it was published.

Owns `attestations/<N>/<kind>-<seq>.json`, one append-only log per version and kind. Invariant: an
attestation never changes the version, and none is ever overwritten.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from registry import disk, files
from registry.entry import Entry, encode_claim
from registry.errors import InvalidName
from registry.records import Attestation
from registry.root import Root

if TYPE_CHECKING:
    from pydantic import JsonValue

PROOF = "proof"
_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FILE = re.compile(r"([a-z][a-z0-9_]{0,31})-([1-9][0-9]*)\.json")


class Attestations:
    """The attestations of every version of a root."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock

    def add(self, adapter: str, number: int, kind: str, body: Mapping[str, JsonValue], who: str) -> int:
        """Append an attestation and return its seq within its kind.

        Raises: InvalidName: for a kind that is not `[a-z][a-z0-9_]{0,31}`; StorageFailed.
        """
        if _KIND.fullmatch(kind) is None:
            raise InvalidName(repr(kind), "is not a kind of attestation", "use a-z, 0-9 and _")
        at = self._clock()

        def build(seq: int) -> bytes:
            return encode_claim({"kind": kind, "seq": seq, "who": who, "at": at, "body": dict(body)})

        return files.append_entry(self._folder(adapter, number), build, prefix=f"{kind}-")

    def read(self, adapter: str, number: int, kind: str | None = None) -> list[Attestation]:
        """Return a version's attestations of one kind, or of all, in order of time.

        Raises: CorruptStore; StorageFailed.
        """
        folder = self._folder(adapter, number)
        found = []
        for name in disk.names(folder):
            match = _FILE.fullmatch(name)
            if match is not None and kind in {None, match[1]}:
                entry = Entry.read(folder / name)
                found.append(
                    Attestation(
                        match[1], int(match[2]), entry.text("who"), entry.number("at"), entry.mapping("body")
                    )
                )
        return sorted(found, key=lambda attestation: (attestation.at, attestation.kind, attestation.seq))

    def numbers(self, adapter: str) -> list[int]:
        """Return the versions that have attestations, ascending."""
        folder = self._root.adapter(adapter) / "attestations"
        return sorted(int(name) for name in disk.names(folder) if name.isdigit())

    def proved(self, adapter: str, number: int) -> bool:
        """Return whether a replica has proved the version (a `proof` whose body says `passed: true`)."""
        return any(proof.body.get("passed") is True for proof in self.read(adapter, number, PROOF))

    def _folder(self, adapter: str, number: int) -> Path:
        return self._root.adapter(adapter) / "attestations" / str(int(number))
