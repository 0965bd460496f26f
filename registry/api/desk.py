"""The desk: what the command line and the admin API ask of a wardrobe, answered in documents.

`registry.api.local.LocalDesk` answers from the root itself, `registry.api.client.Client` over HTTP from a
server that holds a `LocalDesk`; so both give the same answers by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.api import documents as doc
from registry.validation.requirements import Requirement

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Registration:
    """A folder to be published as the next version of `adapter`; `follow_links` unless others filled it."""

    adapter: str
    folder: Path
    alias: str | None = None
    no_stable: bool = False
    note: str = ""
    golden: Path | None = None
    allow_duplicate: bool = False
    require: tuple[Requirement, ...] = ()
    follow_links: bool = True


class Desk(Protocol):
    """Everything that may be asked; every refusal is a `WardrobeError`."""

    def list(self) -> doc.AdapterList:
        """Return every adapter in brief."""
        ...

    def show(self, adapter: str) -> doc.AdapterDocument:
        """Return one adapter with its live versions."""
        ...

    def show_version(self, adapter: str, number: int) -> doc.VersionDetail:
        """Return one version with its files and attestations."""
        ...

    def history(self, adapter: str) -> doc.HistoryDocument:
        """Return every alias move of one adapter."""
        ...

    def audit(self, since: float | None = None) -> doc.AuditList:
        """Return every change from `since` (UNIX seconds) on."""
        ...

    def register(self, registration: Registration, advance: Progress) -> doc.PublishedDocument:
        """Publish a folder; `advance` is told of bytes as they are sent, if they are sent."""
        ...

    def verify(self, adapter: str | None = None, number: int | None = None) -> doc.VerifyReport:
        """Hash versions again; one that is not as published is quarantined."""
        ...

    def set_alias(self, adapter: str, alias: str, number: int, force: str = "") -> doc.MoveDocument:
        """Point an alias to a version; `force` is the reason for moving `stable` past what it lacks."""
        ...

    def remove_alias(self, adapter: str, alias: str) -> doc.MoveDocument:
        """Remove an alias; its history stays. Without `stable` the bare name is answered with 404."""
        ...

    def promote(self, adapter: str, number: int, force: str = "") -> doc.MoveDocument:
        """Point `stable` to a version; `force` as in `set_alias`."""
        ...

    def rollback(self, adapter: str) -> doc.MoveDocument:
        """Undo the last forward move of `stable`."""
        ...

    def delete(self, adapter: str, number: int) -> doc.DeletedDocument:
        """Put a tombstone on a version."""
        ...

    def gc(self, *, apply: bool, now: bool = False) -> doc.GcDocument:
        """Collect what nothing uses, or say what would be collected; `now` frees the room at once."""
        ...

    def export(self, adapter: str, number: int, target: Path, base: str | None = None) -> doc.ExportDocument:
        """Write a version's files into the new folder `target`; its config calls the base `base` if given."""
        ...

    def replicas(self) -> doc.ReplicaList:
        """Return every replica by its last heartbeat."""
        ...

    def status(self) -> doc.StatusDocument:
        """Return the whole at a glance."""
        ...
