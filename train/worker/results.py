"""What a finished training leaves: a version, its checkpoints' versions, the result file, the `ft:` names.

Owns the order of these writes. Invariants: what was trained is decided once, by the rename of `result/`, so
whoever comes after a killed worker publishes the same bytes; each write is done again without harm; the name
comes last, so that it never leads to what is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.entries.openai.files import FilePurpose
from registry.entries.openai.ids import derived_id
from registry.entries.openai.tuned import CHECKPOINT, TunedModel
from registry.errors import Occupied, WardrobeError
from registry.storage import disk, files
from registry.storage.entry import Entry, encode
from registry.tuning.jobs import TuningJob
from registry.tuning.machine import JobEvent
from train.jobs.store import METRICS
from train.worker.outcome import TaskOutcome
from train.worker.settings import publishes

if TYPE_CHECKING:
    from pydantic import JsonValue

    from registry.store import Registry

RESULT, ADAPTER, FACTS = "result", "adapter", "facts.json"
FILENAME = "step_metrics.csv"
HEADER = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"


@dataclass(frozen=True, slots=True)
class TrainedResult:
    """What a job trained: a folder with the adapter, its checkpoints by their steps, and `facts.json`."""

    folder: Path
    lineage: Mapping[str, JsonValue]
    tokens: int
    hyperparameters: Mapping[str, JsonValue]
    summary: Mapping[str, JsonValue]

    @classmethod
    def find(cls, job: TuningJob) -> TrainedResult | None:
        """Return what the job trained, None where it has not come so far.

        Raises: CorruptStore; StorageFailed.
        """
        folder = job.folder / RESULT
        if not disk.exists(folder):
            return None
        entry = Entry.read(folder / FACTS)
        return cls(
            folder,
            entry.mapping("lineage"),
            entry.integer("tokens"),
            entry.mapping("hyperparameters"),
            entry.mapping("summary"),
        )

    @property
    def checkpoints(self) -> list[int]:
        """Return the steps of the checkpoints that are kept, ascending."""
        return disk.numbers(self.folder)


def keep_result(
    job: TuningJob,
    trained: Path,
    checkpoints: Mapping[int, Path],
    facts: Mapping[str, JsonValue],
) -> TrainedResult:
    """Make what was trained the job's result, unless there is one; return what it is.

    `checkpoints` are adapter folders by their steps. Raises: StorageFailed.
    """
    staged = trained.parent / RESULT
    files.remove_tree(staged)
    files.make_directory(staged)
    files.move(trained, staged / ADAPTER)
    for step, folder in checkpoints.items():
        files.move(folder, staged / str(step))
    files.replace(staged / FACTS, encode(facts))
    try:
        files.move(staged, job.folder / RESULT)
    except Occupied:
        files.remove_tree(staged)  # another worker was faster: what it trained is the result
    found = TrainedResult.find(job)
    assert found is not None
    return found


def publish_result(job: TuningJob, registry: Registry, trained: TrainedResult) -> TaskOutcome:
    """Publish what was trained, and its checkpoints; tell how the job ended.

    Raises: WardrobeError: it cannot be registered.
    """
    request = job.request
    facts: dict[str, Any] = {
        "trained_tokens": trained.tokens,
        "hyperparameters": dict(trained.hyperparameters),
        "result_files": [_result_file(job, registry)],
    }
    if not publishes(request):
        return TaskOutcome(JobEvent.SUCCEEDED, "The adapter was trained and, as asked, not published", facts)
    goal = request.extras.get("goal") is not None  # nothing leads to it before the gate has passed
    version = registry.publish(
        request.adapter,
        trained.folder / ADAPTER,
        who=request.who,
        alias=None if goal else _text(request.extras.get("alias")),
        no_stable=goal,
        note=_text(request.extras.get("note")) or job.id,
        lineage=trained.lineage,
    ).version
    facts |= {"version": version.number, "digest": version.digest, "fine_tuned_model": request.tuned_name}
    kept = {}
    for step in trained.checkpoints:
        note = f"{job.id} after step {step}"
        published = registry.publish(
            request.adapter, trained.folder / str(step), who=request.who, no_stable=True, note=note
        )
        kept[str(step)] = published.version.number
    facts["checkpoints"] = kept
    return TaskOutcome(JobEvent.SUCCEEDED, f"New fine-tuned model created: {request.tuned_name}", facts)


def name_result(job: TuningJob, registry: Registry, outcome: TaskOutcome) -> None:
    """Give the published version, and those of its checkpoints, the job's `ft:` names.

    Raises: Conflict: a name leads elsewhere; StorageFailed.
    """
    name, number = job.request.tuned_name, outcome.facts.get("version")
    kept = outcome.facts.get("checkpoints")
    for step, version in kept.items() if isinstance(kept, Mapping) else ():
        if isinstance(version, int):
            _name(job, registry, version, f"{name}{CHECKPOINT}{step}")
    if isinstance(number, int):
        _name(job, registry, number, name)


def metrics_csv(lines: Iterator[Mapping[str, Any]]) -> bytes:
    """Return OpenAI's result file of the lines of `metrics.jsonl`: one row for each step."""
    rows: dict[int, dict[str, Any]] = {}
    for line in lines:
        step = line.get("step")
        if not isinstance(step, int):
            continue
        row = rows.setdefault(step, {})
        if line.get("kind") == "evaluation":
            row["valid_loss"] = line.get("eval_loss")
        else:
            row |= {"train_loss": line.get("loss"), "train_accuracy": line.get("mean_token_accuracy")}
    names = HEADER.split(",")[1:]
    told = [
        ",".join([str(step), *(_cell(row.get(name)) for name in names)]) for step, row in sorted(rows.items())
    ]
    return "\n".join([HEADER, *told, ""]).encode()


