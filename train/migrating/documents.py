"""The JSON of a migration: what `--json` prints."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from registry.api.documents import Document
from train.migrating.configs import method_of_job
from train.migrating.interface import JobDocument


class MigratedJobReport(Document):
    """One job of the account, and how far it is taken over.

    `state`: `listed`, `left_out` (it made no model), `prepared`, `trained` (registered, not under the old
    name), `served` (under the old name) or `failed` (`sentence` says why; run the command again). `recorded`
    of `questions` are answered by the old model. `verdict`: `pass`, `fail`, `cannot_tell`.
    """

    id: str
    status: str
    model: str
    fine_tuned_model: str | None
    method: str
    state: str = "listed"
    sentence: str = ""
    rows: int | None = None
    held_out: int | None = None
    questions: int = 0
    recorded: int = 0
    config: str | None = None
    version: str | None = None
    digest: str | None = None
    verdict: str | None = None
    figures: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, job: JobDocument) -> Self:
        """Return what the account says of a job."""
        tuned = job.get("fine_tuned_model")
        return cls(
            id=str(job["id"]),
            status=str(job.get("status")),
            model=str(job.get("model")),
            fine_tuned_model=None if tuned is None else str(tuned),
            method=method_of_job(job)["type"],
        )

    def now(self, state: str, sentence: str, **facts: Any) -> Self:
        """Return the report after another step."""
        return self.model_copy(update={"state": state, "sentence": sentence, **facts})


class MigrationReport(Document):
    """A migration; `tokens` of `budget` were spent on recorded answers, `next` says what to do now."""

    out: str
    jobs: list[MigratedJobReport]
    tokens: int
    budget: int
    next: str
