"""A job's folder holds what was asked for and how it went, and tells a dead run from a living one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import JsonValue

from registry.cli.main import run as wardrobe
from registry.errors import Conflict, NotFound
from registry.store import Registry
from tests.fakes.base import base_record, make_base
from tests.train.tiny import Watcher
from train.config import TrainConfig
from train.epoch.duration import Epoch, duration_of
from train.epoch.items import ItemFile
from train.epoch.mixture import Mixture
from train.jobs.plan import make_plan
from train.jobs.records import RunState
from train.jobs.store import Job, Jobs
from train.prepared import PreparedRun
from train.runs.session import RunOptions, open_job


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"name": "support", "data": {"train": "rows.jsonl"}, **changes})


def make_job(root: Path, **changes: object) -> Job:
    base = base_record(make_base(root / "base"))
    asked = config(**changes)
    plan = make_plan(asked, base, {"train": "ab"})
    document: dict[str, JsonValue] = asked.model_dump(mode="json", by_alias=True)
    return Jobs(root).create("support", "supervised", "tiny", document, plan, who="tester")


def test_a_run_leaves_its_steps_its_evaluations_and_its_end(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.begin()
    assert job.status().state is RunState.RUNNING
    job.advance(1, 2, 40, {"step": 1, "loss": 2.0})
    job.evaluated({"step": 1, "eval_loss": 1.5}, [{"step": 1, "prompt": "Hi", "answer": "Ho"}])
    job.advance(2, 2, 80, {"step": 2, "loss": 1.0})
    job.end(RunState.SUCCEEDED, version=3, digest="sha256:ab")
    detail = Jobs(tmp_path).find(job.id).detail()
    assert (detail.status.state, detail.status.step, detail.status.tokens) == (RunState.SUCCEEDED, 2, 80)
    assert detail.status.version == 3
    assert detail.last_step is not None
    assert detail.last_step.items() >= {"step": 2, "loss": 1.0}.items()
    assert isinstance(detail.last_step["at"], float)
    assert [one["eval_loss"] for one in detail.evaluations] == [1.5]
    assert detail.samples == [{"step": 1, "prompt": "Hi", "answer": "Ho"}]
    assert detail.config["seed"] == 0


def test_what_was_written_behind_the_checkpoint_is_taken_back(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.begin()
    for step in range(1, 6):
        job.advance(step, 9, step, {"step": step, "loss": 1.0})
    job.end(RunState.INTERRUPTED)
    with (job.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    again = Jobs(tmp_path).find(job.id)
    again.begin(resumed_from=4)
    again.end(RunState.SUCCEEDED)
    assert [line["step"] for line in again.lines("metrics.jsonl")] == [1, 2, 3, 4]
    assert again.status().resumed == (4,)


def test_a_process_that_died_leaves_an_interrupted_job(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    # A process of its own, not a fork: threads do not survive one.
    code = (
        "import os, sys; from pathlib import Path; from train.jobs.records import Description; "
        "from train.jobs.store import Job; folder = Path(sys.argv[1]); "
        "Job(folder, Description.model_validate_json((folder / 'job.json').read_text())).begin(); "
        "os._exit(9)"
    )
    died = subprocess.run([sys.executable, "-c", code, str(job.folder)], check=False)
    assert died.returncode == 9
    status = job.status()
    assert (status.state, status.error) == (RunState.INTERRUPTED, "its process ended without a word")
    assert json.loads((job.folder / "status.json").read_text())["state"] == "running"


def test_going_on_says_when_no_interrupted_run_has_a_checkpoint(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.begin()
    job.end(RunState.INTERRUPTED)
    said: list[str] = []
    run = PreparedRun(
        config=config(data={"train": str(tmp_path / "rows.jsonl")}),
        root=tmp_path,
        base=base_record(tmp_path / "base"),
        files={"train": ItemFile(())},
        mixture=Mixture((), {}),
        duration=duration_of(config(), Epoch(1, 1)),
    )
    (tmp_path / "rows.jsonl").touch()
    open_job(run, RunOptions("tester", Watcher(), resume=True, notice=said.append))
    assert said == ["support: no interrupted run has a checkpoint; starting afresh"]


def test_a_plan_is_settings_and_content_and_not_names_and_paths(tmp_path: Path) -> None:
    base = base_record(make_base(tmp_path / "base"))
    plan = make_plan(config(), base, {"train": "ab"})
    moved = config(
        name="other", note="hm", data={"train": "elsewhere.jsonl"}, tracking={"to": ["prometheus"]}
    )
    assert make_plan(moved, base, {"train": "ab"}) == plan
    changed = make_plan(config(training={"epochs": 2}), base, {"train": "cd"}, "sha256:ef")
    assert changed.digest != plan.digest
    assert changed.differences(plan) == [
        "training.epochs is 2.0, was 3.0",
        "the content of data file train has changed",
        "the version that it starts from is another one",
    ]


def test_a_job_is_found_by_a_part_of_its_id_that_fits_one_only(tmp_path: Path) -> None:
    first, second = make_job(tmp_path), make_job(tmp_path, seed=1)
    for job in (first, second):
        job.begin()
        job.end(RunState.FAILED, error="x")
    jobs = Jobs(tmp_path)
    assert jobs.find(first.id[-6:]).id == first.id
    with pytest.raises(NotFound, match="wardrobe train jobs"):
        jobs.find("zzz")
    with pytest.raises(Conflict, match="fits 2 jobs"):
        jobs.find(first.id[:4])


def test_the_commands_list_and_show_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    make_base(tmp_path / "model")
    Registry.init(root, tmp_path / "model", name="tiny")
    assert wardrobe(["--root", str(root), "train", "jobs"]) == 0
    assert "no training has run" in capsys.readouterr().err
    job = make_job(root)
    job.begin()
    job.advance(3, 9, 30, {"step": 3, "loss": 0.5})
    job.evaluated({"step": 3, "eval_loss": 0.25}, [])
    job.end(RunState.FAILED, error="it broke")
    (root / "jobs" / "metrics").mkdir()
    assert wardrobe(["--root", str(root), "train", "jobs"]) == 0
    listed = capsys.readouterr().out
    assert job.id in listed
    assert "failed" in listed
    assert wardrobe(["--root", str(root), "train", "show", job.id]) == 0
    shown = capsys.readouterr().out
    assert "failed: it broke" in shown
    assert "held-out loss 0.2500" in shown
    assert wardrobe(["--root", str(root), "train", "show", job.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["step"] == 3
    assert wardrobe(["--root", str(root), "train", "show", "nothing"]) == 1
