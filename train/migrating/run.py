"""A whole migration: every job listed, fetched, recorded, prepared and, if asked for, trained and served.

Owns the order, and which failure concerns one job and which all. Invariants: what one job lacks stops no
other; without a key that works, or without a network, nothing is begun; every step is found done or not done
in the folder, so the same command again goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Denied, NotFound, WardrobeError
from registry.storage import disk
from registry.validation.requirements import GateVerdict
from train.migrating.configs import method_of_job, write_config
from train.migrating.documents import MigratedJobReport, MigrationReport
from train.migrating.fetching import fetch
from train.migrating.folder import MigratedJob, MigrationFolder
from train.migrating.interface import AccountAway, JobDocument, JobSource
from train.migrating.questions import hold_out_rows, write_questions
from train.migrating.recording import Answerer, OldModel, TokenBudget, record, recorded, spent
from train.migrating.serving import SERVED, attest_verdict, serve_version

if TYPE_CHECKING:
    from registry.store import Registry

ROUND = 20
"""Questions of one job before the next one's: where the budget ends early, every job has some."""
_OVER = frozenset({"succeeded", "failed", "cancelled"})

Trainer = Callable[[MigratedJob, str], None]
"""Leaves a job's `version` and `verdict` in its folder; the second is the old model's name."""


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """What is wanted: which jobs (none: all), how many rows and questions, how much may be spent, how close.

    `held_out` is the share of the rows of a job without a validation file; `prompts` are asked of each old
    model; `budget` is in tokens over all of them; `margin` is in the figure's unit.
    """

    only: tuple[str, ...] = ()
    held_out: float = 0.2
    prompts: int = 100
    budget: int = 500_000
    answer_tokens: int = 256
    margin: float = 0.1
    serve_anyway: bool = False


