"""A worker: takes jobs in hand, has each done by a process of its own, follows the log, writes how it ended.

Owns the order of all that. Light itself: it imports nothing that trains. Invariants: one training at a time
on its device, beside it one look at another job's files; whatever the log says of a job in its hands is
obeyed within a turn; what a task did counts only while the worker still has the job in hand; a worker that
ends by itself leaves no process behind and no job in its hands.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.background import PeriodicWork
from registry.entries.openai.tuned import TunedModels
from registry.errors import ClaimLost, CorruptStore, JobRefused, NotFound, StorageFailed
from registry.storage import disk, files
from registry.storage.root import Root
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.liveness import Owner, this_process
from registry.tuning.machine import JobEvent, JobState
from registry.tuning.queue import Claimable, TuningQueue
from registry.tuning.records import JobEntry, owner_facts
from registry.tuning.workers import BEAT_SECONDS, WorkerBeat, Workers, new_worker_id
from train.worker.device import DeviceLock
from train.worker.outcome import TaskKind, TaskOutcome, forget_outcome, read_outcome
from train.worker.process import TaskProcess

if TYPE_CHECKING:
    from pydantic import JsonValue

TURN_SECONDS = 0.25
SWEEP_SECONDS = 60.0
CRASHES = 3
"""So often may a job's own process die without a word before the job has failed."""
LOG = "worker.log"
LEFT = ("data", "result", "work", "checkpoints")
"""Folders of a job that are of no use once it has ended."""

_HAS_IT = frozenset({JobState.VALIDATING, JobState.RUNNING})

Program = Callable[[TuningJob, TaskKind], Sequence[str]]
"""The command line that does a task of a job."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is and how it starts tasks; `environment` is of every task, beside what is inherited.

    `on_start` is called with each task's process, `on_stop` before one is asked to stop.
    """

    device: str
    program: Program
    environment: Mapping[str, str] = field(default_factory=dict)
    on_start: Callable[[int, TaskKind], None] = lambda _pid, _kind: None
    on_stop: Callable[[int], None] = lambda _pid: None
    notice: Callable[[str], None] = lambda _text: None


@dataclass(slots=True)
class _InHand:
    """A job that this worker claimed, and the process that does it."""

    job: TuningJob
    kind: TaskKind
    process: TaskProcess


