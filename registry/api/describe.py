"""Records as the documents that `--json` and the admin API show; no disk, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registry import records
from registry.api import documents as doc
from registry.records import AliasMove, Heartbeat, Published, Version


def summarise(summary: records.AdapterBrief) -> doc.AdapterSummary:
    """Return one line of `list`."""
    return doc.AdapterSummary(
        adapter=summary.adapter,
        stable=summary.stable,
        latest=summary.latest,
        versions=summary.versions,
        aliases=dict(sorted(summary.aliases.items())),
        problem=summary.problem,
        stable_quarantined=summary.stable_quarantined,
    )


def describe_version(
    version: Version, aliases: Mapping[str, int], quarantined: str | None
) -> doc.VersionDocument:
    """Return the document of `version`; `aliases` are all of its adapter's."""
    return doc.VersionDocument(
        adapter=version.adapter,
        version=version.number,
        digest=version.digest,
        created_at=version.created,
        note=version.note,
        who=version.who,
        rank=version.rank,
        target_modules=list(version.target_modules),
        size_bytes=version.size_bytes,
        aliases=sorted(alias for alias, number in aliases.items() if number == version.number),
        quarantined=quarantined,
    )


def detail_version(
    document: doc.VersionDocument,
    version: Version,
    attestations: Sequence[records.Attestation],
    problems: Sequence[str] = (),
) -> doc.VersionDetail:
    """Return `document` with the files of `version` and its attestations."""
    files = [doc.FileDocument(path=file.path, size=file.size, sha256=file.sha256) for file in version.files]
    return doc.VersionDetail(
        **document.model_dump(),
        files=files,
        attestations=[
            doc.AttestationDocument(kind=one.kind, seq=one.seq, who=one.who, at=one.at, body=dict(one.body))
            for one in attestations
        ],
        problems=list(problems),
        base_named=version.base_named,
    )


def describe_publish(published: Published) -> doc.PublishedDocument:
    """Return the document of a publish."""
    return doc.PublishedDocument(
        adapter=published.version.adapter,
        version=published.version.number,
        digest=published.version.digest,
        created=published.created,
        warnings=list(published.warnings),
        left_out=list(published.left_out),
        aliases=[move.alias for move in published.alias_moves],
    )


def describe_move(move: AliasMove) -> doc.MoveDocument:
    """Return the document of an alias move."""
    return doc.MoveDocument(
        adapter=move.adapter,
        alias=move.alias,
        seq=move.seq,
        version=move.version,
        digest=move.digest,
        who=move.who,
        why=move.why,
        at=move.at,
    )


def describe_replica(beat: Heartbeat, *, live: bool) -> doc.ReplicaDocument:
    """Return the document of a replica."""
    return doc.ReplicaDocument(
        replica=beat.replica,
        url=beat.url,
        state=beat.state,
        live=live,
        resident=list(beat.resident),
        capacity=beat.capacity,
        base_fingerprint=beat.base_fingerprint,
        started_at=beat.started,
        pid=beat.pid,
        problems=list(beat.problems),
    )


def describe_change(entry: records.AuditEntry) -> doc.AuditDocument:
    """Return the document of a change."""
    return doc.AuditDocument(
        at=entry.at, who=entry.who, action=entry.action, subject=entry.subject, detail=entry.detail
    )
