"""Scenario files: the packaged ones all parse, changes reach every key, and mistakes are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.runner.loading import load_scenario, packaged
from loadtests.runner.metrics import known_metrics
from loadtests.runner.plan import ArrivalPlan
from registry.errors import NotFound, UsageError
from serve.rollout.presets import load_policy

MINIMAL = "name: mine\nabout: A test.\nadapters: {names: [a]}\n"


def test_every_packaged_scenario_is_found_and_can_be_planned() -> None:
    names = packaged()
    assert names == [
        "bad-canary", "baseline", "canary-ramp", "many-adapters", "more-adapters-than-slots",
        "replica-loss", "smoke", "soak", "swap-churn",
    ]  # fmt: skip
    for name in names:
        made = load_scenario(name)
        assert made.name == name
        assert made.about.endswith((".", "?"))
        assert made.needs
        assert made.thresholds
        assert len(ArrivalPlan(made)) > 20
        assert all(load_policy(one.policy).steps for one in made.actions)


def test_a_scenario_that_needs_adapters_made_says_which_and_makes_enough_of_them() -> None:
    made = [load_scenario(name) for name in packaged()]
    prepared = [one for one in made if one.prepare is not None]
    assert len(prepared) == 8
    for one in prepared:
        assert one.prepare is not None
        assert one.adapters.models[-1] in one.needs
        wanted = [action for action in one.actions if action.version is not None]
        assert all(action.version <= one.prepare.versions for action in wanted if action.version)
        assert {action.adapter for action in one.actions if action.adapter} <= set(one.adapters.models)


def test_changes_reach_blocks_lists_and_new_keys(tmp_path: Path) -> None:
    changes = ["arrival.rate=7", "thresholds.0.at_most=3", "sessions.turns=4", "adapters.names=[x, y]"]
    made = load_scenario("smoke", changes)
    assert (made.arrival.rate, made.thresholds[0].at_most, made.sessions.turns) == (7.0, 3.0, 4)
    assert made.adapters.models == ("x", "y")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nmae: x\n", "unknown setting nmae; did you mean name?"),
        ("slo: {ttft: 5}\n", "unknown setting slo.ttft; did you mean slo.ttft_ms?"),
        ("arrival: {process: posson}\n", "arrival.process: "),
        ("arrival: {rate: 0}\n", "arrival.rate: must be greater than 0, not 0"),
        ("arrival: {process: trace}\n", "process trace and trace: FILE belong together"),
        ("arrival: {burstiness: 0.5}\n", "burstiness belongs to process gamma, found poisson"),
        ("thresholds: [{metric: ttft_ms.p59, at_most: 1}]\n", "'ttft_ms.p59' is not a metric; did you mean"),
        ("thresholds: [{metric: errors}]\n", "give either at_most or at_least"),
        ("actions: [{action: swap, adapter: a}]\n", "give either at_seconds or every_seconds"),
        ("actions: [{action: command, at_seconds: 1}]\n", "action command and run belong together"),
        ("max_tokens: {low: 9, high: 3}\n", "low 9 is above high 3"),
        ("seed: [\n", "is not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_the_way_out(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL + text)
    with pytest.raises(UsageError) as raised:
        load_scenario(str(path))
    assert fault in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "adapters",
    [
        "{names: [a], prefix: b}",
        "{}",
        "{names: [a], popularity: {weights: [1, 2]}}",
        "{names: [a], popularity: {zipf: 1, distinct: true}}",
        "{prefix: Not-A-Name}",
    ],
)
def test_adapters_that_say_two_things_or_nothing_are_refused(tmp_path: Path, adapters: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nabout: A test.\nadapters: {adapters}\n")
    with pytest.raises(UsageError):
        load_scenario(str(path))


@pytest.mark.parametrize("change", ["rate", "=3", "arrival.rate.deep=3", "thresholds.9.at_most=1", "seed=["])
def test_a_change_that_cannot_be_made_is_refused(change: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load_scenario("smoke", [change])


def test_an_unknown_name_is_answered_with_a_near_one() -> None:
    with pytest.raises(NotFound, match="did you mean many-adapters"):
        load_scenario("many-adapter")


def test_files_of_a_scenario_lie_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        MINIMAL + "arrival: {process: trace, trace: t.jsonl}\nprompts: {file: p.jsonl}\n",
    )
    made = load_scenario(str(path))
    assert made.arrival.trace == str(tmp_path / "t.jsonl")
    assert made.prompts.file == str(tmp_path / "p.jsonl")


def test_metrics_have_one_name_each() -> None:
    names = known_metrics()
    assert len(names) == len(set(names)) == 8 * 7 + 16 + 9


def test_the_readme_shows_a_scenario_that_works_and_lists_every_packaged_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "loadtests" / "README.md").read_text("utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])
    assert len(load_scenario(str(path)).thresholds) == 2
    listed = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert listed == set(packaged())
