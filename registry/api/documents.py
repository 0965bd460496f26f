"""The JSON documents that differ from what the store holds: lists, records with more or less, requests.

A record that is shown as it is, is its own document (`registry.records`). No disk, no network. Invariant: a
field is never renamed or removed within one major version; readers ignore fields that they do not know, so a
newer server can answer an older client. Times are UNIX seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from registry.entries.keys import KeyInfo
from registry.entries.rights import DEFAULT_GROUP, NO_LIMITS, GroupLimits
from registry.errors import WardrobeError
from registry.records import (
    AdapterBrief,
    AliasMove,
    Attestation,
    AuditEntry,
    FileEntry,
    Heartbeat,
    Published,
    VerifyResult,
    Version,
)


class Document(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Request(BaseModel):
    """A question; an unknown field is refused, and a value of another type (`true` or `"2"` for a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AdapterList(Document):
    """Every adapter, by name."""

    adapters: list[AdapterBrief]


class VersionDocument(Document):
    """One immutable version, and what points to it now."""

    adapter: str
    version: int
    digest: str
    created_at: float
    note: str
    who: str
    rank: int
    target_modules: list[str]
    size_bytes: int
    aliases: list[str]
    quarantined: str | None

    @classmethod
    def of(cls, version: Version, aliases: Mapping[str, int], quarantined: str | None) -> VersionDocument:
        """Return the document of `version`; `aliases` are all of its adapter's."""
        return cls(
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


class VersionDetail(VersionDocument):
    """One version with its files and attestations.

    `problems` are attestations that cannot be read; `base_named` is what its own config called the base.
    """

    files: list[FileEntry]
    attestations: list[Attestation]
    problems: list[str] = []
    base_named: str | None = None


class AdapterDocument(Document):
    """One adapter with its live versions, ascending; `unreadable` are those whose manifest is broken."""

    adapter: str
    stable: int | None
    aliases: dict[str, int]
    versions: list[VersionDocument]
    unreadable: dict[int, str]


class PublishedDocument(Document):
    """What a publish did; `created` is False where the same content existed already.

    `aliases` are those that this call set.
    """

    adapter: str
    version: int
    digest: str
    created: bool
    warnings: list[str]
    left_out: list[str]
    aliases: list[str]

    @classmethod
    def of(cls, published: Published) -> PublishedDocument:
        """Return the document of a publish."""
        return cls(
            adapter=published.version.adapter,
            version=published.version.number,
            digest=published.version.digest,
            created=published.created,
            warnings=list(published.warnings),
            left_out=list(published.left_out),
            aliases=[move.alias for move in published.alias_moves],
        )


class ForgottenNameDocument(Document):
    """A tuned model whose name was taken out of use; the version that answered by it stays."""

    name: str
    version: str


class DeletedDocument(Document):
    """A version that was deleted."""

    adapter: str
    version: int
    deleted: bool = True


class HistoryDocument(Document):
    """Every alias move of one adapter, oldest first."""

    adapter: str
    moves: list[AliasMove]


class VerifyReport(Document):
    """The verdict on every version that was looked at."""

    ok: bool
    results: list[VerifyResult]


class ExportDocument(Document):
    """A version that was written to `path`; `base` is what its config calls the base there."""

    adapter: str
    version: int
    digest: str
    path: str
    base: str | None = None


class BaseDocument(Document):
    """The one base model of a root."""

    name: str
    fingerprint: str


class InitDocument(Document):
    """A root that is ready; `notes` say where the base's name comes from, and what has changed."""

    root: str
    base: BaseDocument
    max_lora_rank: int
    notes: list[str] = []


class ReplicaDocument(Document):
    """One server process, by its last heartbeat; `live` means that it beat within 10 seconds.

    `problems` are sentences on what it cannot do now, `notes` on what its operator may do.
    """

    replica: str
    url: str
    state: str
    live: bool
    resident: list[str]
    capacity: int
    base_fingerprint: str
    started_at: float
    pid: int
    problems: list[str] = []
    notes: list[str] = []

    @classmethod
    def of(cls, beat: Heartbeat, *, live: bool) -> ReplicaDocument:
        """Return the document of a replica."""
        return cls(
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
            notes=list(beat.notes),
        )


class ReplicaList(Document):
    """Every replica that has beaten and was not removed."""

    replicas: list[ReplicaDocument]


class OpenRollout(Document):
    """A rollout that is under way; `weight` is the canary's share in basis points."""

    adapter: str
    canary: int
    state: str
    weight: int


class StatusDocument(Document):
    """The whole root at a glance; `auth` is True once any key was made.

    `stable_quarantined` are the stable versions that may not be served; `groups` are those that were made,
    `ungrouped_keys` the active keys of the group `default` where there are others. `problems` says what
    cannot be read, by adapter or file; all that can be is in the other fields.
    """

    base: BaseDocument
    max_lora_rank: int
    auth: bool
    adapters: int
    versions: int
    without_stable: list[str]
    quarantined: dict[str, str]
    replicas: list[ReplicaDocument]
    rollouts: list[OpenRollout] = []
    problems: dict[str, str] = {}
    stable_quarantined: list[str] = []
    groups: int = 0
    ungrouped_keys: int = 0


class DrainDocument(Document):
    """Whether the answering replica is draining."""

    replica: str
    draining: bool


class AuditList(Document):
    """Changes, oldest first."""

    entries: list[AuditEntry]


class NewestChanges(Document):
    """Changes, newest first; those of one moment are never torn apart, so there may be a few more than asked.

    `reached`: older changes are there, and only those of one adapter can be asked for; null where there is
    nothing more to be read than what `before` leads to.
    """

    entries: list[AuditEntry]
    reached: float | None = None


class KeyDocument(Document):
    """An API key without its secret; `state` is active, expired, revoked or unreadable.

    `limits` are its own, beside its group's; null is none. `problem` says why its file cannot be read: nobody
    gets in with it then.
    """

    id: str
    scopes: list[str]
    note: str
    who: str
    state: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    problem: str = ""
    group: str = DEFAULT_GROUP
    limits: GroupLimits = NO_LIMITS

    @classmethod
    def of(cls, info: KeyInfo, now: float) -> KeyDocument:
        """Return the document of a key as it is at `now`, UNIX seconds."""
        return cls(
            id=info.id,
            scopes=sorted(info.scopes),
            note=info.note,
            who=info.who,
            state=info.state(now),
            created_at=info.created,
            expires_at=info.expires,
            revoked_at=info.revoked,
            problem=info.problem,
            group=info.group,
            limits=info.limits,
        )


class KeyList(Document):
    """Every key that was ever made, oldest first."""

    keys: list[KeyDocument]


class NewKeyDocument(KeyDocument):
    """A key that was just made, with the only copy of its token."""

    token: str


class ErrorBody(Document):
    """The inside of an OpenAI-shaped error."""

    message: str
    type: str
    param: str | None
    code: str | None

    @classmethod
    def of(cls, error: WardrobeError) -> ErrorBody:
        """Return the body of an error."""
        return cls(message=str(error), type=error.type, param=error.param, code=error.code)


class RegisteredDocument(Document):
    """What became of one folder of many: `published`, or the `error` that refused it."""

    adapter: str
    folder: str
    published: PublishedDocument | None
    error: ErrorBody | None


class ErrorDocument(Document):
    """An OpenAI-shaped error."""

    error: ErrorBody


class VersionRequest(Request):
    """Which version an alias shall point to."""

    version: int = Field(ge=1, le=999_999_999)


class MoveRequest(VersionRequest):
    """Which version an alias shall point to; `force` is the reason for moving `stable` past what it lacks."""

    force: str = Field(default="", max_length=1_000)


class VerifyRequest(Request):
    """What to verify: everything, one adapter, or one version of it."""

    adapter: str | None = None
    version: int | None = Field(default=None, ge=1, le=999_999_999)


class GcRequest(Request):
    """Whether to collect (`apply`) or only to say what would be; `now` frees the room at once."""

    apply: bool = False
    now: bool = False


class DrainRequest(Request):
    """Whether the answering replica shall drain."""

    draining: bool = True
