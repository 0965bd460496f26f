"""Two processes train one job: one of them speaks, writes and publishes, the other follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from tests.train.tiny import make_tiny_base, write_rows
from train.jobs.records import RunState
from train.jobs.store import Jobs
from train.process import launching

WARDROBE = Path(sys.executable).parent / "wardrobe"


def test_the_first_process_says_which_job_and_the_others_hear_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not launching.follows()
    launching.announce("j1", None)  # a run of one process: nobody listens
    monkeypatch.setenv(launching.MEETING, str(tmp_path / "job.json"))
    assert not launching.follows()
    launching.announce("j1", 40)
    monkeypatch.setenv("RANK", "1")
    assert launching.follows()
    assert launching.await_announcement() == ("j1", 40)


def test_a_process_that_is_gone_is_told_from_other_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = RuntimeError("Read error [127.0.0.1]:20384: Connection reset by peer")
    assert not launching.is_lost_process(gone)  # a run of one process has no other
    monkeypatch.setenv(launching.MEETING, "job.json")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launching.is_lost_process(gone)
    assert not launching.is_lost_process(RuntimeError("shapes differ"))


@pytest.mark.training
@pytest.mark.timeout(600)
def test_two_processes_make_one_version_and_one_record(tmp_path: Path, tokenizer: Any) -> None:
    write_rows(tmp_path)
    root = tmp_path / "root"
    registry = Registry.init(root, make_tiny_base(tmp_path / "base", tokenizer), name="tiny-base")
    document = {
        "name": "both",
        "data": {"train": "rows.jsonl", "eval": "held-out.jsonl"},
        "training": {"steps": 4, "batch_size": 2, "max_length": 64},
        "checkpoints": {"every": 2, "keep_finished": True},
    }
    (tmp_path / "both.json").write_text(json.dumps(document))
    options = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [WARDROBE, "--root", root, "train", "run", tmp_path / "both.json", "--json", "--"]
    done = subprocess.run(
        [*map(str, command), *options.split()],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert (told["adapter"], told["version"], told["steps"]) == ("both", 1, 4)
    assert [version.number for version in registry.versions("both")] == [1]
    (job,) = Jobs(root).all()
    assert job.status().state is RunState.SUCCEEDED
    assert [line["step"] for line in job.lines("metrics.jsonl") if "loss" in line] == [1, 2, 3, 4]
    names = {path.name for path in (job.checkpoints / "2").iterdir()}
    assert {"weights.safetensors", "rng_state_0.pth", "rng_state_1.pth"} <= names
