"""What the demo trains: three short runs whose budgets fit two cores, and how a finished one is known again.

Invariant: a recipe's key covers its rows and its settings, and is kept in the note of the version, so a
second run of the demo asks the registry itself what is there already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.data import DemoRow, DemoTask, write_rows

# One pass: on two cores the whole demo has about five minutes for all three runs.
TRAINING: Mapping[str, object] = {
    "learning_rate": 5e-4,
    "epochs": 1,
    "batch_size": 8,
    "max_length": 256,
    "schedule": "linear",
    "warmup": 0.05,
}


@dataclass(frozen=True, slots=True)
class DemoTraining:
    """One training: the first `rows` training rows of `task`."""

    task: DemoTask
    rows: int

    @property
    def train(self) -> tuple[DemoRow, ...]:
        """Return the rows that are trained on."""
        return self.task.train[: self.rows]

    @property
    def key(self) -> str:
        """Return a short hash of all that decides the result."""
        told = json.dumps(
            [self.task.instruction, [(row.text, row.label) for row in self.train], self._settings]
        )
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def note(self) -> str:
        """Return the note that the version is registered with."""
        return f"demo {self.key}: {len(self.train)} rows"

    def write(self, folder: Path) -> Path:
        """Write the rows and the config into `folder`; return the config file."""
        data = folder / f"{self.task.name}-{len(self.train)}.jsonl"
        write_rows(self.task, self.train, data)
        config = folder / f"{self.task.name}-{len(self.train)}.json"
        document = {**self._settings, "data": {"train": data.name}, "note": self.note}
        config.write_text(json.dumps(document, indent=2) + "\n")
        return config

    @property
    def _settings(self) -> dict[str, object]:
        return {"name": self.task.name, "lora": {"rank": 16}, "training": dict(TRAINING), "seed": 0}
