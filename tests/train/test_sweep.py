"""A sweep spends no more steps than it was given, and its best trial is the one that trained best."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from registry.cli.main import run as wardrobe
from registry.errors import Conflict, UsageError
from registry.store import Registry
from tests.train.tiny import make_tiny_base, write_rows
from train.config import load_config
from train.sweep.plan import draw, make_rungs, survivors, total_steps, with_values
from train.sweep.settings import Span, SweepSettings, load_sweep
from train.sweep.trials import open_sweep, run_sweep


def settings(**changes: Any) -> SweepSettings:
    given_ = {
        "config": "c.yaml",
        "space": {"lora.rank": [4, 8]},
        "steps": 90,
        "budget_steps": 10_000,
        **changes,
    }
    return SweepSettings.model_validate(given_)


def test_nine_trials_of_ninety_steps_take_210_steps() -> None:
    rungs = make_rungs(settings(trials=9))
    assert [(rung.trials, rung.until) for rung in rungs] == [(9, 10), (3, 30), (1, 90)]
    assert total_steps(rungs) == 210


@given(st.integers(2, 60), st.integers(2, 5), st.integers(2, 400), st.integers(2, 3_000))
def test_no_plan_exceeds_its_budget_and_each_ends_with_the_full_length(
    trials: int, eta: int, steps: int, budget: int
) -> None:
    wanted = settings(trials=trials, eta=eta, steps=steps, budget_steps=budget)
    # Three trials may need fewer steps than two: only one of three goes on.
    least = min(
        total_steps(make_rungs(wanted.model_copy(update={"trials": count, "budget_steps": 10**9})))
        for count in range(2, trials + 1)
    )
    if budget < least:
        with pytest.raises(UsageError, match="not enough for two trials"):
            make_rungs(wanted)
        return
    rungs = make_rungs(wanted)
    assert total_steps(rungs) <= budget
    assert rungs[-1].until == steps
    ends = [rung.until for rung in rungs]
    assert ends == sorted(set(ends))
    counts = [rung.trials for rung in rungs]
    assert counts == sorted(counts, reverse=True)
    assert 2 <= counts[0] <= trials
    # One interval of evaluation meets every rung but the last, which ends the run.
    assert all(until % ends[0] == 0 for until in ends[:-1])


def test_a_budget_lowers_the_number_of_trials() -> None:
    assert make_rungs(settings(trials=9, budget_steps=150))[0].trials < 9
    with pytest.raises(UsageError, match=r"budget_steps 20 is not enough .* raise it to"):
        make_rungs(settings(budget_steps=20))


def test_draws_are_the_same_every_time_different_and_cover_a_span() -> None:
    space = {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "lora.rank": [4, 8]}
    one = settings(space=space)
    drawn = draw(one, 8)
    assert drawn == draw(one, 8)
    assert drawn != draw(settings(space=space, seed=1), 8)
    rates = sorted(float(str(values["training.learning_rate"])) for values in drawn)
    for index, rate in enumerate(rates):
        share = math.log(rate / 1e-5) / math.log(100)
        assert index / 8 - 0.01 <= share <= (index + 1) / 8 + 0.01
    assert len(draw(settings(), 9)) == 2


def test_a_trial_without_a_number_never_wins() -> None:
    scores = {0: math.nan, 1: 2.0, 2: 1.0, 3: 1.0}
    assert survivors(scores, 4, higher_is_better=False) == [2, 3, 1, 0]
    assert survivors(scores, 4, higher_is_better=True) == [1, 2, 3, 0]


def test_dotted_values_replace_only_what_they_name() -> None:
    config = {"name": "a", "method": "dpo", "lora": {"rank": 4, "dropout": 0.1}}
    changed = with_values(config, {"lora.rank": 8, "method.beta": 0.2, "seed": 3})
    assert changed == {
        "name": "a", "method": {"type": "dpo", "beta": 0.2}, "lora": {"rank": 8, "dropout": 0.1}, "seed": 3,
    }  # fmt: skip
    assert config["lora"] == {"rank": 4, "dropout": 0.1}


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"spase": {}}, "did you mean space"),
        ({"space": {}}, "space"),
        ({"space": {"seed": {"low": 2, "high": 1}}}, "not below"),
        ({"space": {"seed": {"low": 0, "high": 1, "log": True}}}, "no logarithm"),
        ({"trials": 1}, "trials"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path, change: dict[str, Any], fact: str) -> None:
    document = {"config": "c.yaml", "space": {"seed": [1, 2]}, "steps": 4, "budget_steps": 40, **change}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(UsageError, match=fact):
        load_sweep(tmp_path / "sweep.yaml")


def test_a_span_of_whole_numbers_gives_whole_numbers() -> None:
    values = {Span(low=2, high=9, whole=True).at(share / 10) for share in range(11)}
    assert values == {2, 3, 4, 5, 6, 7, 8, 9}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    Registry.init(folder / "root", make_tiny_base(folder / "base", tokenizer), name="tiny")
    write_rows(folder)
    config = {
        "name": "support",
        "data": {"train": "rows.jsonl", "eval": "held-out.jsonl"},
        "lora": {"rank": 4},
        "training": {"batch_size": 4, "max_length": 64, "warmup": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    sweep = {
        "config": "config.yaml",
        "space": {"training.learning_rate": [1e-6, 1e-5, 1e-2]},
        "trials": 3, "steps": 6, "budget_steps": 12,
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return folder


@pytest.mark.training
def test_the_rate_that_learns_wins_and_its_config_trains_the_same(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wardrobe(["--root", str(root / "root"), "train", "sweep", str(root / "sweep.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["budget_steps"]) == (10, 12)
    best = load_config(Path(told["best_config"]))
    assert best.training.learning_rate == 1e-2
    assert told["trials"][told["best"]] == {"training.learning_rate": 1e-2}
    assert [len(scores) for scores in told["scores"]].count(1) == 2
    assert wardrobe(["--root", str(root / "root"), "train", "run", told["best_config"], "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["eval_loss"] == pytest.approx(told["scores"][told["best"]][-1], abs=1e-6)


@pytest.mark.training
def test_a_stopped_sweep_goes_on_and_ends_alike(root: Path, tmp_path: Path) -> None:
    registry = Registry.open(root / "root")
    wanted = load_sweep(root / "sweep.yaml")
    whole = open_sweep(wanted, tmp_path / "whole", registry)
    best = run_sweep(whole, registry, lambda *_: None)
    seen: list[int] = []
    broken = open_sweep(wanted, tmp_path / "broken", registry)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(broken, registry, lambda *_: seen.append(1), lambda: len(seen) >= 7)
    again = open_sweep(wanted, tmp_path / "broken", registry)
    assert again.scores == [scores for scores in broken.scores if scores]
    assert run_sweep(again, registry, lambda *_: None).number == best.number
    assert again.scores == whole.scores
    assert not list((tmp_path / "broken" / "trials").glob("*"))


@pytest.mark.training
def test_a_folder_of_another_sweep_and_a_setting_that_is_none_are_refused(root: Path, tmp_path: Path) -> None:
    registry = Registry.open(root / "root")
    wanted = load_sweep(root / "sweep.yaml")
    open_sweep(wanted, tmp_path / "one", registry)
    with pytest.raises(Conflict, match="another sweep"):
        open_sweep(wanted.model_copy(update={"seed": 9}), tmp_path / "one", registry)
    wrong = wanted.model_copy(update={"space": {"lora.rnk": [1, 2, 3]}})
    with pytest.raises(UsageError, match=r"unknown setting lora\.rnk"):
        open_sweep(wrong, tmp_path / "two", registry)
    assert not (tmp_path / "two").exists()
