"""The JSON documents of Wardrobe: what `--json` prints, and what the admin API takes and gives.

Owns their shapes; `describe` makes them from records. No disk, no network. Invariant: a field is never
renamed or removed within one major version; readers ignore fields that they do not know, so a newer
server can answer an older client. Times are UNIX seconds, sizes bytes.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Document(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Request(BaseModel):
    """A question; an unknown field is refused, and a value of another type (`true` or `"2"` for a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AdapterSummary(Document):
    """One line of `list`; `problem` says why the adapter cannot be read, and the rest is empty then.

    With `stable_quarantined` the bare name is not answered: its stable may not be served.
    """

    adapter: str
    stable: int | None
    latest: int
    versions: int
    aliases: dict[str, int]
    problem: str = ""
    stable_quarantined: bool = False


class AdapterList(Document):
    """Every adapter, by name."""

    adapters: list[AdapterSummary]


class FileDocument(Document):
    """One file of a version; `sha256` is hexadecimal."""

    path: str
    size: int
    sha256: str


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


class AttestationDocument(Document):
    """Something that was found out about a version after it was published."""

    kind: str
    seq: int
    who: str
    at: float
    body: dict[str, JsonValue]


class VersionDetail(VersionDocument):
    """One version with its files and attestations.

    `problems` are attestations that cannot be read; `base_named` is what its own config called the base.
    """

    files: list[FileDocument]
    attestations: list[AttestationDocument]
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


class DeletedDocument(Document):
    """A version that was deleted."""

    adapter: str
    version: int
    deleted: bool = True


class MoveDocument(Document):
    """One move of an alias; `version` is null where the alias was removed."""

    adapter: str
    alias: str
    seq: int
    version: int | None
    digest: str | None
    who: str
    why: str
    at: float


class HistoryDocument(Document):
    """Every alias move of one adapter, oldest first."""

    adapter: str
    moves: list[MoveDocument]


class VerifyDocument(Document):
    """Whether one version's files are what was published; `problem` says what is not."""

    name: str
    ok: bool
    problem: str | None


class VerifyReport(Document):
    """The verdict on every version that was looked at."""

    ok: bool
    results: list[VerifyDocument]


class GcDocument(Document):
    """What garbage collection moved to the trash, removed for good, and kept; `applied` False = dry run."""

    applied: bool
    trashed: list[str]
    emptied: list[str]
    kept_because: dict[str, str]


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

    `problems` are sentences on what it cannot do now.
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

    `stable_quarantined` are the stable versions that may not be served. `problems` says what cannot be read,
    by adapter or file; all that can be is in the other fields.
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


class DrainDocument(Document):
    """Whether the answering replica is draining."""

    replica: str
    draining: bool


class AuditDocument(Document):
    """One change: who did what to which subject."""

    at: float
    who: str
    action: str
    subject: str
    detail: str


class AuditList(Document):
    """Changes, oldest first."""

    entries: list[AuditDocument]


class KeyDocument(Document):
    """An API key without its secret; `state` is active, expired, revoked or unreadable.

    `problem` says why its file cannot be read: nobody gets in with it then.
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


class NewKeyDocument(KeyDocument):
    """A key that was just made, with the only copy of its token."""

    token: str


class ErrorBody(Document):
    """The inside of an OpenAI-shaped error."""

    message: str
    type: str
    param: str | None
    code: str | None


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