def checkpoint_adapter(weights: Path, final: Path, out: Path) -> bool:
    """Write the adapter folder `out` of a checkpoint's weights, shaped as the `final` one; tell if it fits.

    It does not where what is trained is no plain LoRA: then nothing is written.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(final / "adapter_model.safetensors", framework="pt") as found:
        names = set(found.keys())
        kinds = {name: found.get_tensor(name).dtype for name in names}
    saved = {name.replace(".default.", "."): value for name, value in load_file(weights).items()}
    if set(saved) != names:
        return False
    out.mkdir(parents=True)
    (out / "adapter_config.json").write_bytes((final / "adapter_config.json").read_bytes())
    save_file(
        {name: value.to(kinds[name]).contiguous() for name, value in saved.items()},
        out / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    return True


def _result_file(job: TuningJob, registry: Registry) -> str:
    request = job.request
    info = registry.catalogue.files.create(
        FilePurpose.FINE_TUNE_RESULTS,
        FILENAME,
        [metrics_csv(_lines(job.folder / METRICS))],
        who=request.who,
        file_id=derived_id("file-", request.created, job.id, FILENAME),
    )
    return info.id


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not disk.exists(path):
        return
    for line in disk.read(path).splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if isinstance(value, dict):
            yield value


def _name(job: TuningJob, registry: Registry, number: int, name: str) -> None:
    request = job.request
    version = registry.version(request.adapter, number)
    made = float(request.created)
    model = TunedModel(name, version.adapter, version.number, version.digest, job.id, request.who, made)
    registry.catalogue.tuned.add(model)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _cell(value: object) -> str:
    return f"{value:.5f}" if isinstance(value, float) else "" if value is None else str(value)


def named_failure(error: WardrobeError) -> str:
    """Return the job's code for an error of ours."""
    return _CODES.get(error.code, error.code)


_CODES = {
    "invalid_adapter": "adapter_not_servable",
    "wardrobe_error": "training_failed",
    "invalid_request": "invalid_hyperparameters",
}
