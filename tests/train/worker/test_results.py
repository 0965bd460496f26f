"""What a finished training leaves: decided once, published once, named last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.entries.openai.tuned import CHECKPOINT
from registry.errors import WardrobeError
from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from tests.fakes.adapters import make_adapter
from tests.fakes.store import make_registry
from tests.fakes.tuning import queued_job
from train.worker.results import (
    TrainedResult,
    keep_result,
    metrics_csv,
    name_result,
    named_failure,
    publish_result,
)

FACTS: dict[str, Any] = {"lineage": {}, "tokens": 7, "hyperparameters": {"n_epochs": 3}, "summary": {}}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


def finished(
    registry: Registry, folder: Path, seed: int = 1, **changes: Any
) -> tuple[TuningJob, TrainedResult]:
    jobs = TuningJobs(registry.catalogue.root)
    job = queued_job(jobs, **changes)
    return job, trained(job, folder, seed)


def trained(job: TuningJob, folder: Path, seed: int) -> TrainedResult:
    work = folder / f"work-{seed}"
    work.mkdir()
    adapter = make_adapter(work / "adapter", seed=seed)
    checkpoint = make_adapter(work / "checkpoint", seed=seed + 100)
    return keep_result(job, adapter, {4: checkpoint}, FACTS)


def names(registry: Registry) -> set[str]:
    return set(registry.catalogue.tuned.survey()[0])


def test_of_two_workers_that_trained_one_job_the_first_ones_result_is_published(
    registry: Registry, tmp_path: Path
) -> None:
    job, first = finished(registry, tmp_path, seed=1)
    version = publish_result(job, registry, first).facts["version"]
    second = trained(job, tmp_path, seed=2)
    assert second == first == TrainedResult.find(job)
    again = publish_result(job, registry, second)
    assert again.facts["version"] == version
    assert len(registry.versions(job.request.adapter)) == 2  # the result and its checkpoint


def test_names_come_last_and_lead_to_the_version_and_its_checkpoints(
    registry: Registry, tmp_path: Path
) -> None:
    job, result = finished(registry, tmp_path)
    outcome = publish_result(job, registry, result)
    assert names(registry) == set()
    for _ in range(2):
        name_result(job, registry, outcome)
    name = job.request.tuned_name
    assert names(registry) == {name, f"{name}{CHECKPOINT}4"}
    facts = outcome.facts
    assert registry.catalogue.tuned.find(name).version == facts["version"]
    assert facts["checkpoints"] == {"4": registry.catalogue.tuned.find(f"{name}{CHECKPOINT}4").version}
    assert (facts["trained_tokens"], facts["hyperparameters"]) == (7, {"n_epochs": 3})


def test_what_is_not_to_be_published_becomes_no_version(registry: Registry, tmp_path: Path) -> None:
    job, result = finished(registry, tmp_path, extras={"publish": False})
    outcome = publish_result(job, registry, result)
    name_result(job, registry, outcome)
    assert registry.adapters() == []
    assert names(registry) == set()
    assert outcome.facts["result_files"]


def test_nothing_leads_to_a_version_before_its_gate_has_passed(registry: Registry, tmp_path: Path) -> None:
    job, result = finished(registry, tmp_path, extras={"goal": {"suite": "refusals"}, "alias": "next"})
    publish_result(job, registry, result)
    assert registry.aliases(job.request.adapter) == {}


def test_the_result_file_has_a_row_for_each_step_and_openais_header() -> None:
    lines: list[dict[str, Any]] = [
        {"step": 1, "loss": 1.5, "mean_token_accuracy": 0.25},
        {"kind": "evaluation", "step": 1, "eval_loss": 2.0},
        {"step": 2, "loss": 1.0},
        {"step": "x"},
    ]
    assert metrics_csv(iter(lines)).decode() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        "1,1.50000,0.25000,2.00000,\n"
        "2,1.00000,,,\n"
    )


def test_an_error_of_ours_has_a_code_that_the_readme_lists() -> None:
    readme = (Path(__file__).parents[3] / "train" / "worker" / "README.md").read_text()
    kinds = [WardrobeError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    own = {named_failure(kind.__new__(kind)) for kind in kinds if kind.__module__ == "train.loop.guards"}
    assert all(f"`{code}`" in readme for code in {*own, named_failure(WardrobeError("a", "b"))})
