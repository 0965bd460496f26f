"""A run that was stopped, killed or refused by the disk goes on with the same bytes, and its job says so."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Conflict, StorageFailed, WardrobeError
from registry.store import Registry
from tests.train.small_runs import write_small_run
from tests.train.tiny import Watcher, make_tiny_base, tiny_config, train, write_rows
from train.config import load_config
from train.jobs.records import RunState
from train.jobs.store import Job, Jobs
from train.loop.attempt import Stopped

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base", tokenizer)


@pytest.fixture
def registry(tmp_path: Path, base: Path) -> Registry:
    write_rows(tmp_path)
    return Registry.init(tmp_path / "root", base, name="tiny-base")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, base: Path) -> str:
    """The digest of the run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("reference")
    write_rows(folder)
    finished = train(Registry.init(folder / "root", base, name="tiny-base"), tiny_config(folder))
    assert finished.published is not None
    return finished.published.version.digest


def newest(registry: Registry) -> Job:
    return Jobs(registry.root).all()[0]


def stop_at(registry: Registry, config: Any, step: int, **wish: Any) -> None:
    asked: list[int] = []

    def on_step(done: int) -> None:
        if done == step:
            asked.append(done)

    with pytest.raises(Stopped):
        train(registry, config, Watcher(on_step), stopping=lambda: bool(asked), **wish)


# Epochs have 6 steps: within the first, at its end, at the next one's beginning, within it.
@pytest.mark.parametrize("step", [3, 5, 6, 8])
def test_a_run_that_was_stopped_and_goes_on_gives_the_same_digest(
    registry: Registry, tmp_path: Path, reference: str, step: int
) -> None:
    config = tiny_config(tmp_path)
    stop_at(registry, config, step)
    job = newest(registry)
    assert job.status().state is RunState.INTERRUPTED
    kept = job.steps_kept[-1]
    assert kept in {step, step + 1}
    watcher = Watcher()
    finished = train(registry, config, watcher, resume=True)
    assert finished.published is not None
    assert finished.published.version.digest == reference
    assert watcher.steps == list(range(kept + 1, 13))
    assert (finished.result.steps, finished.result.resumed) == (12, (kept,))
    status = newest(registry).status()
    assert (status.state, status.version, status.resumed) == (RunState.SUCCEEDED, 1, (kept,))
    steps = [line["step"] for line in job.lines("metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, 13))
    assert job.steps_kept == []


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("training", {"optimiser": "adamw_8bit"}),
        ("training", {"grouping": "random", "accumulation": 2}),
        ("training", {"schedule": "cosine", "weight_decay": 0.1, "gradient_checkpointing": True}),
    ],
)
def test_other_optimisers_and_orders_go_on_with_the_same_bytes_too(
    registry: Registry, tmp_path: Path, section: str, change: dict[str, Any]
) -> None:
    config = tiny_config(tmp_path, **{section: change})
    whole = train(registry, config)
    stop_at(registry, config, 7)
    finished = train(registry, config, resume=True)
    assert finished.published is not None
    assert whole.published is not None
    assert finished.published.version.digest == whole.published.version.digest
    assert finished.result.losses == whole.result.losses


def test_a_killed_process_leaves_an_interrupted_job_that_goes_on_with_the_same_digest(
    registry: Registry, tmp_path: Path, reference: str
) -> None:
    # A process of its own, not a fork: torch's threads do not survive one.
    command = [sys.executable, "-m", "tests.train.killed", str(registry.root), str(tmp_path), "7"]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    job = newest(registry)
    assert job.status().state is RunState.INTERRUPTED
    assert job.status().error == "its process ended without a word"
    assert job.steps_kept == [4]
    finished = train(registry, tiny_config(tmp_path), resume=True)
    assert finished.published is not None
    assert finished.published.version.digest == reference


def test_another_plan_is_refused_with_the_key_that_differs(registry: Registry, tmp_path: Path) -> None:
    stop_at(registry, tiny_config(tmp_path), 5)
    other = tiny_config(tmp_path, lora={"rank": 8})
    with pytest.raises(Conflict, match=r"another plan: lora\.rank is 8, was 4; put it back"):
        train(registry, other, resume=True)
    rows = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(rows.replace("emerald", "crimson"))
    with pytest.raises(Conflict, match="the content of data file train has changed"):
        train(registry, tiny_config(tmp_path), resume=True)


