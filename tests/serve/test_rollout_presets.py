"""Policies as people write them: every preset parses, every mistake is named with its key and its remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from registry.errors import UsageError
from serve.rollout.policy import Policy
from serve.rollout.presets import load_policy, load_preset, parse_policy, preset_names

STEP = "steps: [{weight: 5%, min_units: 10, min_seconds: 1}]\n"


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_policy(text, "ramp.yaml")
    assert caught.value.subject.partition(":")[0] == "ramp.yaml"
    return caught.value


def test_there_are_three_presets_and_each_one_parses() -> None:
    assert preset_names() == ["default", "fast", "low-traffic"]
    for name in preset_names():
        policy = load_policy(name)
        assert policy.name == name
        assert policy.alpha == pytest.approx(0.05)


def test_the_default_ramp_is_the_designs() -> None:
    found = [(step.weight, step.min_units, step.min_seconds) for step in load_policy("default").steps]
    assert found == [(100, 50, 120), (500, 100, 300), (1000, 200, 600), (2500, 500, 600), (5000, 1000, 600)]
    assert load_policy("default").promotion.no_harm_units is None


def test_fast_is_fit_for_demonstrations() -> None:
    fast = load_preset("fast")
    assert [(step.weight, step.min_units, step.min_seconds) for step in fast.steps] == [
        (1000, 30, 5), (5000, 30, 5),
    ]  # fmt: skip
    assert (fast.promotion.no_harm_units, fast.promotion.no_harm_seconds) == (30, 5)
    assert fast.cooldown_seconds == 30


def test_low_traffic_proves_on_copies_before_half_of_the_traffic_meets_it() -> None:
    low = load_preset("low-traffic")
    assert low.shadow is not None
    assert (low.shadow.pairs, low.shadow.share) == (500, 10_000)
    assert [step.weight for step in low.steps] == [5_000]


@pytest.mark.parametrize(
    ("weight", "points"), [("5%", 500), ("0.5%", 50), ("0.01%", 1), ("50 %", 5000), ("7bp", 7), ("700", 700)]
)
def test_a_weight_is_percent_or_basis_points(weight: str, points: int) -> None:
    policy = parse_policy(STEP.replace("5%", weight), "ramp.yaml")
    assert policy.steps[0].weight == points


@pytest.mark.parametrize("weight", ["5", "100", "0.05", "7.5"])
def test_a_bare_number_that_may_mean_either_is_refused(weight: str) -> None:
    error = refused(STEP.replace("5%", weight))
    assert "may mean percent or basis points" in error.fact
    assert f"{weight}%" in error.remedy


@pytest.mark.parametrize(
    ("extra", "key"), [("observe_base: 5", "observe_base"), ("shadow: {share: 5}", "shadow.share")]
)
def test_every_share_of_traffic_is_written_the_same_way(extra: str, key: str) -> None:
    assert refused(f"{STEP}{extra}\n").param == key
    assert parse_policy(f"{STEP}{extra.replace('5', '5%')}\n", "ramp.yaml").steps[0].weight == 500


def test_a_last_step_of_100_percent_is_the_promotion() -> None:
    policy = parse_policy(STEP.replace("]", ", {weight: 100%}]"), "ramp.yaml")
    assert [step.weight for step in policy.steps] == [500]
    assert "100%" in refused("steps: [{weight: 100%}]\n").fact


def test_more_than_half_leaves_no_control() -> None:
    error = refused(STEP.replace("5%", "60%"))
    assert "60% leaves too few to compare with" in error.fact
    assert error.param == "steps.0.weight"


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        (STEP.replace("weight", "wieght"), "steps.0.wieght", "did you mean steps.0.weight?"),
        (f"{STEP}cooldown: 3\n", "cooldown", "did you mean cooldown_seconds?"),
        (
            f"{STEP}metrics: {{latency: {{margn: 2}}}}\n",
            "metrics.latency.margn",
            "metrics.latency.margin?",
        ),
        (f"{STEP}shadow: {{xyzzy: 2}}\n", "shadow.xyzzy", "alpha, concurrency, max_seconds, pairs, share"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(text: str, key: str, remedy: str) -> None:
    error = refused(text)
    assert error.fact == f"unknown setting {key}"
    assert remedy in error.remedy
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "holds no settings"),
        ("- 1\n", "holds no settings"),
        ("{[\n", "is not valid YAML: "),
        ("name: a\nname: b\n", "the key 'name' occurs twice (first on line 1)"),
        ("name: a\n", "steps: is missing"),
        ("steps: []\n", "steps: "),
        ("steps: 5\n", "steps: "),
        ("steps: [5]\n", "steps.0: "),
        (STEP.replace("10", "many"), "not 'many'"),
        (STEP.replace("]", ", {weight: 2%, min_units: 1, min_seconds: 1}]"), "weights must rise"),
        (f"{STEP}metrics: {{errors: {{alpha: 0.9}}}}\n", "metrics.errors.alpha"),
        (STEP.replace("5%", "1.234%"), "is not a whole number of basis points"),
        (STEP.replace("5%", "lots"), "not 'lots'"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said(text: str, fact: str) -> None:
    assert fact in refused(text).fact


def test_a_metric_is_left_out_by_null() -> None:
    assert parse_policy(f"{STEP}metrics: {{feedback: null}}\n", "ramp.yaml").metrics.feedback is None


def test_a_policy_comes_from_a_file_whose_name_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(STEP)
    assert load_policy(path).name == load_policy(str(path)).name == "night"
    path.write_text(f"name: other\n{STEP}")
    assert load_policy(path).name == "other"


def test_a_file_that_is_none_names_the_presets(tmp_path: Path) -> None:
    for source in (str(tmp_path / "missing.yaml"), "fsat", "a\0b"):
        with pytest.raises(UsageError, match="default, fast, low-traffic"):
            load_policy(source)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        load_policy(tmp_path / "binary")
    with pytest.raises(UsageError, match="there is no preset"):
        load_preset("../default")


def test_a_policy_survives_its_own_document() -> None:
    policy = load_policy("low-traffic")
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy


def test_the_policy_of_the_readme_is_one() -> None:
    readme = Path(__file__).parents[2] / "serve" / "rollout" / "README.md"
    blocks = re.findall(r"^```yaml\n(name:.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    policy = parse_policy(blocks[0], "README.md")
    assert (policy.name, [step.weight for step in policy.steps]) == ("night", [500, 5000])
