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

from registry.errors import CorruptStore, InvalidName
from registry.records import Attestation
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root

if TYPE_CHECKING:
    from pydantic import JsonValue

PROOF = "proof"
_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FILE = re.compile(r"([a-z][a-z0-9_]{0,31})-([1-9][0-9]{0,8})\.json")


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

        Raises: CorruptStore: one of them cannot be understood, and might say no; StorageFailed.
        """
        found, broken = self.survey(adapter, number, kind)
        if broken:
            raise broken[0]
        return found

    def survey(
        self, adapter: str, number: int, kind: str | None = None
    ) -> tuple[list[Attestation], list[CorruptStore]]:
        """Return a version's attestations in order of time, and what is wrong with those that are broken.

        Raises: StorageFailed.
        """
        found: list[Attestation] = []
        broken: list[CorruptStore] = []
        folder = self._folder(adapter, number)
        for name in disk.names(folder):
            match = _FILE.fullmatch(name)
            if match is not None and kind in {None, match[1]}:
                try:
                    found.append(_read(folder / name, match[1], int(match[2])))
                except CorruptStore as error:
                    broken.append(error)
        return sorted(found, key=lambda one: (one.at, one.kind, one.seq)), broken

    def numbers(self, adapter: str) -> list[int]:
        """Return the versions that have attestations, ascending."""
        return disk.numbers(self._root.adapter(adapter) / "attestations")

    def proved(self, adapter: str, number: int) -> bool:
        """Return whether a replica has proved the version (a `proof` whose body says `passed: true`)."""
        proofs, _ = self.survey(adapter, number, PROOF)  # without a broken one it is proved anew
        return any(proof.body.get("passed") is True for proof in proofs)

    def _folder(self, adapter: str, number: int) -> Path:
        return self._root.adapter(adapter) / "attestations" / str(int(number))


def _read(path: Path, kind: str, seq: int) -> Attestation:
    entry = Entry.read(path)
    return Attestation(kind, seq, entry.text("who"), entry.number("at"), entry.mapping("body"))
