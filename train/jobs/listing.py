"""One list of jobs: the runs of `train run`, and what was asked for over the API, begun or not.

Owns how both are found, and what a person may do to either: cancel, pause, resume.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from registry.errors import Conflict, JobRefused, StorageFailed
from registry.storage.root import Root
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.liveness import this_host
from registry.tuning.machine import JobEvent
from train.jobs.records import AskedDocument, JobDetail, JobDocument, RunState
from train.jobs.store import Job, Jobs, the_only

_BETWEEN_SIGNALS_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job: `run` is its training once that has begun, `asked` its request where there is one."""

    id: str
    created: float
    run: Job | None
    asked: TuningJob | None

    def document(self) -> JobDocument:
        """Return what `train jobs` tells of it.

        Raises: CorruptStore; StorageFailed.
        """
        if self.run is not None:
            return self.run.document().model_copy(update={"asked": self.answer()})
        assert self.asked is not None
        request = self.asked.request
        return JobDocument(
            id=self.id, adapter=request.adapter, method=str(request.method.get("type")),
            base=request.base_model, who=request.who, created_at=request.created, plan_sha256="",
            folder=str(self.asked.folder),
            checkpoints=[], status=None, asked=self.answer(),
        )  # fmt: skip

    def detail(self) -> JobDetail | None:
        """Return everything that is known of its training, None where it has not begun."""
        return None if self.run is None else self.run.detail().model_copy(update={"asked": self.answer()})

    def answer(self) -> AskedDocument | None:
        """Return what its log says, None for a run of `train run`."""
        if self.asked is None:
            return None
        last, request = self.asked.last(), self.asked.request
        version, error = last.facts.get("version"), last.facts.get("error")
        return AskedDocument(
            state=last.state.value, at=last.at, message=last.message, worker=last.worker, model=request.model,
            tuned_name=request.tuned_name, version=version if isinstance(version, int) else None,
            error=error if isinstance(error, dict) else None,
        )  # fmt: skip

    def move(self, event: JobEvent, who: str) -> str:
        """Cancel, pause or resume it; return in words what happens now.

        Raises: JobRefused: its state does not allow it; Conflict: a run of `train run` elsewhere;
        StorageFailed.
        """
        if self.asked is not None:
            entry = self.asked.append(event, who=who, message=f"The job was {event.value}")
            return f"is {entry.state.value}" + (", as soon as its worker lets go" if entry.worker else "")
        assert self.run is not None
        return _signal_run(self.run, event)


class JobList:
    """All jobs of a root."""

    def __init__(self, root: Root) -> None:
        self._runs, self._asked = Jobs(root.path), TuningJobs(root)

    @property
    def problems(self) -> dict[str, str]:
        """Return what is wrong with jobs that `all` left out, by id."""
        return self._asked.problems

    def all(self) -> list[ListedJob]:
        """Return every job, the newest first.

        Raises: StorageFailed.
        """
        runs = {job.id: job for job in self._runs.all()}
        asked = {job.id: job for job in self._asked.all()}
        found = [
            ListedJob(
                name,
                float(asked[name].request.created) if name in asked else runs[name].description.created_at,
                runs.get(name),
                asked.get(name),
            )
            for name in {**runs, **asked}
        ]
        return sorted(found, key=lambda job: (job.created, job.id), reverse=True)

    def find(self, name: str) -> ListedJob:
        """Return a job by its id, or by the only beginning or end of an id that fits.

        Raises: NotFound; Conflict: several fit.
        """
        return the_only(self.all(), name)


def _signal_run(run: Job, event: JobEvent) -> str:
    """Stop a run of `train run` as its own Ctrl-C would: once behind its step, twice at once."""
    status, subject = run.status(), f"job {run.id}"
    if event is JobEvent.RESUMED:
        remedy = "`wardrobe train run CONFIG --resume` goes on with it"
        raise JobRefused(subject, "is a run of `train run`, which no worker takes in hand", remedy)
    if status.state is not RunState.RUNNING:
        raise JobRefused(subject, f"is {status.state.value}", f"only a running one can be {event.value}")
    if status.owner.host != this_host():
        raise Conflict(subject, "runs on another machine", "give the command there")
    try:
        os.kill(status.owner.pid, signal.SIGTERM)
        if event is JobEvent.CANCELLED:
            time.sleep(_BETWEEN_SIGNALS_SECONDS)
            os.kill(status.owner.pid, signal.SIGTERM)
    except ProcessLookupError:
        return "has just ended"
    except PermissionError as error:
        raise StorageFailed(subject, "is another user's process", "be that user") from error
    stops = "ends now" if event is JobEvent.CANCELLED else "stops behind its step with a checkpoint"
    return f"{stops}; `wardrobe train run CONFIG --resume` goes on with it"
