"""A real short run on the real base becomes a version, again the same one with the same seed."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from train.epoch.rows import hash_file
from train.jobs.records import RunState
from train.jobs.store import Jobs

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]

WARDROBE = Path(sys.executable).parent / "wardrobe"
ROWS = 24
STEPS = 8


@pytest.fixture(scope="module")
def root(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root on the real base."""
    root = tmp_path_factory.mktemp("training") / "root"
    Registry.init(root, base_folder, name="smollm2")
    return root


@pytest.fixture(scope="module")
def config(root: Path) -> Path:
    rows = [{"prompt": f"Colour number {n}?", "completion": "emerald green"} for n in range(ROWS)]
    (root.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "name": "colours",
        "data": {"train": "rows.jsonl", "eval": "rows.jsonl"},
        "lora": {"rank": 8, "dropout": 0.05},
        "training": {"steps": STEPS, "batch_size": 4, "max_length": 64, "learning_rate": 2e-3},
        "seed": 5,
    }
    path = root.parent / "config.json"
    path.write_text(json.dumps(document))
    return path


def wardrobe(root: Path, *arguments: str | Path) -> Any:
    command = [str(WARDROBE), "--root", str(root), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(root: Path, config: Path) -> Any:
    return wardrobe(root, "train", "run", config)


def test_the_loss_falls_and_the_result_is_a_version(root: Path, first: Any) -> None:
    assert (first["adapter"], first["version"], first["created"]) == ("colours", 1, True)
    assert first["steps"] == STEPS
    assert first["last_loss"] < first["first_loss"] / 4
    assert first["eval_loss"] < first["first_loss"] / 4
    registry = Registry.open(root)
    version = registry.version("colours", 1)
    assert version.digest == first["digest"]
    assert registry.aliases("colours") == {"stable": 1}
    assert {file.path for file in version.files} == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_lineage_says_what_it_was_made_from(root: Path, config: Path, first: Any) -> None:
    registry = Registry.open(root)
    (entry,) = registry.attestations("colours", first["version"], "lineage")
    body: Any = entry.body
    data = body["data"]["train"]
    assert data["sha256"] == hash_file(root.parent / "rows.jsonl")
    assert data["rows"] == ROWS
    assert body["seed"] == 5
    assert body["base"]["fingerprint"] == registry.base.fingerprint
    assert body["config"]["lora"]["rank"] == 8
    assert {"torch", "transformers", "peft", "trl"} <= set(body["packages"])
    losses = body["losses"]["steps"]
    assert len(losses) == STEPS
    assert all(math.isfinite(loss) for loss in losses)


def test_another_seed_gives_another_digest_and_another_version(root: Path, config: Path, first: Any) -> None:
    document = json.loads(config.read_text())
    other = config.with_name("other-seed.json")
    other.write_text(json.dumps({**document, "seed": 6}))
    told = wardrobe(root, "train", "run", other)
    assert told["digest"] != first["digest"]
    assert told["version"] == 2
    assert Registry.open(root).aliases("colours") == {"stable": 1}


def test_out_keeps_the_same_adapter_in_a_folder_and_registers_nothing(
    root: Path, config: Path, first: Any
) -> None:
    target = root.parent / "kept"
    before = [version.number for version in Registry.open(root).versions("colours")]
    told = wardrobe(root, "train", "run", config, "--out", target)
    assert (told["version"], told["out"]) == (None, str(target))
    assert [version.number for version in Registry.open(root).versions("colours")] == before
    published = wardrobe(root, "register", "colours", target)
    assert (published["digest"], published["version"], published["created"]) == (first["digest"], 1, False)


def start(root: Path, config: Path) -> subprocess.Popen[str]:
    """Start a run of its own that writes a checkpoint every second step; return once the first is there."""
    command = [str(WARDROBE), "--root", str(root), "train", "run", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list((root / "jobs").glob("*/checkpoints/2")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.fixture
def interruptible(root: Path, config: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A fresh root on the same base, and the same plan with checkpoints."""
    document = json.loads(config.read_text())
    document["checkpoints"] = {"every": 2}
    document["data"] = {name: str(config.parent / path) for name, path in document["data"].items()}
    path = tmp_path / "interruptible.json"
    path.write_text(json.dumps(document))
    Registry.init(tmp_path / "root", Registry.open(root).base.path, name="smollm2")
    return tmp_path / "root", path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_registers_nothing_and_says_how_to_go_on(
    interruptible: tuple[Path, Path], first: Any, number: signal.Signals
) -> None:
    root, config = interruptible
    process = start(root, config)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "nothing was registered" in errors
    (job,) = Jobs(root).all()
    assert f"--resume` goes on from step {job.steps_kept[-1]}" in errors
    assert job.status().state is RunState.INTERRUPTED
    assert Registry.open(root).adapters() == []
    if number is signal.SIGTERM:
        told = wardrobe(root, "train", "run", config, "--resume")
        assert (told["digest"], told["job"]) == (first["digest"], job.id)


def test_a_killed_run_goes_on_to_the_same_digest_which_is_the_version_that_is_there(
    interruptible: tuple[Path, Path], root: Path, first: Any
) -> None:
    fresh, config = interruptible
    process = start(fresh, config)
    process.kill()
    process.communicate()
    (job,) = Jobs(fresh).all()
    assert job.status().state is RunState.INTERRUPTED
    Registry.open(fresh).publish("colours", Registry.open(root).version("colours", 1).path, who="test")
    told = wardrobe(fresh, "train", "run", config, "--resume")
    assert (told["digest"], told["version"], told["created"]) == (first["digest"], 1, False)
    assert job.status().resumed == (2,)
