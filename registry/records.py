"""The values that the store hands out: frozen, typed, and free of I/O.

They are the documents too: `--json` and the admin API show them as they are, unless `registry.api.documents`
has another class for what differs. Invariant of what is shown: a field is never renamed or removed within one
major version, and its place in the class is its place in the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import JsonValue
else:
    JsonValue = Any  # pydantic takes a tenth of a second to import, and reads these classes where it is there


@dataclass(frozen=True, slots=True)
class BaseModelInfo:
    """The one base model of a root, as `wardrobe init` recorded it.

    `path` is where it lay at `init` (a hint, not identity); `fingerprint` is `sha256:…` over its config
    and tokenizer files; `modules` maps a module's full name without its `.weight` suffix
    (`model.layers.0.self_attn.q_proj`) to (out_features, in_features); it is empty when the shapes could
    not be read (packed quantised bases). `chat_template` is the template's text, None where the root was made
    before it was recorded, or where there is none.
    """

    name: str
    path: Path
    fingerprint: str
    chat_template_sha256: str | None
    modules: dict[str, tuple[int, int]]
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What registry and server share."""

    max_lora_rank: int = 32
    """Largest rank of an adapter, as vLLM allows them (8, 16, 32, 64, …); a higher one takes more memory."""
    max_adapter_bytes: int = 2 * 1024**3
    """Largest adapter, all files together, in bytes."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what the servers write is kept, and how much of it; the oldest goes first."""

    feedback_days: int = 90
    """Days that a day's file of feedback is kept."""
    feedback_bytes: int = 512 * 1024**2
    """Most bytes of feedback in the whole root."""
    evidence_days: int = 30
    """Days that a rollout's evidence is kept after its end, and the record of an engine's death."""
    logs_days: int = 30
    """Days that an engine's log is kept after its last line."""
    logs_bytes: int = 1024**3
    """Most bytes of engines' logs in the whole root."""
    batches_days: int = 30
    """Days that a batch is remembered after its end; the files that it gave have their own expiry."""
    replicas_days: int = 7
    """Days that a replica that beats no more is remembered, with its baselines."""
    usage_days: int = 400
    """Days of which usage is kept day by day; older ones are summed to months."""
    usage_months: int = 60
    """Months of which usage is kept."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version: its name, size in bytes and `sha256` (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version: what its manifest says, and where it lies.

    `digest` is `sha256:…`; `created` is UNIX seconds; `rank` is the largest LoRA
    rank; `target_modules` are sorted. Where it came from is an attestation, `lineage`. `base_named` is what
    the adapter's own config called its base, None where it said nothing or nobody kept it. The digest is over
    the files, `base_fingerprint` and `template_sha256`.
    """

    adapter: str
    number: int
    digest: str
    created: float
    note: str
    who: str
    rank: int
    target_modules: tuple[str, ...]
    size_bytes: int
    files: tuple[FileEntry, ...]
    path: Path
    base_named: str | None = None
    base_fingerprint: str = ""
    template_sha256: str | None = None

    @property
    def name(self) -> str:
        """The engine's name, `NAME@N`."""
        return f"{self.adapter}@{self.number}"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias: it points to `version` from `at` (UNIX seconds) on.

    `version` is None where the alias was removed. `why` says what moved it (`register`, `promote`,
    `rollback`, `alias set`, `rollout …`).
    """

    adapter: str
    alias: str
    seq: int
    version: int | None
    digest: str | None
    who: str
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` did: `created` is False when the same content existed and its number was returned.

    `left_out` names the files that were not taken; `warnings` are sentences for a person;
    `alias_moves` are the aliases that were set by the call.
    """

    version: Version
    created: bool
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    alias_moves: tuple[AliasMove, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a replica says of itself every two seconds.

    `resident` are engine names (`support@3`); `capacity` is the number of versions it can hold; `server` is a
    word that this server alone has, the same over restarts of its engine; `problems` are sentences on what
    it cannot do now, `notes` on what its operator may do.
    """

    replica: str
    url: str
    base_fingerprint: str
    resident: tuple[str, ...]
    capacity: int
    state: str  # starting | ready | draining
    started: float
    pid: int
    server: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutEntry:
    """One entry of a rollout's log, and the whole state of the rollout after it.

    `rollout` is its id (16 hex digits): salt of the assignment and name of its evidence folder. `stable`
    is 0 where the base model is the control. Weights are basis points: `weight` is in force now,
    `base_weight` goes to the bare base model, `shadow` of stable's requests are mirrored, `held_weight`
    is what a suspended rollout goes back to. `step` counts the policy's steps from 0, -1 before the
    first; `resumes` is the state that hold or pause goes back to, '' elsewhere. The time that a rollout
    was paused or suspended is added to `step_since`, so that the dwell is always now - `step_since`.
    `reason` is one word, `sentence` is for people, `facts` are what the decision stood on. `baseline` and
    `policy` are documents of `serve.rollout`. Times are UNIX seconds: `began` of the rollout, `state_since`,
    `step_since`, and `at` of this entry. `state` and `event` are words of `serve.rollout.decision.states`.
    """

    adapter: str
    rollout: str
    seq: int
    state: str
    event: str
    who: str
    at: float
    began: float
    state_since: float
    step_since: float
    stable: int
    canary: int
    stable_digest: str
    canary_digest: str
    weight: int
    base_weight: int
    shadow: int
    held_weight: int
    step: int
    resumes: str
    reason: str
    sentence: str
    forced: bool
    policy: Mapping[str, JsonValue]
    baseline: Mapping[str, JsonValue]
    facts: Mapping[str, JsonValue]

    @property
    def open(self) -> bool:
        """Return True while this log alone decides `stable`."""
        return self.state not in {"rolled_back", "closed"}

    @property
    def serving(self) -> int:
        """Return the version that `stable` means after this entry: the canary while it has all traffic.

        That is once it is promoted, also while that is paused, and after it is closed.
        """
        return self.canary if self.weight == 10_000 or self.state == "closed" else self.stable


@dataclass(frozen=True, slots=True)
class AdapterBrief:
    """One adapter at a glance; `latest` is its highest live number, `versions` how many are live.

    `stable_quarantined`: its stable may not be served. `problem` says why it cannot be read; the rest is
    empty then.
    """

    adapter: str
    stable: int | None
    latest: int
    versions: int
    aliases: Mapping[str, int]
    problem: str = ""
    stable_quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Attestation:
    """Something found out about a version after it was published; `seq` counts within its `kind`."""

    kind: str
    seq: int
    who: str
    at: float
    body: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """Whether the files of `name` (`support@3`) are what was published; `problem` says what is not."""

    name: str
    ok: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: who did what to which subject; `at` is UNIX seconds.

    `action` is `publish`, `alias`, `rollback`, `delete`, `quarantine`, `attest`, `rollout` or `group`;
    `unreadable` is not a change but a log that cannot be read.
    """

    at: float
    who: str
    action: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a collection moved to the trash and emptied from it, or would have in a dry run (not `applied`).

    `kept_because` names deleted versions that are still needed, each with its reason.
    """

    applied: bool
    trashed: tuple[str, ...]
    emptied: tuple[str, ...]
    kept_because: Mapping[str, str]
