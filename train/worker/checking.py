"""Whether a job can be trained: its files read as training reads them, before anybody waits for a device.

Owns OpenAI's codes for what is wrong with a job's files. Invariants: a job that passes here begins to train;
the job keeps copies of its own, so a file that is deleted meanwhile changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NotFound, UsageError, WardrobeError
from registry.storage import disk, files
from registry.tuning.jobs import TuningJob
from registry.tuning.machine import JobEvent
from train.prepared import PreparedRun
from train.process.allowance import OutOfTime, processor_allowance
from train.worker.outcome import TaskOutcome
from train.worker.settings import EXTRAS, make_config, resolved

if TYPE_CHECKING:
    from registry.store import Registry

LEAST_ROWS = 10
"""OpenAI's own lower limit."""
PATIENCE_SECONDS = 60.0
"""What a stranger's schemas and texts may take, beyond what the file's size explains."""
MOST_STEPS = 50
"""Steps between two checkpoints at most: a checkpoint takes less than a second."""
DATA = "data"
_TRAIN, _HELD_OUT = "train.jsonl", "eval.jsonl"
_PARAMS = {_TRAIN: "training_file", _HELD_OUT: "validation_file"}
_WARNED, _NAMED = 10, 5


class JobRefusal(Exception):
    """A job that cannot be trained: OpenAI's code, sentence and parameter."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        self.code, self.message, self.param = code, message, param
        super().__init__(message)

    def outcome(self) -> TaskOutcome:
        """Return the end of the job."""
        return TaskOutcome.failed(self.code, self.message, self.param)


def check(job: TuningJob, registry: Registry, patience_seconds: float = PATIENCE_SECONDS) -> TaskOutcome:
    """Look at a job's files and settings; tell what the run will be.

    What only warns takes as long as reading the rows did, and `patience_seconds` of processors more.

    Raises: JobRefusal; StorageFailed.
    """
    began = time.process_time()
    run = prepared(job, registry)
    allowed = time.process_time() - began + patience_seconds
    facts: dict[str, Any] = {
        "rows": run.duration.rows,
        "steps": run.duration.steps,
        "tokens": run.duration.tokens,
        "hyperparameters": resolved(run.config),
        "warnings": list(_warnings(run, allowed)),
    }
    return TaskOutcome(JobEvent.VALIDATED, "Files validated, moving job to queued state", facts)


def prepared(job: TuningJob, registry: Registry) -> PreparedRun:
    """Return a job's run, every row rendered and every limit checked, with its checkpoints placed.

    Raises: JobRefusal; StorageFailed.
    """
    from train.runs.run import prepare

    train = _own_copy(job, registry, job.request.training_file, _TRAIN, "training_file")
    held_out = None
    if job.request.validation_file is not None:
        held_out = _own_copy(job, registry, job.request.validation_file, _HELD_OUT, "validation_file")
    _count_rows(train)
    try:
        config = make_config(job.request, train, held_out)
        run = prepare(config, registry)
        run = with_checkpoints(run)
    except UsageError as error:
        raise _refused(error) from error
    if not any(item.learnt for item in run.items) and not run.config.method.draws_answers:
        message = "Training file has no token to learn: every answer has weight 0 or is cut off"
        raise JobRefusal("no_trainable_tokens", message, "training_file")
    return run


def with_checkpoints(run: PreparedRun) -> PreparedRun:
    """Return the run with a checkpoint after each tenth, unless its settings say when.

    A killed run loses at most that, and at most `MOST_STEPS` steps.
    """
    if run.config.checkpoints.every is not None:
        return run
    every = max(1, min(MOST_STEPS, run.duration.steps // 10))
    checkpoints = run.config.checkpoints.model_copy(update={"every": every})
    return replace(run, config=run.config.model_copy(update={"checkpoints": checkpoints}))


def _own_copy(job: TuningJob, registry: Registry, file: str, name: str, param: str) -> Path:
    target = job.folder / DATA / name
    if disk.exists(target):
        return target
    try:
        source = registry.catalogue.files.content(file)
        staged = target.with_name(f".{name}.copying")
        files.make_directory(target.parent)
        files.remove(staged)
        files.copy_new(source, staged)
        files.move(staged, target)
    except NotFound as error:
        code = f"invalid_{param}"
        raise JobRefusal(code, f"File {file} does not exist any more", param) from error
    return target


def _count_rows(path: Path) -> None:
    with path.open("rb") as file:
        rows = 0
        for line in file:
            rows += bool(line.strip())
            if rows >= LEAST_ROWS:
                return
    message = f"Training file has {rows} example(s), but must have at least {LEAST_ROWS} examples"
    raise JobRefusal("invalid_n_examples", message, "training_file")


def _refused(error: UsageError) -> JobRefusal:
    """Return the refusal in OpenAI's words where a file is at fault, in ours where a setting is."""
    for name, param in _PARAMS.items():
        _, found, row = error.subject.partition(name)
        if found:
            kind = param.partition("_")[0]
            what = f"Example{row.replace(' row', '')}" if row.strip() else "It"
            fact = (
                f"{what} {error.fact}" if not error.fact.startswith("the line") else f"{what}: {error.fact}"
            )
            message = (
                f"The job failed due to a file format error in the {kind} file. Invalid file format. {fact}"
            )
            return JobRefusal(
                f"invalid_{param}", message + (f"; {error.remedy}" if error.remedy else ""), param
            )
    return JobRefusal("invalid_hyperparameters", str(error), error.param or EXTRAS)


def _warnings(run: PreparedRun, allowed_seconds: float) -> Iterator[str]:
    yield from run.warnings
    for name, report in run.reports.items():
        if report.truncated:
            rows = ", ".join(map(str, report.truncated[:5]))
            yield (
                f"{name}: {len(report.truncated)} rows are longer than {run.config.training.max_length} "
                f"tokens and lose their end (rows {rows}{', …' if len(report.truncated) > 5 else ''})"
            )
    try:
        with processor_allowance(allowed_seconds):
            found = list(_findings(run))
        yield from found
    except WardrobeError as error:
        yield f"the data check ended: {error}"
    except OutOfTime:
        yield f"the data check was given up after {allowed_seconds:.0f} s: a tool's schema may be the reason"


def _findings(run: PreparedRun) -> Iterator[str]:
    """Yield what `wardrobe data check` finds wrong that training itself takes: leaks, secrets, repeats."""
    from train.dataset.checks.acceptance import checked_acceptance
    from train.dataset.checks.check import check_files

    data = run.config.data
    reading = data.readings[data.train[0].label]  # a job has one source, and held-out rows of the same form
    acceptance = checked_acceptance(data.accept)
    checked = check_files(list(data.files.values()), reading=reading, acceptance=acceptance)
    for found in checked.findings[:_WARNED]:
        where = _places([checked.ledger.locate(place) for place in found.places[:_NAMED]], found.count)
        yield f"{found.rule.id}: {found.rule.title} ({where}); {found.rule.remedy}"


def _places(rows: Sequence[tuple[str, int]], count: int) -> str:
    """Return rows in words, by the names that the job's files have, not by where they lie."""
    told = ", ".join(f"{_PARAMS[Path(file).name]} row {row}" for file, row in rows)
    return told if count <= len(rows) else f"{told} and {count - len(rows)} more"
