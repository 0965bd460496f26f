from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.tuning.records import TuningRequest
from tests.fakes.tuning import tuning_request
from train.config import TrainConfig
from train.settings.methods import LEARNING_RATES
from train.worker.settings import make_config, resolved

TRAIN, HELD_OUT = Path("/jobs/x/data/train.jsonl"), Path("/jobs/x/data/eval.jsonl")
GRADER = {
    "type": "string_check", "name": "same", "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
    "operation": "eq",
}  # fmt: skip


def asked(kind: str = "supervised", extras: dict[str, Any] | None = None, **given: Any) -> TuningRequest:
    inner: dict[str, Any] = {"hyperparameters": given}
    if kind == "reinforcement":
        inner["grader"] = GRADER
    return tuning_request(method={"type": kind, kind: inner}, extras=extras or {}, adapter="support", seed=7)


def config(request: TuningRequest, held_out: Path | None = None) -> TrainConfig:
    return make_config(request, TRAIN, held_out)


def test_auto_is_what_train_run_does_by_itself() -> None:
    names = ("n_epochs", "batch_size", "learning_rate_multiplier")
    auto: dict[str, Any] = dict.fromkeys(names, "auto")
    found = config(asked(**auto), HELD_OUT)
    assert found == config(asked(), HELD_OUT)
    assert (found.name, found.seed, found.method.type) == ("support", 7, "supervised")
    assert (found.training.epochs, found.training.batch_size) == (3.0, 8)
    assert found.learning_rate == LEARNING_RATES["supervised"]
    assert [str(path.path) for path in found.data.files.values()] == [str(TRAIN), str(HELD_OUT)]
    assert resolved(found) == {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0}


@pytest.mark.parametrize(
    ("rows", "at_once", "accumulation"),
    [(1, 1, 1), (6, 6, 1), (8, 8, 1), (12, 6, 2), (13, 1, 13), (256, 8, 32)],
)
def test_a_batch_is_split_so_that_a_step_is_short_and_has_as_many_rows(
    rows: int, at_once: int, accumulation: int
) -> None:
    found = config(asked(batch_size=rows))
    assert (found.training.batch_size, found.training.accumulation) == (at_once, accumulation)
    assert resolved(found)["batch_size"] == rows


def test_a_multiplier_is_of_our_own_rate_of_the_method() -> None:
    found = config(asked("dpo", learning_rate_multiplier=2.5, beta=0.3, n_epochs=4))
    assert found.learning_rate == pytest.approx(2.5 * LEARNING_RATES["dpo"])
    assert (found.method.type, getattr(found.method, "beta", None)) == ("dpo", 0.3)
    assert resolved(found) == {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 2.5}


def test_reinforcement_draws_answers_for_each_prompt_and_is_graded_by_openais_grader() -> None:
    given: dict[str, Any] = {
        "batch_size": 3,
        "compute_multiplier": 2,
        "eval_interval": 5,
        "reasoning_effort": "low",
    }
    found = config(asked("reinforcement", **given))
    method: Any = found.method
    assert (method.type, method.answers) == ("grpo", 8)
    assert (found.training.batch_size, found.training.accumulation) == (8, 3)
    assert found.evaluation.every == 5
    assert method.reward.graders[0].grader.operation == "eq"
    assert resolved(found)["batch_size"] == 3


def test_every_key_of_a_training_config_may_be_given_beside_openais() -> None:
    extras = {"lora": {"rank": 4}, "training": {"max_length": 99}, "data": {"eval": {"share": 0.2}}}
    found = config(asked(extras=extras, n_epochs=2))
    assert (found.lora.rank, found.training.max_length, found.training.epochs) == (4, 99, 2)
    assert found.data.eval is not None
    assert found.data.eval.share == 0.2


def test_a_start_and_what_the_server_reads_itself_are_no_settings() -> None:
    request = tuning_request(start="support@3", extras={"name": "other", "publish": False, "from": "x"})
    found = config(request)
    assert (found.start, found.name) == ("support@3", request.adapter)


@pytest.mark.parametrize(
    "extras",
    [
        {"data": {"train": "/etc/passwd"}},
        {"data": {"replay": {"path": "/etc/passwd"}}},
        {"data": {"eval": "/etc/passwd"}},
        {"data": {"eval": {"path": "/etc/passwd"}}},
        {"checkpoints": {"suite": "/etc/passwd"}},
        {"method": {"reward": {"model": "/etc"}}},
        {"method": {"reward": {"graders": [{"type": "python", "file": "/etc/passwd"}]}}},
        {"goal": {"suite": "/etc/passwd"}},
        {"goal": {"suite": "classification", "guards": [{"suite": "../x"}]}},
    ],
)
def test_nothing_that_a_client_writes_names_a_file_of_the_server(extras: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"names (files of the server|the suite)"):
        config(asked(extras=extras))


@pytest.mark.parametrize(
    "extras", [{"lora": {"rnak": 4}}, {"nonsense": 1}, {"training": {"epochs": -1}}, {"lora": 3}]
)
def test_a_setting_that_does_not_exist_is_named(extras: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        config(asked(extras=extras))
    assert str(next(iter(extras))) in str(refused.value)


@pytest.mark.parametrize(
    ("extras", "key"),
    [
        ({"data": "/etc/passwd"}, "data"),
        ({"data": ["/etc/passwd"]}, "data"),
        ({"data": None}, "data"),
        ({"checkpoints": "x"}, "checkpoints"),
        ({"goal": 5}, "goal"),
        ({"goal": {"guards": 5}}, "goal"),
        ({"method": {"type": "grpo", "reward": {"graders": 5}}}, "method.reward.graders"),
    ],
)
def test_a_key_of_another_type_is_the_clients_fault_and_named(extras: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        config(asked(extras=extras))
