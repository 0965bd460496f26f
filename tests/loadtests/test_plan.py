"""The plan: seeded, each aspect on its own, with the popularity, lengths and texts that were asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loadtests.runner.plan import ArrivalPlan, request_body, request_path, shares
from loadtests.runner.scenario import Popularity
from registry.errors import NotFound, UsageError
from tests.loadtests.making import scenario


def many(**changes: object) -> ArrivalPlan:
    return ArrivalPlan(scenario(arrival={"process": "poisson", "rate": 2_000}, duration_seconds=5, **changes))


def test_the_same_scenario_gives_the_same_requests_and_another_seed_others() -> None:
    first, again, other = (list(ArrivalPlan(scenario(seed=seed)))[:20] for seed in (1, 1, 2))
    assert first == again
    assert [one.messages for one in first] != [one.messages for one in other]


def test_changing_one_aspect_leaves_the_others_as_they_were() -> None:
    adapters = {"prefix": "load", "count": 8}
    plain = many(adapters=adapters, cancel={"ratio": 0.1})
    skewed = many(adapters={**adapters, "popularity": {"zipf": 1.5}}, cancel={"ratio": 0.1})
    assert (plain.times == skewed.times).all()
    assert [one.cancel_after for one in plain] == [one.cancel_after for one in skewed]
    assert (plain.models != skewed.models).any()


@pytest.mark.parametrize(
    ("popularity", "expected"),
    [
        ({}, [1 / 4] * 4),
        ({"weights": (5, 3, 1, 1)}, [0.5, 0.3, 0.1, 0.1]),
        ({"zipf": 1.0}, [12 / 25, 6 / 25, 4 / 25, 3 / 25]),
    ],
)
def test_adapters_are_asked_in_the_wanted_shares(
    popularity: dict[str, object], expected: list[float]
) -> None:
    assert shares(Popularity.model_validate(popularity), 4) == pytest.approx(expected)
    plan = many(adapters={"prefix": "load", "count": 4, "popularity": popularity})
    found = np.bincount(plan.models, minlength=4) / len(plan)
    assert found == pytest.approx(expected, abs=0.015)


def test_distinct_asks_every_adapter_in_turn() -> None:
    plan = ArrivalPlan(scenario(adapters={"prefix": "load", "count": 3, "popularity": {"distinct": True}}))
    assert [one.model for one in plan][:4] == ["load-000", "load-001", "load-002", "load-000"]


def test_lognormal_lengths_have_the_wanted_mean_and_stay_within_their_limits() -> None:
    length = {"kind": "lognormal", "mean": 100, "sigma": 0.5, "low": 4, "high": 1_000}
    plan = many(max_tokens=length)
    found = np.array([plan[index].max_tokens for index in range(0, len(plan), 5)])
    assert found.mean() == pytest.approx(100, rel=0.05)
    assert found.min() >= 4
    assert found.max() <= 1_000


def test_uniform_lengths_reach_both_ends() -> None:
    plan = many(max_tokens={"kind": "uniform", "low": 3, "high": 5})
    assert set(Counter(plan[index].max_tokens for index in range(200))) == {3, 4, 5}


def test_prompts_share_what_the_scenario_says_and_nothing_else() -> None:
    plan = ArrivalPlan(
        scenario(
            prompts={"tokens": {"mean": 100}, "shared_prefix": 0.4}, adapters={"prefix": "load", "count": 2}
        )
    )
    by_model: dict[str, set[str]] = {}
    for one in plan:
        system, user = one.messages
        assert (system["role"], user["role"]) == ("system", "user")
        assert (len(system["content"].split()), len(user["content"].split())) == (40, 60)
        by_model.setdefault(one.model, set()).add(system["content"])
    assert {name: len(found) for name, found in by_model.items()} == {"load-000": 1, "load-001": 1}
    assert by_model["load-000"] != by_model["load-001"]
    questions = [one.messages[1]["content"] for one in plan]
    assert len({text.split()[0] + text.split()[1] + text.split()[2] for text in questions}) > 40
    assert len(set(questions)) == len(questions)


def test_the_ratios_of_streams_and_of_clients_that_leave_are_kept() -> None:
    plan = many(stream_ratio=0.75, cancel={"ratio": 0.2, "after_seconds": [0.1, 0.3]})
    drawn = [plan[index] for index in range(len(plan))]
    assert np.mean([one.stream for one in drawn]) == pytest.approx(0.75, abs=0.02)
    left = [one.cancel_after for one in drawn if one.cancel_after is not None]
    assert len(left) / len(drawn) == pytest.approx(0.2, abs=0.02)
    assert 0.1 <= min(left) < max(left) <= 0.3


def test_a_body_asks_for_usage_in_streams_and_for_exactly_so_many_tokens() -> None:
    made = scenario(extra_body={"top_k": 1}, stream_ratio=1.0)
    planned = ArrivalPlan(made)[0]
    body = json.loads(request_body(made, planned, planned.messages))
    assert body["stream_options"] == {"include_usage": True}
    assert (body["model"], body["max_tokens"], body["ignore_eos"], body["top_k"]) == ("fast", 10, True, 1)
    plain = scenario(api="completions", stream_ratio=0.0, ignore_eos=False)
    planned = ArrivalPlan(plain)[0]
    body = json.loads(request_body(plain, planned, planned.messages))
    assert body.keys() == {"model", "prompt", "max_tokens", "temperature", "stream"}
    assert (request_path(plain), request_path(made)) == ("/v1/completions", "/v1/chat/completions")


def test_the_lines_of_a_file_are_asked_in_turn_without_their_last_answer(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path.write_text(json.dumps({"prompt": "One"}) + "\n" + json.dumps({"messages": chat}) + "\n")
    plan = ArrivalPlan(scenario(prompts={"file": str(path)}))
    assert [plan[index].messages[-1]["content"] for index in range(3)] == ["One", "Hi", "One"]
    path.write_text(json.dumps({"text": "x"}) + "\n")
    with pytest.raises(UsageError, match=r"prompts.jsonl:1: is not a prompt"):
        ArrivalPlan(scenario(prompts={"file": str(path)}))
    with pytest.raises(NotFound):
        ArrivalPlan(scenario(prompts={"file": str(tmp_path / "none")}))


def test_a_trace_decides_times_models_and_lengths_and_its_blocks_are_shared(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    rows = [
        {"timestamp": 0, "input_length": 1_100, "output_length": 7, "hash_ids": [1, 2, 3]},
        {"timestamp": 100, "input_length": 1_050, "output_length": 9, "hash_ids": [1, 2, 4]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = ArrivalPlan(scenario(arrival={"process": "trace", "trace": str(path)}))
    assert (first.at, first.max_tokens, second.at, second.max_tokens) == (0.0, 7, 0.1, 9)
    one, two = (planned.messages[0]["content"].split() for planned in (first, second))
    assert (len(one), len(two)) == (1_100, 1_050)
    assert one[:1_024] == two[:1_024]
    assert one[1_024:] != two[1_024:]
