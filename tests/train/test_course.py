"""What happens between two steps: the best is taken, an early stop ends it, a suite is asked of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Conflict, NotFound, UsageError, WardrobeError
from registry.store import Registry
from tests.train.tiny import Watcher, make_tiny_base, tiny_config, train, write_rows
from train.jobs.records import RunState
from train.jobs.store import Jobs
from train.methods.rewarded.reward_model import reward_folder
from train.runs.run import prepare
from train.settings.keeping import EVAL_LOSS

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base", tokenizer)


@pytest.fixture
def registry(tmp_path: Path, base: Path) -> Registry:
    write_rows(tmp_path)
    return Registry.init(tmp_path / "root", base, name="tiny-base")


def lineage(registry: Registry) -> Any:
    return registry.attestations("tiny", 1, "lineage")[0].body


def test_the_best_step_is_the_result_and_the_lineage_says_why(registry: Registry, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        # Held-out loss falls, then the rate breaks what was learnt.
        training={"steps": 10, "learning_rate": 0.5, "schedule": "constant", "warmup": 0},
        checkpoints={"best_by": EVAL_LOSS, "every": 1, "keep": 1},
        guards={"divergence": None},
    )
    finished = train(registry, config)
    losses = {one.step: one.loss for one in finished.result.evaluations}
    best = min(losses, key=lambda step: losses[step] or 0.0)
    assert finished.result.taken == best
    assert finished.result.eval_loss == losses[best]
    taken = lineage(registry)["taken"]
    assert taken["step"] == best
    assert taken["why"].startswith("the best by eval_loss")
    # The same run cut off at that step ends with the same weights.
    assert losses[best] != losses[10] or best == 10


def test_no_improvement_stops_it_early(registry: Registry, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        training={"steps": 40, "learning_rate": 1e-6},
        early_stopping={"patience": 2, "minimum_improvement": 1.0},
        evaluation={"every": 2},
    )
    finished = train(registry, config)
    assert finished.result.steps == 6
    assert "stopped early at step 6 of 40" in finished.result.why


def test_a_suite_is_asked_of_the_model_in_training(registry: Registry, tmp_path: Path) -> None:
    suite = {
        "name": "small",
        "items": [{"prompt": "Colour 1?", "expected": "emerald"}, {"prompt": "Colour 2?", "expected": "x"}],
        "sampling": {"max_tokens": 4},
        "graders": [{"type": "includes"}, {"type": "stops"}],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    config = tiny_config(
        tmp_path,
        data={"eval": None},
        training={"steps": 4},
        checkpoints={"best_by": "includes", "suite": "suite.yaml", "every": 2},
    )
    watcher = Watcher()
    finished = train(registry, config, watcher)
    assert [one.step for one in finished.result.evaluations] == [2, 4]
    assert set(finished.result.evaluations[0].scores) == {"includes", "stops"}
    assert any("includes 0.000" in text for text in watcher.said)
    # Equal figures: the earlier step is taken.
    assert finished.result.taken == 2


def test_a_metric_that_is_not_measured_is_refused_before_the_first_step(
    registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"goes by the held-out loss, and there is no data\.eval"):
        prepare(tiny_config(tmp_path, data={"eval": None}, early_stopping={}), registry)
    with pytest.raises(UsageError, match="no suite is named"):
        prepare(tiny_config(tmp_path, checkpoints={"best_by": "accuracy"}), registry)


def test_a_guard_that_stops_the_run_fails_its_job(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hardly anything is learnt, so the smoothed loss wavers by more than this limit. Worse than the
    # beginning by the guard's own factor it never gets: a tiny Llama answers noise from the first step.
    monkeypatch.setattr("train.loop.guards._WORSE", 0.0)
    config = tiny_config(
        tmp_path, training={"steps": 60, "learning_rate": 1e-6}, guards={"divergence": 1.000001}
    )
    with pytest.raises(WardrobeError, match="the loss runs away"):
        train(registry, config)
    assert registry.adapters() == []
    (job,) = Jobs(registry.root).all()
    assert job.status().state is RunState.FAILED
    assert "runs away" in str(job.status().error)


def test_a_reward_model_is_named_by_its_job(registry: Registry, tmp_path: Path) -> None:
    finished = train(registry, tiny_config(tmp_path, training={"steps": 2}))
    with pytest.raises(Conflict, match="made no reward model"):
        reward_folder(registry.root, Path("somewhere") / finished.job.id)
    with pytest.raises(NotFound, match="wardrobe train jobs"):
        reward_folder(registry.root, Path("nothing"))
    made = finished.job.folder / "reward"
    made.mkdir()
    assert reward_folder(registry.root, Path("somewhere") / finished.job.id) == made
    assert reward_folder(registry.root, made) == made
    assert Jobs(registry.root).find(finished.job.id).id == finished.job.id