def test_without_resume_the_interrupted_job_is_named_and_a_fresh_one_begins(
    registry: Registry, tmp_path: Path, reference: str
) -> None:
    stop_at(registry, tiny_config(tmp_path), 5)
    said: list[str] = []
    finished = train(registry, tiny_config(tmp_path), notice=said.append)
    assert len(said) == 1
    assert "was interrupted at step" in said[0]
    assert finished.result.resumed == ()
    assert finished.published is not None
    assert finished.published.version.digest == reference
    assert [job.status().state for job in Jobs(registry.root).all()] == [
        RunState.SUCCEEDED,
        RunState.INTERRUPTED,
    ]


def test_a_half_written_checkpoint_is_never_gone_on_from(registry: Registry, tmp_path: Path) -> None:
    stop_at(registry, tiny_config(tmp_path), 5)
    job = newest(registry)
    before = job.steps_kept
    whole = job.checkpoints / str(before[-1])
    torn = job.checkpoints / ".11.writing"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes((whole / "weights.safetensors").read_bytes()[:100])
    assert job.steps_kept == before
    finished = train(registry, tiny_config(tmp_path), resume=True)
    assert finished.result.resumed == (before[-1],)


def test_a_full_disk_is_a_clear_error_and_keeps_the_earlier_checkpoint(
    registry: Registry, tmp_path: Path, reference: str
) -> None:
    config = tiny_config(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int) -> None:
        if step == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    try:
        with pytest.raises(StorageFailed, match=r"checkpoint of step 8 could not.*`--resume` .* step 4"):
            train(registry, config, Watcher(fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    job = newest(registry)
    assert job.status().state is RunState.INTERRUPTED
    assert job.steps_kept == [4]
    finished = train(registry, config, resume=True)
    assert finished.published is not None
    assert finished.published.version.digest == reference


def test_a_run_that_fails_is_failed_with_its_error_and_registers_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, training={"learning_rate": 1e-300})
    with pytest.raises(WardrobeError, match="changed no weight"):
        train(registry, config)
    status = newest(registry).status()
    assert status.state is RunState.FAILED
    assert "changed no weight" in str(status.error)
    assert registry.adapters() == []
    assert newest(registry).steps_kept == []


def test_only_the_newest_checkpoints_and_the_best_stay(registry: Registry, tmp_path: Path) -> None:
    checkpoints = {"every": 2, "keep": 2, "best_by": "eval_loss", "keep_finished": True}
    finished = train(registry, tiny_config(tmp_path, checkpoints=checkpoints))
    best = finished.result.taken
    kept = finished.job.steps_kept
    assert set(kept) >= {best} - {12}
    assert len(kept) <= 3


def test_watching_changes_no_byte(registry: Registry, tmp_path: Path, reference: str) -> None:
    config = tiny_config(
        tmp_path,
        evaluation={"every": 2, "samples": ["Colour 3?"], "sample_tokens": 4},
        guards={"longest_first": False},
        checkpoints={"every": 3},
    )
    finished = train(registry, config)
    assert finished.published is not None
    assert finished.published.version.digest == reference
    answers = list(finished.job.lines("samples.jsonl"))
    assert [line["step"] for line in answers] == [2, 4, 6, 8, 10, 12]
    assert {line["prompt"] for line in answers} == {"Colour 3?"}


@pytest.mark.parametrize("method", ["dpo", "rloo", "grpo"])
def test_preference_and_reinforcement_runs_go_on_with_the_same_bytes(
    registry: Registry, tmp_path: Path, method: str
) -> None:
    changes: dict[str, Any] = {"training": {"steps": 6, "batch_size": 8, "learning_rate": 1e-2}}
    if method != "dpo":
        # Six random tokens hold two e's about as often as not.
        changes["method"] = {"reward": {"graders": [{"type": "regex", "pattern": "e.*e"}]}}
    config = load_config(write_small_run(tmp_path, method, **changes))
    whole = train(registry, config)
    stop_at(registry, config, 4)
    finished = train(registry, config, resume=True)
    assert finished.result.resumed == (newest(registry).status().resumed[0],)
    assert finished.result.losses == whole.result.losses
    assert finished.published is not None
    assert whole.published is not None
    assert finished.published.version.digest == whole.published.version.digest


def test_a_checkpoint_that_is_due_by_time_is_written_whatever_the_settings_say(
    registry: Registry, tmp_path: Path, reference: str
) -> None:
    """A killed run loses that much, however long a tenth of it is; what it gives in the end is the same."""
    config = tiny_config(tmp_path, checkpoints={"every": None})

    def end(done: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(registry, config, Watcher(end))
    assert newest(registry).steps_kept == []
    with pytest.raises(KeyboardInterrupt):
        train(registry, config, Watcher(end), save_seconds=0.0)
    assert newest(registry).steps_kept
    finished = train(registry, config, resume=True)
    assert finished.published is not None
    assert finished.published.version.digest == reference
