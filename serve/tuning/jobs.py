"""`/v1/fine_tuning/jobs`: what may be asked of jobs, done on the disk. Blocking; `routes` calls it in
threads.

Owns who sees which job, and what is told of one beside its own files. Invariant: another key's job is as
unknown as one that never was, except to an administrator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.entries.openai.tuned import TunedModel
from registry.errors import NotFound
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent, JobState
from registry.tuning.records import JobEntry
from registry.tuning.workers import Workers
from serve.openai.asker import Asker, Platform
from serve.openai.errors import RequestRefused
from serve.openai.pages import cut, listed
from serve.tuning.creation import CreateAttempt, JobMaker
from serve.tuning.documents import JobSurroundings, job_document
from serve.tuning.events import EventList, checkpoint_documents, is_event_id, step_of
from serve.tuning.parameters import CreateJob
from serve.tuning.progress import read_progress, read_recent

_WORDS: Mapping[JobEvent, str] = {
    JobEvent.PAUSED: "The job was paused",
    JobEvent.RESUMED: "The job was resumed",
    JobEvent.CANCELLED: "The job was cancelled",
}
_NO_WORKER: Mapping[bool, str] = {
    True: "no worker lives: a server with training starts one, else run `wardrobe train worker`",
    False: "no worker lives: run `wardrobe train worker`, or serve with tuning.worker = auto",
}
"""By whether the server starts one itself."""
_WAITING = frozenset({JobState.VALIDATING, JobState.QUEUED})


class JobDesk:
    """Answers what is asked of the fine-tuning jobs of one root."""

    def __init__(self, platform: Platform, clock: Callable[[], float] = time.time) -> None:
        registry, settings = platform.registry, platform.settings.tuning
        root = registry.catalogue.root
        self._jobs = TuningJobs(root, clock)
        self._workers = Workers(root, clock)
        self._tuned = registry.catalogue.tuned
        self._organization = settings.organization
        self._clock = clock
        self._starts_worker = settings.worker != "off"
        self._maker = JobMaker(
            self._jobs,
            platform.files,
            lambda: platform.state.watcher.view,
            base=registry.base.name,
            organization=settings.organization,
            stand_ins=settings.models,
            clock=clock,
        )

    def create(self, asker: Asker, asked: CreateJob, attempt: CreateAttempt) -> dict[str, Any]:
        """Make a job."""
        job = self._maker.make(asked, asker, attempt)
        return self._document(job)

    def list(
        self,
        asker: Asker,
        *,
        after: str | None,
        limit: int,
        metadata: Mapping[str, str] | None,
        unnamed: bool,
    ) -> dict[str, object]:
        """Return a page of jobs, newest first, with all of `metadata`; `unnamed`: those without any."""
        found = [job for job in self._jobs.all() if asker.sees(job.request.who)]
        if unnamed:
            found = [job for job in found if job.request.metadata is None]
        for key, value in (metadata or {}).items():
            found = [job for job in found if (job.request.metadata or {}).get(key) == value]
        page, more = cut(found, lambda job: job.id, after=after, limit=limit)
        queue = self._queue() if page else None
        return {"object": "list", "data": [self._document(job, queue) for job in page], "has_more": more}

    def show(self, asker: Asker, job_id: str) -> dict[str, Any]:
        """Return one job."""
        return self._document(self._find(asker, job_id))

    def move(self, asker: Asker, job_id: str, event: JobEvent) -> dict[str, Any]:
        """Cancel, pause or resume a job; it is so at once, and its worker follows within a second or two.

        Raises: JobRefused: its state does not allow it.
        """
        job = self._find(asker, job_id)
        job.append(event, who=asker.who, message=_WORDS[event])
        return self._document(job)

    def events(self, asker: Asker, job_id: str, *, after: str | None, limit: int) -> dict[str, object]:
        """Return a page of a job's events, newest first."""
        job = self._find(asker, job_id)
        if after is not None and not is_event_id(after):
            message = f"Invalid 'after': '{after[:100]}' is no id."
            raise RequestRefused(message, param="after", reason="invalid_value")
        events = EventList.of(job.id, job.log(), read_progress(job.folder), self._models(job))
        page, more = events.page(after, limit)
        return {"object": "list", "data": page, "has_more": more}

    def checkpoints(self, asker: Asker, job_id: str, *, after: str | None, limit: int) -> dict[str, object]:
        """Return a page of a job's checkpoints, newest first."""
        job = self._find(asker, job_id)
        every = checkpoint_documents(job.id, read_progress(job.folder), self._models(job))
        page, more = cut(every, lambda one: str(one["id"]), after=after, limit=limit)
        return {"first_id": None, "last_id": None, **listed(page, more=more)}

    def require_checkpoint(self, asker: Asker, name: str) -> None:
        """Pass where a checkpoint has this name.

        Raises: NotFound.
        """
        try:
            model = self._tuned.find(name)
        except NotFound:
            model = None
        seen = model is not None and asker.sees(model.who) and asker.sight.sees(model.adapter)
        if model is None or step_of(model) is None or not seen:
            param = "fine_tuned_model_checkpoint"
            raise NotFound("No such checkpoint", name, param=param)

    def _find(self, asker: Asker, job_id: str) -> TuningJob:
        try:
            job = self._jobs.find(job_id)
        except NotFound:
            job = None
        if job is None or not asker.sees(job.request.who):
            raise RequestRefused(
                f"Could not find fine tune: {job_id[:100]}",
                param="fine_tune_id",
                reason="fine_tune_not_found",
                status=404,
            )
        return job

    def _models(self, job: TuningJob) -> Sequence[TunedModel]:
        models, _ = self._tuned.survey()
        return [one for one in models.values() if one.job == job.id]

    def _document(self, job: TuningJob, queue: _Queue | None = None) -> dict[str, Any]:
        log = job.log()
        running = log[-1].state is JobState.RUNNING
        around = JobSurroundings(
            organization=self._organization,
            waits_for=self._waits_for(job, log[-1], queue),
            seconds_left=read_recent(job.folder).seconds_left() if running else None,
            now=self._clock(),
        )
        return job_document(job, log, around)

    def _waits_for(self, job: TuningJob, last: JobEntry, queue: _Queue | None) -> str:
        if last.state not in _WAITING or self._workers.holds(job, last):
            return ""
        queue = queue or self._queue()
        if not queue.worked:
            return _NO_WORKER[self._starts_worker]
        before = sum(1 for other in queue.waiting if other < _place(job))
        if not before:
            return "a worker"
        return f"a worker; {before} {'job' if before == 1 else 'jobs'} came before it"

    def _queue(self) -> _Queue:
        waiting = [_place(job) for job in self._jobs.all() if job.last().state in _WAITING]
        return _Queue(waiting, any(self._workers.alive(one.id, one.owner) for one in self._workers.all()))


@dataclass(frozen=True, slots=True)
class _Queue:
    """The places of all jobs that wait, and whether any worker lives."""

    waiting: Sequence[tuple[int, str]]
    worked: bool


def _place(job: TuningJob) -> tuple[int, str]:
    return job.request.created, job.id
