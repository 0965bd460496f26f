"""The folders `<root>/jobs/<id>/`: made, found, and written while a run goes on.

    job.json            what was asked for (never changed)
    status.json         state, step, error, result; replaced every few seconds
    metrics.jsonl       one line per step and per evaluation; samples.jsonl: answers to the sample prompts
    checkpoints/<step>/ what the run can go on from; reward/ what a reward run made; tensorboard/ events

Invariants: only the owner writes; a run that was killed is read as interrupted, by its process and not by a
guess (`registry.tuning.liveness`); lines behind the checkpoint that a run goes on from are taken back.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import JsonValue, ValidationError

from registry.errors import Conflict, CorruptStore, Missing, NotFound
from registry.storage import disk, files
from registry.tuning.liveness import is_alive, this_process
from train.jobs.plan import RunPlan
from train.jobs.records import Description, JobDetail, JobDocument, RunState, Status

FOLDER = "jobs"
METRICS, SAMPLES, CHECKPOINTS, REWARD = "metrics.jsonl", "samples.jsonl", "checkpoints", "reward"
_DESCRIPTION, _STATUS = "job.json", "status.json"
_BEAT_SECONDS = 5.0
SILENCE_SECONDS = 60.0
"""So long may a run on another machine be silent before it counts as dead."""


class Job:
    """One job's folder. Whoever runs it calls `begin` first and `end` last."""

    def __init__(self, folder: Path, description: Description) -> None:
        self.folder = folder
        self.description = description
        self._pending: dict[str, list[bytes]] = {}
        self._lock = threading.Lock()
        self._status: Status | None = None
        self._ended = threading.Event()
        self._beat: threading.Thread | None = None

    @property
    def id(self) -> str:
        """Return its name."""
        return self.description.id

    @property
    def checkpoints(self) -> Path:
        """Return the folder of its checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def steps_kept(self) -> list[int]:
        """Return the steps that it can go on from, ascending."""
        return disk.numbers(self.checkpoints)

    def status(self) -> Status:
        """Return how far it is; a run whose process is gone is interrupted.

        Raises: CorruptStore; StorageFailed.
        """
        path = self.folder / _STATUS
        try:
            found = Status.model_validate_json(disk.read(path))
        except (Missing, ValidationError) as error:
            raise CorruptStore(str(path), "holds no status", "remove the job's folder") from error
        age = time.time() - found.updated_at
        if found.state is RunState.RUNNING and not is_alive(found.owner, age, SILENCE_SECONDS):
            return found.model_copy(
                update={
                    "state": RunState.INTERRUPTED,
                    "error": found.error or "its process ended without a word",
                }
            )
        return found

    def is_interrupted(self) -> bool:
        """Tell a run that can go on; of one whose status is damaged that cannot be told.

        Raises: StorageFailed.
        """
        try:
            return self.status().state is RunState.INTERRUPTED
        except CorruptStore:
            return False

    def begin(self, resumed_from: int | None = None) -> None:
        """Take the job for this process, and take back what was written behind the step it goes on from.

        Raises: StorageFailed.
        """
        resumed: tuple[int, ...] = ()
        if resumed_from is not None:
            resumed = (*self.status().resumed, resumed_from)
            for name in (METRICS, SAMPLES):
                self._cut(name, resumed_from)
        self._status = Status(
            state=RunState.RUNNING,
            owner=this_process(),
            updated_at=time.time(),
            step=resumed_from or 0,
            resumed=resumed,
        )
        self._write()
        self._beat = threading.Thread(target=self._renew, name=f"beat {self.id}", daemon=True)
        self._beat.start()

    def advance(self, step: int, steps: int, tokens: int, line: Mapping[str, JsonValue]) -> None:
        """Take note of one step; it is on the disk within a few seconds, or at `flush`."""
        self._change(step=step, steps=steps, tokens=tokens)
        self._add(METRICS, {"at": round(time.time(), 3), **line})

    def evaluated(self, line: Mapping[str, JsonValue], samples: list[dict[str, JsonValue]]) -> None:
        """Take note of one evaluation, and of the answers to the sample prompts."""
        self._add(METRICS, {"at": round(time.time(), 3), "kind": "evaluation", **line})
        for sample in samples:
            self._add(SAMPLES, sample)

    def flush(self) -> None:
        """Write every line that is still in memory.

        Raises: StorageFailed.
        """
        with self._lock:
            pending, self._pending = self._pending, {}
        try:
            for name in list(pending):
                files.append_lines(self.folder / name, b"".join(pending[name]))
                del pending[name]
        finally:
            with self._lock:  # what could not be written waits for the next time
                for name, lines in pending.items():
                    self._pending[name] = lines + self._pending.get(name, [])

    def end(self, state: RunState, **facts: Any) -> None:
        """Write how it ended; of `Status`, any field may be given. Later calls change nothing.

        Raises: StorageFailed.
        """
        if self._ended.is_set() or self._status is None:
            return
        self._ended.set()
        if self._beat is not None:
            self._beat.join(timeout=_BEAT_SECONDS)
        self._change(state=state, **facts)
        self.flush()
        self._write()

    def drop_checkpoints(self) -> None:
        """Remove its checkpoints: it will not go on."""
        files.remove_tree(self.checkpoints)

    def forget(self) -> None:
        """Remove what an earlier attempt measured: the next one begins at the first step."""
        for name in (METRICS, SAMPLES):
            files.remove(self.folder / name)

    def document(self) -> JobDocument:
        """Return what `train jobs` tells of it."""
        told = self.description.model_dump(exclude={"config", "plan"})
        return JobDocument(**told, folder=str(self.folder), checkpoints=self.steps_kept, status=self.status())

    def detail(self) -> JobDetail:
        """Return everything that is known of it."""
        lines = list(self.lines(METRICS))
        steps = [line for line in lines if line.get("kind") != "evaluation"]
        return JobDetail(
            **self.document().model_dump(),
            config=self.description.config,
            evaluations=[line for line in lines if line.get("kind") == "evaluation"],
            last_step=steps[-1] if steps else None,
            samples=list(self.lines(SAMPLES)),
        )

    def lines(self, name: str) -> Iterator[dict[str, JsonValue]]:
        """Yield the lines of `metrics.jsonl` or `samples.jsonl`; one that a kill tore is passed over."""
        try:
            data = disk.read(self.folder / name)
        except Missing:
            return
        for line in data.splitlines():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value

    def _cut(self, name: str, step: int) -> None:
        kept = [line for line in self.lines(name) if int(str(line.get("step", 0))) <= step]
        files.replace(self.folder / name, b"".join(_encode(line) for line in kept))

    def _add(self, name: str, line: Mapping[str, JsonValue]) -> None:
        with self._lock:
            self._pending.setdefault(name, []).append(_encode(line))

    def _change(self, **facts: Any) -> None:
        with self._lock:
            assert self._status is not None
            self._status = self._status.model_copy(update=facts)

    def _write(self) -> None:
        with self._lock:
            assert self._status is not None
            self._status = self._status.model_copy(update={"updated_at": time.time()})
            data = self._status.model_dump_json(indent=2).encode()
        files.replace(self.folder / _STATUS, data)

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            try:
                self.flush()
                self._write()
            except Exception as error:  # noqa: BLE001  the run itself meets a full disk at its next write
                with self._lock:
                    if self._status is not None:
                        self._status = self._status.model_copy(update={"error": str(error)})


class Jobs:
    """All jobs of a root."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER

    def create(
        self,
        adapter: str,
        method: str,
        base: str,
        config: dict[str, JsonValue],
        plan: RunPlan,
        *,
        who: str,
        id: str | None = None,  # noqa: A002  the word of the records
    ) -> Job:
        """Make the folder of a new job; one whose `id` is given may be there, and is described anew.

        Raises: StorageFailed.
        """
        now = time.time()
        name = id or f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}"
        description = Description(
            id=name, adapter=adapter, method=method, base=base, who=who, created_at=now,
            config=config, plan=plan, plan_sha256=plan.digest,
        )  # fmt: skip
        folder = self._folder / name
        files.make_directory(folder)
        files.replace(folder / _DESCRIPTION, description.model_dump_json(indent=2).encode())
        return Job(folder, description)

    def all(self) -> list[Job]:
        """Return every job that has begun, the newest first.

        Raises: StorageFailed.
        """
        found = [job for name in disk.names(self._folder) if (job := self._open(name)) is not None]
        return sorted(found, key=lambda job: (job.description.created_at, job.id), reverse=True)

    def find(self, name: str) -> Job:
        """Return a job by its id, or by the only beginning or end of an id that fits.

        Raises: NotFound; Conflict: several fit.
        """
        return the_only(self.all(), name)

    def known(self, id: str) -> Job | None:  # noqa: A002
        """Return the job of exactly that id, None where it has not begun.

        Raises: StorageFailed.
        """
        return self._open(id)

    def interrupted(self, adapter: str) -> list[Job]:
        """Return the interrupted jobs of an adapter that have a checkpoint, the newest first."""
        return [
            job
            for job in self.all()
            if job.description.adapter == adapter and job.is_interrupted() and job.steps_kept
        ]

    def _open(self, name: str) -> Job | None:
        folder = self._folder / name
        try:
            description = Description.model_validate_json(disk.read(folder / _DESCRIPTION))
        except (Missing, CorruptStore, disk.NotAFolder, ValidationError):
            return None  # another kind of folder (metrics/), or one whose maker died at its first step
        return Job(folder, description) if disk.exists(folder / _STATUS) else None


class _Named(Protocol):
    @property
    def id(self) -> str: ...


_OneJob = TypeVar("_OneJob", bound=_Named)


def the_only(jobs: Sequence[_OneJob], name: str) -> _OneJob:
    """Return the job of that id, or the only one whose id begins or ends so.

    Raises: NotFound; Conflict: several fit.
    """
    fitting = [job for job in jobs if job.id == name] or [
        job for job in jobs if name and (job.id.startswith(name) or job.id.endswith(name))
    ]
    if not fitting:
        raise NotFound(f"job {name}", "does not exist", "list them with `wardrobe train jobs`")
    if len(fitting) > 1:
        raise Conflict(f"job {name}", f"fits {len(fitting)} jobs", "give the whole id")
    return fitting[0]


def _encode(line: Mapping[str, JsonValue]) -> bytes:
    return json.dumps(dict(line), ensure_ascii=False).encode() + b"\n"