@dataclass(slots=True)
class Migration:
    """One migration into `folder`; without `source` and `account` nothing is fetched and asked any more."""

    folder: MigrationFolder
    source: JobSource | None
    account: Answerer | None
    options: MigrationOptions
    notice: Callable[[str], None] = lambda _text: None
    reports: dict[str, MigratedJobReport] = field(default_factory=dict)

    def survey(self) -> MigrationReport:
        """Return what the account has; nothing is kept."""
        listed = self.source.jobs() if self.source is not None else self.folder.jobs()
        self.reports = {str(job["id"]): MigratedJobReport.of(job) for job in self._chosen(listed)}
        return self._report("`wardrobe migrate openai` fetches, records and prepares them")

    def prepare(self) -> MigrationReport:
        """Fetch, record and prepare every job.

        Raises: Denied; AccountAway: nothing of the account can be had; StorageFailed; NotFound.
        """
        jobs = self._jobs()
        for number, job in enumerate(jobs, start=1):
            self.notice(f"{job['id']}: job {number} of {len(jobs)}, fetching what is not here yet")
            self._guarded(job, self._prepare)
        self._record(jobs)
        ready = [one for one in self.reports.values() if one.state == "prepared"]
        return self._report(
            f"read the configs, then `wardrobe migrate openai --out {self.folder.path} --train`"
            if ready
            else ""
        )

    def train(self, trainer: Trainer, registry: Registry, who: str) -> MigrationReport:
        """Train, judge and serve what is prepared; `prepare` was called before.

        Raises: KeyboardInterrupt: a training stopped with a checkpoint.
        """
        for job in self._jobs(listed=self.folder.jobs()):
            if self.reports[str(job["id"])].state == "prepared":
                self._guarded(job, lambda one: self._train(one, trainer, registry, who))
        left = [one for one in self.reports.values() if one.state == "trained"]
        return self._report(
            "what passed answers under its old name; `--serve-anyway` gives the others theirs"
            if left
            else "in the application: base_url"
        )

    def _jobs(self, listed: Sequence[JobDocument] | None = None) -> list[JobDocument]:
        """Return the jobs that are wanted, the oldest first: so are versions of one adapter numbered."""
        if listed is None:
            found = (
                self.folder.keep_jobs(self.source.jobs()) if self.source is not None else self.folder.jobs()
            )
            listed = found
        return self._chosen(sorted(listed, key=_age))

    def _chosen(self, jobs: Sequence[JobDocument]) -> list[JobDocument]:
        only = self.options.only
        known = [str(job["id"]) for job in jobs]
        for name in only:
            if name not in known:
                raise NotFound(
                    f"job {name}", f"is none of the {len(known)} jobs there", "see --list", param="job"
                )
        return [job for job in jobs if not only or str(job["id"]) in only]

    def _guarded(self, job: JobDocument, step: Callable[[JobDocument], MigratedJobReport]) -> None:
        """Do a step of one job; what fails there is this job's, unless nothing more can be had."""
        name = str(job["id"])
        before = self.reports.get(name) or MigratedJobReport.of(job)
        try:
            self.reports[name] = step(job)
        except (Denied, AccountAway):
            raise
        except WardrobeError as error:
            self.reports[name] = before.now("failed", str(self.folder.explained(error)))

    def _prepare(self, document: JobDocument) -> MigratedJobReport:
        report = MigratedJobReport.of(document)
        if report.status not in _OVER:
            return report.now("left_out", f"is {report.status}: run this again once it has ended")
        if not report.fine_tuned_model:
            return report.now("left_out", f"made no model: {_end_of(document)}")
        job = self.folder.job(report.id)
        if (served := job.record(SERVED)) is not None:
            return _served(report, served, job.record("verdict") or {})
        found = fetch(document, self.source, self.folder)
        if found.train is None:
            return report.now(
                "failed", found.notes[0] if found.notes else "has no training file", notes=found.notes
            )
        train, held_out = hold_out_rows(job, found, self.options.held_out)
        if held_out is not None and not (disk.exists(job.items) and disk.exists(job.suite)):
            left_out = write_questions(job, held_out, method_of_job(document), self.options.answer_tokens)
            if left_out:
                found.notes.append(f"{left_out} held-out rows ask nothing that can be asked again")
        write_config(document, job, train, held_out)
        rows, held = (None if one is None else _lines(one) for one in (train, held_out))
        return report.now(
            "prepared", "", rows=rows, held_out=held, config=str(job.config), notes=found.notes,
            questions=min(self.options.prompts, len(job.rows(job.items))),
        )  # fmt: skip

    def _record(self, jobs: Sequence[JobDocument]) -> None:
        """Ask every old model its questions, some of each in turn, until the budget is spent."""
        budget = TokenBudget(self.options.budget, self._spent())
        told = 0
        asked = [job for job in jobs if self.reports[str(job["id"])].state == "prepared"]
        for count in range(ROUND, self.options.prompts + ROUND, ROUND):
            for job in list(asked):
                if not self._record_some(job, budget, min(count, self.options.prompts)):
                    asked.remove(job)
            told = self._tell_recorded(jobs, told)
        for job in jobs:
            name = str(job["id"])
            if self.reports[name].state == "prepared":
                good = sum(one.error is None for one in recorded(self.folder.job(name)).values())
                self.reports[name] = self.reports[name].model_copy(update={"recorded": good})

    def _tell_recorded(self, jobs: Sequence[JobDocument], before: int) -> int:
        """Say how many answers there are, where they are more than `before`."""
        names = [str(job["id"]) for job in jobs]
        wanted = sum(self.reports[name].questions for name in names)
        found = sum(len(recorded(self.folder.job(name))) for name in names if self.reports[name].questions)
        if before != found:
            self.notice(f"recorded {found} of {wanted} answers")
        return found

    def _record_some(self, document: JobDocument, budget: TokenBudget, count: int) -> bool:
        """Record up to `count` answers of a job; tell whether it may be asked for more."""
        report = self.reports[str(document["id"])]
        job = self.folder.job(report.id)
        if self.account is None:
            return False
        old = OldModel(str(report.fine_tuned_model), report.model, self.options.answer_tokens)
        try:
            ended = record(job, old, self.account, budget, count)
        except (Denied, AccountAway):
            raise
        except WardrobeError as error:
            # What was not recorded can be had later, perhaps, and never once the model is switched off.
            told = self.folder.explained(error)
            self.reports[report.id] = report.now("failed", f"recording stopped: {told}")
            return False
        if ended:
            self.reports[report.id] = report.model_copy(update={"notes": [*report.notes, ended]})
        return not ended

    def _train(
        self, document: JobDocument, trainer: Trainer, registry: Registry, who: str
    ) -> MigratedJobReport:
        report = self.reports[str(document["id"])]
        job, old = self.folder.job(report.id), str(report.fine_tuned_model)
        _forget_stale(job, self.options.margin, report.recorded)
        if job.record("version") is None or job.record("verdict") is None:
            self.notice(f"{job.id}: training for {old}; see {job.log}")
            trainer(job, old)
        version, verdict = job.record("version") or {}, job.record("verdict") or {}
        attest_verdict(job, old, version, verdict, registry, who)
        name = f"{version['adapter']}@{version['version']}"
        facts: dict[str, Any] = {
            "version": name, "digest": version["digest"], "verdict": verdict["verdict"], "figures": verdict
        }  # fmt: skip
        sentence = str(verdict["sentence"])
        passed = verdict["verdict"] == GateVerdict.PASS.value
        if not passed and not self.options.serve_anyway:
            return report.now("trained", f"{sentence}. {name} is registered and not served as {old}", **facts)
        serve_version(job, old, version, verdict, registry, who)
        return report.now("served", f"{sentence}. {name} answers as {old}", **facts)

    def _spent(self) -> int:
        """Return the tokens of every answer in the folder, also of jobs that are not wanted now."""
        jobs = [self.folder.job(str(one["id"])) for one in self.folder.jobs()]
        return spent(jobs)

    def _report(self, then: str) -> MigrationReport:
        return MigrationReport(
            out=str(self.folder.path),
            jobs=list(self.reports.values()),
            tokens=self._spent(),
            budget=self.options.budget,
            next=then,
        )


def _forget_stale(job: MigratedJob, margin: float, answers: int) -> None:
    """Forget a verdict with another margin, or of fewer answers than are recorded now."""
    verdict = job.record("verdict")
    if verdict is not None and (verdict.get("margin", margin), verdict.get("questions")) != (margin, answers):
        job.forget("verdict")


def _served(
    report: MigratedJobReport, served: Mapping[str, Any], verdict: Mapping[str, Any]
) -> MigratedJobReport:
    told = f"{verdict['sentence']}. " if "sentence" in verdict else ""
    return report.now(
        "served", f"{told}{served['version']} answers as {served['name']}", version=served["version"],
        digest=served["digest"], verdict=served["verdict"], figures=dict(verdict),
    )  # fmt: skip


def _age(job: JobDocument) -> tuple[float, str]:
    created = job.get("created_at")
    return (float(created) if isinstance(created, int | float) else 0.0), str(job["id"])


def _end_of(document: JobDocument) -> str:
    error = document.get("error")
    told = error.get("message") if isinstance(error, Mapping) else None
    return f"it {document.get('status')}" + (f" ({told})" if told else "")


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
