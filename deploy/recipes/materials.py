"""The files of a recipe: rows, suites and configurations, written from a task of the examples.

Invariant: held-out rows are in the suites alone; validation rows (for the curves) are whole groups of the
training side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.examples.rows import DemoRow, split
from deploy.examples.tasks import DemoTask, write_rows

SHOTS = 8
# Training rows lie above the held-out share of the split's hash; this takes the next tenth or so.
_VALIDATION_PLACE = {"medical": 0.28, "legal": 0.325}
_TRAINING = {
    "learning_rate": 5e-4, "epochs": 2, "batch_size": 8, "max_length": 256, "schedule": "cosine",
    "warmup": 0.05,
}  # fmt: skip
_PREFERENCES = {"learning_rate": 2e-5, "epochs": 1, "batch_size": 4, "max_length": 256}


@dataclass(frozen=True, slots=True)
class Materials:
    """A task's rows for a recipe: `train` are learnt, `validation` draws the curves, `spare` make pairs.

    Everything is written into `folder`.
    """

    folder: Path
    task: DemoTask
    train: tuple[DemoRow, ...]
    validation: tuple[DemoRow, ...]
    spare: tuple[DemoRow, ...]

    @classmethod
    def of(cls, folder: Path, task: DemoTask, larger: DemoTask) -> Materials:
        """Divide the task's training rows; `spare` are those of `larger` that the task leaves out."""
        train, validation = split(task.train, share=_VALIDATION_PLACE[task.name])
        used = {row.text for row in (*task.train, *task.held_out)}
        spare = tuple(row for row in larger.train if row.text not in used)
        return cls(folder, task, tuple(train), tuple(validation), spare)

    @property
    def shots(self) -> int:
        """Return how many examples the base gets: at least one of each label."""
        return max(SHOTS, len(self.task.labels))

    def part(self, share: float) -> tuple[DemoRow, ...]:
        """Return the first `share` of the training rows; every beginning is nearly balanced."""
        return self.train[: round(len(self.train) * share)]

    def suites(self) -> tuple[Path, Path]:
        """Write the held-out rows as two suites: as the adapter is trained, and with the labels listed."""
        labels = list(self.task.labels)
        shots = [{"prompt": row.text, "expected": row.label} for row in self.train[: self.shots]]
        write_lines(self.folder / "shots.jsonl", shots)
        graders = [{"type": name, "labels": labels} for name in ("accuracy", "macro_f1")]
        more = {"shots": "shots.jsonl", "slices": ["label"], "graders": [*graders, {"type": "stops"}]}
        plain, listed = self.task.instruction, self.task.helped_messages(self.task.held_out[0])[0]["content"]
        return (
            self.suite("plain", self.task.held_out, system=plain, **more),
            self.suite("helped", self.task.held_out, system=listed, **more),
        )

    def suite(self, name: str, rows: Sequence[DemoRow], **more: object) -> Path:
        """Write a suite of rows and return its path."""
        items = [
            {"id": str(number), "prompt": row.text, "expected": row.label, "tags": {"label": row.label}}
            for number, row in enumerate(rows, start=1)
        ]
        sampling = {"temperature": 0, "max_tokens": 12}
        return write_suite(self.folder, f"{self.task.name}-{name}", items, sampling=sampling, **more)

    def supervised(self, name: str, share: float, **data: object) -> tuple[Path, str]:
        """Write the rows and the configuration of one supervised run; return its path and its note."""
        write_rows(self.task, self.part(share), self.folder / f"{name}.jsonl")
        write_rows(self.task, self.validation, self.folder / "validation.jsonl")
        data = {"train": f"{name}.jsonl", "eval": "validation.jsonl", **data}
        return self._config(name, {"lora": {"rank": 16}, "data": data, "training": _TRAINING})

    def preferences(self, start: str) -> tuple[Path, str]:
        """Write the configuration of a preference run on `pairs.jsonl` from the version `start`."""
        method = {"type": "dpo", "beta": 0.1, "supervised_weight": 0.2}
        document = {"from": start, "method": method, "data": {"train": "pairs.jsonl"}}
        return self._config("dpo", {**document, "training": _PREFERENCES})

    def _config(self, name: str, document: Mapping[str, object]) -> tuple[Path, str]:
        """Write a configuration; its note is a digest of it and its rows: a finished run is known again."""
        document = {"name": self.task.name, **document}
        rows = (self.folder / document["data"]["train"]).read_bytes()  # type: ignore[index]
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode() + rows).hexdigest()[:12]
        path, note = self.folder / f"{name}.yaml", f"recipe {name} {digest}"
        path.write_text(yaml.safe_dump({**document, "note": note}, sort_keys=False))
        return path, note


def write_suite(folder: Path, name: str, items: Sequence[Mapping[str, object]], **document: object) -> Path:
    """Write a suite and its items; return its path."""
    write_lines(folder / f"{name}.items.jsonl", items)
    path = folder / f"{name}.yaml"
    document = {"name": name, "items": f"{name}.items.jsonl", **document}
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
