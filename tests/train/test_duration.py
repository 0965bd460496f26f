"""The length of a run that is told before it is the length that it has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from tests.train.small_runs import ROWS
from tests.train.small_trainings import build_small, make_tiny_base, quiet
from train.config import TrainConfig, parse_config
from train.epoch.duration import Epoch, duration_of, is_due, warmup_steps
from train.epoch.length_report import LengthReport
from train.methods import method_of
from train.settings.steps import PerEpoch


def config(method: Any = "supervised", **training: Any) -> TrainConfig:
    document = {"name": "a", "data": {"train": "x"}, "method": method, "training": training}
    return parse_config(document, "config", Path())


def test_nine_rows_in_batches_of_two_accumulated_twice_make_three_steps_an_epoch() -> None:
    found = duration_of(config(batch_size=2, accumulation=2, epochs=3), Epoch(9, 900))
    assert (found.steps, found.steps_per_epoch, found.batch, found.last_batch) == (9, 3, 4, 1)
    assert (found.tokens_per_epoch, found.tokens, found.epochs) == (900, 2_700, 3)


def test_steps_win_over_epochs_and_may_end_within_one() -> None:
    found = duration_of(config(batch_size=4, steps=3, epochs=9), Epoch(8, 800))
    assert (found.steps, found.steps_per_epoch, found.epochs, found.tokens) == (3, 2, 1.5, 1_200)


def test_processes_share_the_rows_of_an_epoch() -> None:
    found = duration_of(config(batch_size=2, accumulation=2), Epoch(9, 900), processes=2)
    assert (found.batch, found.steps_per_epoch, found.last_batch) == (8, 2, 1)


def test_a_part_of_an_epoch_is_rounded_up_to_a_step() -> None:
    assert duration_of(config(batch_size=1, epochs=0.3), Epoch(10, 10)).steps == math.ceil(0.3 * 10)


def test_a_warm_up_is_its_steps_or_its_share_rounded_up() -> None:
    assert [warmup_steps(one, 30) for one in (0.0, 0.05, 0.5, 1, 10, 100)] == [0, 2, 15, 1, 10, 100]


def test_reinforcement_asks_whole_steps_of_prompts() -> None:
    method = {"type": "rloo", "reward": {"graders": [{"type": "regex", "pattern": "x"}]}, "answers": 4}
    found = duration_of(config(method, batch_size=8, epochs=2), Epoch(7, 70, answers=4, answer_tokens=16))
    assert (found.steps_per_epoch, found.left_out, found.batch, found.steps) == (3, 1, 8, 6)
    assert (found.tokens_per_epoch, found.answer_tokens) == (240, 6 * 8 * 16)
    with pytest.raises(UsageError, match=r"a step asks 2 prompts .* there are 1"):
        duration_of(config(method, batch_size=8), Epoch(1, 10, answers=4, answer_tokens=16))


@pytest.mark.parametrize("per_epoch", [3, 4, 7, 10])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_so_many_times_an_epoch_is_so_many_and_ends_with_the_epoch(per_epoch: int, times: int) -> None:
    for epoch in range(3):
        steps = range(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1)
        due = [step for step in steps if is_due(PerEpoch(per_epoch=times), step, per_epoch)]
        assert (len(due), due[-1]) == (times, steps[-1])


def test_more_times_than_steps_is_every_step() -> None:
    assert all(is_due(PerEpoch(per_epoch=9), step, 4) for step in range(1, 9))


def test_what_may_happen_at_boundaries_only_happens_at_the_next_one() -> None:
    def due(every: Any, per_epoch: int) -> list[int]:
        return [step for step in range(1, 13) if is_due(every, step, per_epoch, boundary=3)]

    assert due(4, 12) == [6, 12]
    assert due(PerEpoch(per_epoch=2), 8) == [6, 9, 12]  # due at 4, 8 and 12
    assert due(None, 8) == []


def told(found: Any, settings: TrainConfig) -> dict[str, str]:
    return dict(LengthReport.of(found, settings).facts())


def test_check_tells_steps_batch_tokens_and_warm_up() -> None:
    settings = config(batch_size=2, accumulation=2, epochs=3, warmup=0.05)
    assert told(duration_of(settings, Epoch(9, 900)), settings) == {
        "steps": "9 (3 epochs of 3 steps)",
        "batch": "4 rows a step (batch_size 2 × accumulation 2); the last step of an epoch has 1 row and "
        "moves the weights like any other",
        "tokens": "900 an epoch, 2700 in all",
        "warm-up": "1 step",
        "on the way": "0 checkpoints, 1 evaluations",
    }


def test_check_tells_what_several_processes_and_reinforcement_make_of_a_batch() -> None:
    settings = config(batch_size=2, epochs=1)
    assert (
        "8 rows a step (batch_size 2 × 4 processes)"
        in told(duration_of(settings, Epoch(16, 160), processes=4), settings).values()
    )
    method = {"type": "grpo", "reward": {"graders": [{"type": "regex", "pattern": "x"}]}, "answers": 4}
    online = config(method, batch_size=8, epochs=1)
    found = told(duration_of(online, Epoch(7, 70, answers=4, answer_tokens=16)), online)
    assert found["batch"] == (
        "8 answers a step (batch_size 8), 4 to each prompt; 1 prompts of an epoch make no whole step and are "
        "left out"
    )
    assert found["tokens"].endswith("(prompts, once for each answer), and answers of 384 at most")


def test_check_counts_checkpoints_and_evaluations_and_warns_of_a_warm_up_without_end() -> None:
    document = {
        "name": "a",
        "data": {"train": "x"},
        "training": {"batch_size": 1, "epochs": 2, "warmup": 100},
        "checkpoints": {"every": {"per_epoch": 2}},
        "evaluation": {"every": 3},
    }
    settings = parse_config(document, "config", Path())
    found = LengthReport.of(duration_of(settings, Epoch(10, 100)), settings)
    assert (found.checkpoints, found.evaluations) == (3, 7)  # 5, 10, 15; 3, 6, …, 18 and the end
    (warning,) = found.warnings()
    assert warning.startswith("the warm-up of 100 steps is not over when the run ends (20)")


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("supervised", {"batch_size": 5, "accumulation": 2, "epochs": 2}),
    ("dpo", {"batch_size": 5, "accumulation": 2, "epochs": 1.5}),
    ("orpo", {"batch_size": 7}),
    ("kto", {"batch_size": 5, "accumulation": 3}),
    ("reward", {"batch_size": 9, "accumulation": 2}),
    ("rloo", {"batch_size": 8, "accumulation": 2, "epochs": 2}),
    ("grpo", {"batch_size": 20, "accumulation": 1, "epochs": 2}),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"), tokenizer)


def lengths_of(trainer: Any) -> tuple[int, int]:
    """Return steps and steps per epoch as transformers counts them."""
    counted = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    return counted[-1], counted[1]


@pytest.mark.training
@pytest.mark.parametrize(("method", "training"), METHODS, ids=[one for one, _ in METHODS])
def test_a_methods_trainer_makes_the_steps_that_were_told(
    tmp_path: Path, base: Path, method: str, training: dict[str, Any]
) -> None:
    changed = {"epochs": 1, **training, "steps": None}
    settings, trainer, items = build_small(tmp_path, base, method, training=changed)
    told = duration_of(settings, method_of(settings).epoch(items, settings))
    with quiet():
        assert lengths_of(trainer) == (told.steps, told.steps_per_epoch)
    assert told.rows == ROWS == len(items)


@pytest.mark.training
@pytest.mark.parametrize(
    ("method", "kind"), [("supervised", {"type": "supervised", "packing": True}), ("supervised", "pretrain")]
)
def test_packed_rows_are_counted_as_they_are_packed(
    tmp_path: Path, base: Path, method: str, kind: Any
) -> None:
    if kind == "pretrain":
        (tmp_path / "words.jsonl").write_text('{"text": "one two three four five"}\n' * 40)
    data = {"train": "words.jsonl"} if kind == "pretrain" else {"train": "supervised.jsonl"}
    training = {"batch_size": 2, "epochs": 2, "steps": None, "max_length": 256}
    settings, trainer, items = build_small(tmp_path, base, method, method=kind, data=data, training=training)
    told = duration_of(settings, method_of(settings).epoch(items, settings))
    with quiet():
        assert lengths_of(trainer) == (told.steps, told.steps_per_epoch)
    assert told.rows < len(items)