class TuningWorker:
    """One worker of a root."""

    def __init__(
        self, root: Root, options: WorkerOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.id = new_worker_id()
        self._root, self._options, self._clock = root, options, clock
        self._jobs, self._workers = TuningJobs(root), Workers(root)
        self._queue = TuningQueue(self._jobs, self._workers)
        self._device = DeviceLock(root.path, options.device)
        self._owner: Owner = this_process()
        self._tasks: dict[TaskKind, _InHand] = {}
        self._loose: list[TuningJob] = []
        self._beaten = self._swept = float("-inf")

    @property
    def idle(self) -> bool:
        """Tell whether it has no job in hand."""
        return not self._tasks

    def run(self, stopping: Callable[[], bool], *, once: bool = False) -> None:
        """Work until `stopping` says so or, with `once`, until no job waits; then let go of what is in hand.

        What fails for a while (a root that is away, a full disk) is told and tried again.
        """
        work = PeriodicWork("worker", self.turn, TURN_SECONDS)
        try:
            while not stopping():
                try:
                    self.turn()
                    work.succeed()
                    if once and self.idle and not self._waits():
                        break
                except (StorageFailed, CorruptStore) as error:
                    work.fail(error)
                time.sleep(work.pause)
        finally:
            self.close()

    def turn(self) -> None:
        """Do what is due: beat, look after the jobs in hand, take others.

        Raises: StorageFailed; CorruptStore.
        """
        self._beat()
        self._sweep()
        while self._loose:
            self._let_go(self._loose[0])
            self._loose.pop(0)
        for task in list(self._tasks.values()):
            self._look_after(task)
        if TaskKind.CHECK not in self._tasks:
            self._take(TaskKind.CHECK, self._queue.to_validate())
        if TaskKind.TRAIN not in self._tasks and self._device.acquire():
            self._take(TaskKind.TRAIN, self._queue.to_train())
            if TaskKind.TRAIN not in self._tasks:
                self._device.release()

    def close(self) -> None:
        """Have every task stop behind its step, let go of its job, and forget this worker."""
        for task in self._tasks.values():
            self._stop(task)
        while self._tasks:
            for task in list(self._tasks.values()):
                try:
                    self._beat()
                    self._look_after(task)
                except (StorageFailed, CorruptStore) as error:
                    # Its process has ended, so whoever looks finds the claim of a dead worker.
                    self._options.notice(str(error))
                    self._drop(task)
            time.sleep(TURN_SECONDS / 5)
        self._device.release()
        with contextlib.suppress(StorageFailed):
            self._workers.remove(self.id)

    def _waits(self) -> bool:
        return bool(self._jobs.in_state(JobState.VALIDATING, JobState.QUEUED, JobState.RUNNING))

    def _beat(self) -> None:
        if self._clock() - self._beaten >= BEAT_SECONDS:
            training = self._tasks.get(TaskKind.TRAIN)
            job = training.job.id if training else None
            beat = WorkerBeat(self.id, self._owner, self._options.device, job, time.time())
            self._workers.beat(beat)
            self._beaten = self._clock()

    def _take(self, kind: TaskKind, found: Claimable | None) -> None:
        if found is None:
            return
        job, last = found
        facts: dict[str, JsonValue] = {
            "owner": owner_facts(self._owner), "device": self._options.device, "task": kind.value
        }  # fmt: skip
        message = _words(job, kind, last)
        try:
            self._append(job, JobEvent.CLAIMED, message, facts, expected_seq=last.seq)
        except (ClaimLost, JobRefused):
            return  # another one was faster
        self._loose.append(job)  # nobody works on it yet: what fails from here on must not keep it in hand
        self._tasks[kind] = _InHand(job, kind, self._start(job, kind))
        self._loose.remove(job)
        self._options.notice(f"{job.id}: {message}")

    def _start(self, job: TuningJob, kind: TaskKind) -> TaskProcess:
        forget_outcome(job.folder)
        held = self._device.descriptor
        inherited = [held] if kind is TaskKind.TRAIN and held is not None else []
        process = TaskProcess(
            self._options.program(job, kind),
            job.folder / LOG,
            environment=self._options.environment,
            inherited=inherited,
        )
        self._options.on_start(process.pid, kind)
        return process

    def _look_after(self, task: _InHand) -> None:
        if task.process.ended() is not None:
            self._conclude(task)
            return
        last = task.job.last()
        if last.worker != self.id or last.state.final:
            task.process.kill()
            self._conclude(task)
        elif last.state not in _HAS_IT:
            self._stop(task)

    def _stop(self, task: _InHand) -> None:
        if not task.process.asked:
            self._options.on_stop(task.process.pid)
            task.process.stop()

    def _conclude(self, task: _InHand) -> None:
        """Write how a task ended, unless the job has ended otherwise or is in other hands."""
        job = task.job
        outcome = read_outcome(job.folder) or self._wordless(task)
        try:
            self._append(job, outcome.event, outcome.message, outcome.facts)
            self._options.notice(f"{job.id}: {outcome.message}")
        except ClaimLost:
            pass  # whoever has it in hand goes on from what is there
        except JobRefused:
            self._let_go(job)
        self._drop(task)
        self._clear(job)

    def _let_go(self, job: TuningJob) -> None:
        """Let go of a job that somebody paused or cancelled before its task had ended."""
        with contextlib.suppress(ClaimLost, JobRefused):
            self._append(job, JobEvent.RELEASED, "let go", {})

    def _clear(self, job: TuningJob) -> None:
        """Remove what is of no use once a job has ended, and the names of one that was cancelled."""
        state = job.last().state
        if not state.final:
            return
        if state is JobState.CANCELLED:
            self._take_back_names(job)
        for name in LEFT:
            files.remove_tree(job.folder / name)

    def _take_back_names(self, job: TuningJob) -> None:
        tuned = TunedModels(self._root)
        for model in tuned.survey()[0].values():
            if model.job == job.id:
                with contextlib.suppress(NotFound):  # by another worker
                    tuned.remove(model.name, who=job.request.who)

    def _sweep(self) -> None:
        """Clear up after workers that were killed, and forget them."""
        if self._clock() - self._swept < SWEEP_SECONDS:
            return
        self._swept = self._clock()
        self._workers.tidy()
        for job in self._jobs.all():
            last = job.last()
            left = any(disk.exists(job.folder / name) for name in LEFT)
            if last.state.final and left and not self._workers.holds(job, last):
                self._clear(job)

    def _drop(self, task: _InHand) -> None:
        self._tasks.pop(task.kind, None)
        if task.kind is TaskKind.TRAIN:
            self._device.release()

    def _wordless(self, task: _InHand) -> TaskOutcome:
        """Return what follows where a task left no word."""
        if task.process.asked:
            return TaskOutcome(JobEvent.RELEASED, "stopped before the first step")
        ended = f"its process ended with {task.process.ended()} and left no word (see {LOG})"
        crashes = 1 + sum(bool(entry.facts.get("crashed")) for entry in task.job.log())
        if crashes < CRASHES:
            return TaskOutcome(JobEvent.RELEASED, f"{ended}; it is begun again", {"crashed": True})
        return TaskOutcome.failed("server_error", f"{ended}, for the {crashes}. time")

    def _append(
        self,
        job: TuningJob,
        event: JobEvent,
        message: str,
        facts: Mapping[str, JsonValue],
        expected_seq: int | None = None,
    ) -> JobEntry:
        return job.append(
            event, who=self.id, worker=self.id, message=message, facts=facts, expected_seq=expected_seq
        )


def _words(job: TuningJob, kind: TaskKind, last: JobEntry) -> str:
    asked = job.request
    if kind is TaskKind.CHECK:
        beside = f" and validation file: {asked.validation_file}" if asked.validation_file else ""
        return f"Validating training file: {asked.training_file}{beside}"
    if last.state is JobState.RUNNING:
        return "Fine-tuning job goes on: the worker that had it in hand is gone"
    return "Fine-tuning job started"
