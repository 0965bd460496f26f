"""History and audit: who changed what, read from the logs that are the state itself.

Owns the merging of logs by time; there is no log of its own that could disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from registry.entries.aliases import LoggedMove
from registry.entries.groups import entry_changes
from registry.entries.rights import DEFAULT_GROUP
from registry.errors import CorruptStore, WardrobeError
from registry.records import AliasMove, AuditEntry
from registry.validation.requirements import FORCE
from registry.views.catalogue import Catalogue

ADAPTERS_READ = 50
"""The adapters of which `newest` reads everything, at most."""
_CLOCKS_APART = 60.0
"""By how many seconds the clocks of two writers may differ."""


def history(catalogue: Catalogue, adapter: str) -> list[AliasMove]:
    """Return every move of every alias of an adapter, oldest first.

    Raises: InvalidName; NotFound; CorruptStore.
    """
    catalogue.require(adapter)
    return [*_moves(catalogue, adapter)]


def audit(catalogue: Catalogue, since: float | None = None) -> list[AuditEntry]:
    """Return every change of every adapter and group from `since` (UNIX seconds) on, oldest first.

    A log that cannot be read is an entry of now, `unreadable`: it hides nothing but itself.

    Raises: StorageFailed: the adapters cannot be listed.
    """
    found: list[AuditEntry] = []
    for adapter in catalogue.known():
        found += _audit_adapter(catalogue, adapter)
    found += _audit_groups(catalogue)
    wanted = (entry for entry in found if since is None or entry.at >= since)
    return sorted(wanted, key=lambda entry: (entry.at, entry.subject))


@dataclass(frozen=True, slots=True)
class AuditWish:
    """Which changes are wanted: of one adapter, by one person, of one action; '' and None: of all.

    `before` is UNIX seconds, excluded.
    """

    before: float | None = None
    adapter: str | None = None
    who: str = ""
    action: str = ""

    def takes(self, entry: AuditEntry) -> bool:
        """Return whether an entry is wanted."""
        if self.before is not None and entry.at >= self.before:
            return False
        return self.who in {"", entry.who} and self.action in {"", entry.action}


def newest(catalogue: Catalogue, wish: AuditWish, limit: int) -> tuple[list[AuditEntry], float | None]:
    """Return the last `limit` wanted changes, newest first, and since when the whole root was looked at.

    Those of the same moment as the last one come with it. The adapters that changed last are read first, and
    `ADAPTERS_READ` at most: None where that was enough for all that there is.

    Raises: NotFound: there is no such adapter; InvalidName; StorageFailed.
    """
    if wish.adapter is not None:
        catalogue.require(wish.adapter)
        found = [one for one in _audit_adapter(catalogue, wish.adapter) if wish.takes(one)]
        return _last(found, limit), None
    found = [one for one in _audit_groups(catalogue) if wish.takes(one)]
    for read, (adapter, marked) in enumerate(catalogue.marked()):
        changed = marked + _CLOCKS_APART
        if len(found) >= limit and sorted(one.at for one in found)[-limit] >= changed:
            break
        if read == ADAPTERS_READ:
            return _last([one for one in found if one.at >= changed], limit), changed
        found += [one for one in _audit_adapter(catalogue, adapter) if wish.takes(one)]
    return _last(found, limit), None


def _last(found: list[AuditEntry], limit: int) -> list[AuditEntry]:
    ordered = sorted(found, key=lambda entry: (entry.at, entry.subject), reverse=True)
    return [one for one in ordered if len(ordered) <= limit or one.at >= ordered[limit - 1].at]


def _moves(catalogue: Catalogue, adapter: str) -> list[LoggedMove]:
    found: list[tuple[float, str, int, LoggedMove]] = []
    for alias in catalogue.aliases.names(adapter):
        latest = 0.0
        for move in catalogue.aliases.log(adapter, alias):
            # The log's own order stands, also where the writers' clocks disagree.
            latest = max(latest, move.at)
            found.append((latest, alias, move.seq, move))
    return [move for *_, move in sorted(found, key=lambda item: item[:3])]


def _audit_adapter(catalogue: Catalogue, adapter: str) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    for part in _PARTS:
        try:
            found.extend(part(catalogue, adapter))
        except WardrobeError as error:
            found.append(AuditEntry(catalogue.clock(), "", "unreadable", adapter, str(error)))
    return found


def _audit_moves(catalogue: Catalogue, adapter: str) -> Iterator[AuditEntry]:
    for move in _moves(catalogue, adapter):
        action = "alias" if move.restores is None else "rollback"
        target = "removed" if move.version is None else f"{adapter}@{move.version}"
        yield AuditEntry(move.at, move.who, action, f"{adapter}@{move.alias}", f"{target} ({move.why})")


def _audit_rollouts(catalogue: Catalogue, adapter: str) -> Iterator[AuditEntry]:
    for step in catalogue.rollouts.log(adapter):
        detail = f"{step.event}: {step.state} at {step.weight / 100:g}%"
        why = f"{step.reason}: {step.sentence}" if step.sentence else step.reason
        subject = f"{adapter}@{step.canary}"
        yield AuditEntry(
            step.at, step.who, "rollout", subject, f"{detail} ({why}; {step.rollout}#{step.seq})"
        )


def _audit_quarantine(catalogue: Catalogue, adapter: str) -> Iterator[AuditEntry]:
    for order in catalogue.quarantine.orders(adapter):
        yield AuditEntry(order.at, order.who, "quarantine", f"{adapter}@{order.number}", order.reason)


def _audit_deletions(catalogue: Catalogue, adapter: str) -> Iterator[AuditEntry]:
    folders = set(catalogue.versions.numbers(adapter))
    for number in catalogue.tombstones.numbers(adapter):
        tombstone = catalogue.tombstones.read(adapter, number)
        if tombstone is not None:
            yield AuditEntry(tombstone.at, tombstone.who, "delete", f"{adapter}@{number}", tombstone.digest)
            if number not in folders:
                yield _publication(
                    f"{adapter}@{number}",
                    tombstone.published_at,
                    tombstone.published_by,
                    tombstone.digest,
                    tombstone.note,
                )


def _audit_attestations(catalogue: Catalogue, adapter: str) -> Iterator[AuditEntry]:
    for number in catalogue.attestations.numbers(adapter):
        known, _ = catalogue.attestations.survey(adapter, number)
        for found in known:
            why = f" ({found.body.get('why', '')})" if found.kind == FORCE else ""
            yield AuditEntry(found.at, found.who, "attest", f"{adapter}@{number}", f"{found.kind}{why}")


def _audit_groups(catalogue: Catalogue) -> Iterator[AuditEntry]:
    for name in catalogue.groups.names():
        try:
            for entry, changed in entry_changes(catalogue.groups.history(name)):
                detail = "; ".join(f"{what} {value}" for what, value in changed.items())
                first = "created: " if entry.seq == 1 and name != DEFAULT_GROUP else ""
                yield AuditEntry(entry.at, entry.who, "group", name, f"{first}{detail}".rstrip(": "))
        except WardrobeError as error:
            yield AuditEntry(catalogue.clock(), "", "unreadable", f"group {name}", str(error))


def _audit_versions(catalogue: Catalogue, adapter: str) -> Iterator[AuditEntry]:
    for number in catalogue.versions.numbers(adapter):
        try:
            version = catalogue.versions.read(adapter, number)
        except CorruptStore:
            continue  # `verify` names it; one damaged manifest must not hide everybody's history
        yield _publication(version.name, version.created, version.who, version.digest, version.note)


_PARTS = (
    _audit_versions,
    _audit_moves,
    _audit_rollouts,
    _audit_quarantine,
    _audit_deletions,
    _audit_attestations,
)


def _publication(subject: str, at: float, who: str, digest: str, note: str) -> AuditEntry:
    return AuditEntry(at, who, "publish", subject, f"{digest} {note}".strip())
