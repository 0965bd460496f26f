"""What is known of a job: its description, which never changes, and its status, which does."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, JsonValue

from registry.api.documents import Document
from registry.tuning.liveness import Owner
from train.jobs.plan import RunPlan


class RunState(StrEnum):
    """Where a run is; only a run that was stopped or killed can go on."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Description(Document):
    """What a job was asked to do; `config` is complete, every default written out."""

    id: str
    adapter: str
    method: str
    base: str
    who: str
    created_at: float
    config: dict[str, JsonValue]
    plan: RunPlan
    plan_sha256: str


class Status(Document):
    """How far a job is.

    `version` and `digest` are of the version that it made, `artefact` a path in the job's folder (a reward
    model) or the folder that `--out` named. `resumed` are the steps after which it went on. `summary` is what
    the run measured.
    """

    state: RunState
    owner: Owner
    updated_at: float
    step: int = 0
    steps: int | None = None
    tokens: int = 0
    resumed: tuple[int, ...] = ()
    error: str | None = None
    version: int | None = None
    digest: str | None = None
    artefact: str | None = None
    summary: dict[str, JsonValue] = Field(default_factory=dict)


class AskedDocument(Document):
    """What a job's log says that was asked for over the API: where it is, since when, in whose hands.

    `error` has OpenAI's `code`, `message` and `param`; `tuned_name` is the `ft:` name of the result.
    """

    state: str
    at: float
    message: str
    worker: str | None
    model: str
    tuned_name: str
    version: int | None = None
    error: dict[str, JsonValue] | None = None


class JobDocument(Document):
    """One job as `train jobs` and `train show` tell it; times are UNIX seconds.

    `checkpoints` are the steps that it could go on from. `status` is null before its training has begun,
    `asked` for a run of `train run`.
    """

    id: str
    adapter: str
    method: str
    base: str
    who: str
    created_at: float
    plan_sha256: str
    folder: str
    checkpoints: list[int]
    status: Status | None
    asked: AskedDocument | None = None


class JobDetail(JobDocument):
    """One job with its settings, its last figures and the answers to its sample prompts."""

    status: Status
    config: dict[str, JsonValue]
    evaluations: list[dict[str, JsonValue]]
    last_step: dict[str, JsonValue] | None
    samples: list[dict[str, JsonValue]]
