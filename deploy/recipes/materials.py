"""The files of a recipe: rows, suites and configs, written from a task of the demo.

Owns what each training of a recipe gets. Invariant: held-out rows are in the suites alone; validation rows
(for the curves) are whole groups of the training side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.demo.data import DemoRow, DemoTask, split, write_rows

SHARES = (0.25, 0.5, 1.0)
SHOTS = 8
# Training rows lie above the held-out share of the split's hash; this takes the next tenth or so.
_VALIDATION_PLACE = {"medical": 0.28, "legal": 0.325}

TRAINING: Mapping[str, object] = {
    "learning_rate": 5e-4,
    "epochs": 2,
    "batch_size": 8,
    "max_length": 256,
    "schedule": "cosine",
    "warmup": 0.05,
}
LORA: Mapping[str, object] = {"rank": 16}
SAMPLING: Mapping[str, object] = {"temperature": 0, "max_tokens": 12}


@dataclass(frozen=True, slots=True)
class Materials:
    """A task's rows for a recipe: `train` are learnt, `validation` draws the curves, `spare` make pairs."""

    task: DemoTask
    train: tuple[DemoRow, ...]
    validation: tuple[DemoRow, ...]
    spare: tuple[DemoRow, ...]

    @classmethod
    def of(cls, task: DemoTask, larger: DemoTask) -> Materials:
        """Divide the task's training rows; `spare` are those of `larger` that the task leaves out."""
        train, validation = split(task.train, share=_VALIDATION_PLACE[task.name])
        used = {row.text for row in (*task.train, *task.held_out)}
        spare = [row for row in larger.train if row.text not in used]
        return cls(task, tuple(train), tuple(validation), tuple(spare))

    def part(self, share: float) -> tuple[DemoRow, ...]:
        """Return the first `share` of the training rows; every beginning is nearly balanced."""
        return self.train[: round(len(self.train) * share)]

    def write_suites(self, folder: Path) -> dict[str, Path]:
        """Write the suites `plain` (as the adapter is trained) and `helped` (labels listed, examples)."""
        task, labels = self.task, list(self.task.labels)
        items = [
            {"id": str(number), "prompt": row.text, "expected": row.label, "tags": {"label": row.label}}
            for number, row in enumerate(task.held_out, start=1)
        ]
        write_lines(folder / "held-out.jsonl", items)
        shots = [{"prompt": row.text, "expected": row.label} for row in self.train[: max(SHOTS, len(labels))]]
        write_lines(folder / "shots.jsonl", shots)
        listed = f"{task.instruction} Answer with one of: {', '.join(labels)}."
        return {
            "plain": self._suite(folder, "plain", task.instruction, labels),
            "helped": self._suite(folder, "helped", listed, labels),
        }

    def _suite(self, folder: Path, kind: str, system: str, labels: list[str]) -> Path:
        path = folder / f"{kind}.yaml"
        document = {
            "name": f"{self.task.name}-{kind}",
            "items": "held-out.jsonl",
            "shots": "shots.jsonl",
            "system": system,
            "sampling": dict(SAMPLING),
            "slices": ["label"],
            "graders": [
                {"type": "accuracy", "labels": labels},
                {"type": "macro_f1", "labels": labels},
                {"type": "stops"},
            ],
        }
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return path

    def write_config(self, folder: Path, name: str, share: float, **changes: object) -> Path:
        """Write the rows and the config of one supervised run; `changes` replace whole sections."""
        rows = folder / f"{name}.jsonl"
        write_rows(self.task, self.part(share), rows)
        validation = folder / "validation.jsonl"
        write_rows(self.task, self.validation, validation)
        data = {"train": rows.name, "eval": validation.name, **_section(changes.pop("data", None))}
        training = {**TRAINING, **_section(changes.pop("training", None))}
        return write_config(
            folder,
            name,
            {"name": self.task.name, "lora": dict(LORA), "data": data, "training": training, **changes},
        )


def write_config(folder: Path, name: str, document: Mapping[str, object]) -> Path:
    """Write a config whose note is a digest of it and of its rows, so a finished run is known again."""
    data = document["data"]
    assert isinstance(data, dict)
    rows = (folder / str(data["train"])).read_bytes()
    told = json.dumps(document, sort_keys=True).encode() + rows
    note = f"recipe {name} {hashlib.sha256(told).hexdigest()[:12]}"
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**document, "note": note}, sort_keys=False), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _section(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}
