"""What is told of a training's progress."""

from __future__ import annotations

import json
from pathlib import Path

from serve.tuning.progress import read_progress, read_recent

STEPS = 5_000


def test_the_pace_goes_by_the_last_steps_and_only_they_are_read(tmp_path: Path) -> None:
    lines = [
        {"step": step, "loss": 1.0, "seconds": 9.0 if step < STEPS - 30 else 2.0} for step in range(STEPS)
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 5')  # the trainer is writing
    (tmp_path / "status.json").write_text(json.dumps({"steps": STEPS + 9}))
    whole, recent = read_progress(tmp_path), read_recent(tmp_path)
    assert len(whole.lines) == STEPS
    assert 20 < len(recent.lines) < STEPS / 5
    assert recent.seconds_left() == whole.seconds_left() == 20.0


def test_a_training_that_told_nothing_has_no_pace(tmp_path: Path) -> None:
    assert read_recent(tmp_path).seconds_left() is None
