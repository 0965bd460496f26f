"""Real training by a real worker on a tiny base: killed in the middle, gone on with, published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from registry.entries.openai.tuned import CHECKPOINT
from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent, JobState
from tests.fakes.tuning import tuning_request
from tests.train.tiny import make_tiny_base
from train.worker.checking import JobRefusal, check

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Colour number {n}?"},
            {"role": "assistant", "content": "green"},
        ]
    }
    for n in range(12)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base", tokenizer)


@pytest.fixture
def registry(tmp_path: Path, base: Path) -> Registry:
    return Registry.init(tmp_path / "root", base, name="tiny-base")


def ask(registry: Registry, rows: list[Any], held_out: list[Any] | None = None, **changes: Any) -> TuningJob:
    def upload(content: list[Any]) -> str:
        lines = "".join(f"{json.dumps(row)}\n" for row in content).encode()
        return registry.catalogue.files.create("fine-tune", "rows.jsonl", [lines], who="alice").id

    changes["training_file"] = upload(rows)
    changes["validation_file"] = None if held_out is None else upload(held_out)
    return TuningJobs(registry.catalogue.root).create(tuning_request(**changes))


def worker(registry: Registry) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "train.process.launching", "--root", str(registry.root)]
    return subprocess.Popen([*command, "train", "worker", "--once", "--device", "cpu"])


def test_a_job_whose_worker_is_killed_goes_on_from_its_newest_checkpoint(registry: Registry) -> None:
    extras = {"training": {"steps": 120, "batch_size": 2}, "checkpoints": {"every": 10}, "lora": {"rank": 4}}
    job = ask(registry, ROWS, ROWS[:3], extras=extras)
    first = worker(registry)
    checkpoints = job.folder / "checkpoints"
    while not (checkpoints.exists() and any(path.name.isdigit() for path in checkpoints.iterdir())):
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    job.append(JobEvent.PAUSED, who="alice")
    job.append(JobEvent.RESUMED, who="alice")
    assert worker(registry).wait() == 0
    last = job.last()
    assert last.state is JobState.SUCCEEDED, last.message
    status = json.loads((job.folder / "status.json").read_text())
    assert status["resumed"]
    steps = [line["step"] for line in map(json.loads, _lines(job)) if line.get("kind") != "evaluation"]
    assert steps == list(range(1, 121))
    names = {one.name for one in registry.catalogue.tuned.survey()[0].values()}
    assert job.request.tuned_name in names
    assert {name.rpartition(CHECKPOINT)[2] for name in names if CHECKPOINT in name} == {"100", "110"}
    assert last.facts["trained_tokens"]


def _lines(job: TuningJob) -> list[str]:
    return (job.folder / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        (
            ROWS[:9],
            "invalid_n_examples",
            "Training file has 9 example(s), but must have at least 10 examples",
        ),
        (
            [*ROWS[:10], {"messages": [{"role": "user", "content": "x"}]}],
            "invalid_training_file",
            "Example 11",
        ),
        ([*ROWS[:10], {"text": "x"}], "invalid_training_file", "Example 11"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_openais_words(
    rows: list[Any], code: str, words: str, registry: Registry
) -> None:
    with pytest.raises(JobRefusal) as refused:
        check(ask(registry, rows), registry)
    assert (refused.value.code, refused.value.param) == (code, "training_file")
    assert words in refused.value.message


def test_a_held_out_row_and_a_setting_are_told_apart_from_the_rows_that_are_trained(
    registry: Registry,
) -> None:
    with pytest.raises(JobRefusal) as refused:
        check(ask(registry, ROWS, [{"text": "x"}]), registry)
    assert (refused.value.code, refused.value.param) == ("invalid_validation_file", "validation_file")
    with pytest.raises(JobRefusal) as refused:
        check(ask(registry, ROWS, extras={"lora": {"rank": 64}}), registry)
    assert refused.value.code == "invalid_hyperparameters"


def test_what_a_run_will_be_is_told_before_it_begins(registry: Registry) -> None:
    found = check(ask(registry, ROWS, ROWS[:2]), registry)
    assert (found.facts["rows"], found.facts["steps"]) == (12, 6)
    assert any("D-LEAK" in str(one) for one in found.facts["warnings"])  # type: ignore[union-attr]


def test_a_file_that_was_deleted_meanwhile_is_told(registry: Registry) -> None:
    job = ask(registry, ROWS)
    registry.catalogue.files.delete(job.request.training_file)
    with pytest.raises(JobRefusal, match="does not exist any more"):
        check(job, registry)
