"""Answers kept while a run goes on, so that an interrupted one goes on where it stopped.

Owns one JSON Lines file beside the run's folder. Invariants: an answer is used again only for the same suite,
arm, version and question; failed answers are asked again; a line that a killed process left half is passed
over; the file is gone when the run's folder is there.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train.evaluation.formats.suites import Suite
from train.evaluation.grading.grades import ModelAnswer
from train.evaluation.runner import EvaluatedArm


class AnswerJournal:
    """The answers of a run under way; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.with_name(f"{folder.name}.answers.jsonl")
        self._lock = threading.Lock()
        self._known = _read(self._path)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, suite: Suite, arm: EvaluatedArm, index: int) -> ModelAnswer | None:
        """Return the answer that an earlier, interrupted run got."""
        return self._known.get(_key(suite, arm, index))

    def add(self, suite: Suite, arm: EvaluatedArm, index: int, sample: ModelAnswer) -> None:
        """Keep an answer; one that failed is not kept."""
        if sample.error is not None:
            return
        line = json.dumps({"key": _key(suite, arm, index), "sample": asdict(sample)})
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def finish(self) -> None:
        """Remove the file: the run's folder holds everything."""
        self._path.unlink(missing_ok=True)


def _key(suite: Suite, arm: EvaluatedArm, index: int) -> str:
    return json.dumps([suite.sha256, arm.label, arm.model.name, arm.digest, arm.shots, index])


def _read(path: Path) -> dict[str, ModelAnswer]:
    found: dict[str, ModelAnswer] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row: dict[str, Any] = json.loads(line)
                found[row["key"]] = ModelAnswer.read(row["sample"])
            except (ValueError, KeyError, TypeError):
                continue
    return found
