"""Each tracker gets the figures of a run; one that is not installed is refused by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.observability.catalogue import TRAINING
from registry.errors import UsageError
from tests.train.test_jobs import config, make_job
from train.loop.watching import OptimiserStep, TrainingEvaluation
from train.runs.tracking import make_trackers

STEP = OptimiserStep(3, 10, 1.5, 400, 0.25, 800.0, {"loss": 1.5, "grad_norm": 2.0, "learning_rate": 1e-3})


def test_prometheus_gets_the_names_and_labels_of_the_catalogue(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tracker,) = make_trackers(config(tracking={"to": ["prometheus"]}), job)
    path = tmp_path / "jobs" / "metrics" / f"{job.id}.prom"
    assert 'state="running"} 1' in path.read_text()
    tracker.step(STEP)
    tracker.evaluation(TrainingEvaluation(3, 1.25, "icd", {"accuracy": 0.5, "macro_f1": 0.25}))
    tracker.close("succeeded")
    families = {one.name: one for one in text_string_to_metric_families(path.read_text())}
    known = {one.name.removesuffix("_total"): one for one in TRAINING}
    assert set(families) == set(known)
    for name, family in families.items():
        assert family.type == known[name].kind
        for sample in family.samples:
            assert set(sample.labels) == set(known[name].labels)
    assert families["wardrobe_train_eval_loss"].samples[0].value == 1.25
    assert families["wardrobe_train_eval_score"].samples[0].value == 0.5
    states = {one.labels["state"]: one.value for one in families["wardrobe_train_state"].samples}
    assert states == {name: float(name == "succeeded") for name in states}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_gets_scalars_and_answers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = make_job(tmp_path)
    (tracker,) = make_trackers(config(tracking={"to": ["tensorboard"]}), job)
    tracker.step(STEP)
    tracker.evaluation(TrainingEvaluation(3, 1.25, None, {}, (("Hi", "Ho"),)))
    tracker.close("succeeded")
    events = EventAccumulator(str(job.folder / "tensorboard"))
    events.Reload()
    assert [one.value for one in events.Scalars("train/loss")] == [1.5]
    assert [one.step for one in events.Scalars("eval/loss")] == [3]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_refused_with_the_package(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(UsageError, match=f"needs the package {name}"):
        make_trackers(config(tracking={"to": [name]}), make_job(tmp_path))
