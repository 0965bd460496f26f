"""Assignment: the published vectors, and what must hold for every unit."""

from __future__ import annotations

import json
from collections import Counter
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.entries.rollouts import FULL_WEIGHT
from serve.protocol.body import parse_fields
from serve.rollout.assignment import (
    Arm,
    RolloutSplit,
    choose_arm,
    conversation_unit,
    is_canary,
    is_listed,
    is_mirrored,
    place,
    unit_digest,
    user_unit,
)

VECTORS = json.loads(Path(__file__).with_name("assignment_vectors.json").read_text())
FIELDS = st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3)


def unit_of(body: object) -> str | None:
    return conversation_unit(parse_fields(json.dumps(body).encode(), frozenset()))


def test_places_are_the_published_ones() -> None:
    assert len(VECTORS["places"]) == 8
    for vector in VECTORS["places"]:
        assert place(vector["salt"], vector["adapter"], vector["unit"]) == int(vector["place"])


def test_a_unit_joins_the_canary_at_its_published_weight_and_not_before() -> None:
    for vector in VECTORS["places"]:
        key = (vector["salt"], vector["adapter"], vector["unit"])
        lowest = vector["lowest_canary_weight"]
        assert is_canary(*key, lowest)
        assert not is_canary(*key, lowest - 1)


def test_a_unit_meets_the_base_at_its_published_weight_and_not_before() -> None:
    for vector in VECTORS["places"]:
        key = (vector["adapter"], vector["unit"])
        lowest = vector["lowest_base_weight"]
        assert choose_arm(RolloutSplit(vector["salt"], 0, lowest), *key) is Arm.BASE
        assert choose_arm(RolloutSplit(vector["salt"], 0, lowest - 1), *key) is Arm.STABLE


def test_a_unit_is_mirrored_at_its_published_share_and_not_before() -> None:
    for vector in VECTORS["places"]:
        key = (vector["salt"], vector["adapter"], vector["unit"])
        assert is_mirrored(*key, vector["lowest_shadow_share"])
        assert not is_mirrored(*key, vector["lowest_shadow_share"] - 1)


def test_arms_are_the_published_ones() -> None:
    assert len(VECTORS["arms"]) == 20
    for vector in VECTORS["arms"]:
        split = RolloutSplit(vector["salt"], vector["weight"], vector["base_weight"])
        assert choose_arm(split, vector["adapter"], vector["unit"]).value == vector["arm"]


def test_units_are_the_published_ones() -> None:
    assert len(VECTORS["units"]) == 11
    for vector in VECTORS["units"]:
        assert unit_of(vector["body"]) == vector["unit"], vector["body"]


@given(unit=st.text(max_size=40))
def test_no_weight_sends_nobody_and_full_weight_sends_everybody(unit: str) -> None:
    assert choose_arm(RolloutSplit("r", 0), "a", unit) is Arm.STABLE
    assert choose_arm(RolloutSplit("r", FULL_WEIGHT), "a", unit) is Arm.CANARY


@given(unit=st.text(max_size=40), low=st.integers(0, FULL_WEIGHT), high=st.integers(0, FULL_WEIGHT))
def test_raising_the_weight_never_moves_a_unit_back(unit: str, low: int, high: int) -> None:
    low, high = sorted((low, high))
    assert is_canary("r", "a", unit, high) or not is_canary("r", "a", unit, low)


@given(
    unit=st.text(max_size=40),
    weights=st.lists(st.integers(0, FULL_WEIGHT // 2), min_size=2, max_size=2).map(sorted),
    base=st.integers(0, FULL_WEIGHT // 2),
)
def test_raising_a_weight_takes_units_from_stable_only(unit: str, weights: list[int], base: int) -> None:
    low, high = (choose_arm(RolloutSplit("r", weight, base), "a", unit) for weight in weights)
    assert low is high or (low, high) == (Arm.STABLE, Arm.CANARY)
    without = choose_arm(RolloutSplit("r", weights[0]), "a", unit)
    assert low is without or (without, low) == (Arm.STABLE, Arm.BASE)


def test_the_arms_of_a_split_have_their_shares() -> None:
    split, n = RolloutSplit("r-7", 1000, 2500), 20_000
    arms = Counter(choose_arm(split, "support", f"unit-{one}") for one in range(n))
    assert arms[Arm.CANARY] / n == pytest.approx(0.10, abs=0.007)  # more than three standard errors
    assert arms[Arm.BASE] / n == pytest.approx(0.25, abs=0.0095)
    assert arms.total() == n


def test_lists_override_the_hash_and_deny_wins() -> None:
    split = RolloutSplit("r", 0, allow=frozenset({"alice", "both"}), deny=frozenset({"bob", "both"}))
    assert choose_arm(split, "a", "alice") is Arm.CANARY
    assert choose_arm(split, "a", "both") is Arm.STABLE
    everybody = RolloutSplit("r", FULL_WEIGHT, deny=frozenset({"bob"}))
    assert choose_arm(everybody, "a", "bob") is Arm.STABLE
    assert [is_listed(split, unit) for unit in ("alice", "bob", "both", "carol")] == [True, True, True, False]


def test_who_is_mirrored_says_nothing_of_who_meets_the_canary() -> None:
    units = [f"unit-{n}" for n in range(20_000)]
    canary = {unit for unit in units if is_canary("r", "a", unit, 1000)}
    mirrored = {unit for unit in units if is_mirrored("r", "a", unit, 1000)}
    assert len(canary & mirrored) / len(units) == pytest.approx(0.01, abs=0.0022)


@pytest.mark.parametrize(
    ("user", "unit"), [("alice", "alice"), ("", None), (5, None), (None, None), ({"a": 1}, None)]
)
def test_a_user_is_what_the_body_says_if_it_is_a_name(user: object, unit: str | None) -> None:
    assert user_unit(parse_fields(json.dumps({"user": user}).encode(), frozenset())) == unit


def test_the_share_of_a_weight_is_its_share_of_units() -> None:
    share = sum(is_canary("r-7", "support", f"unit-{n}", 1000) for n in range(20_000)) / 20_000
    assert share == pytest.approx(0.10, abs=0.007)  # more than three standard errors


def test_without_a_rollout_everybody_is_stable() -> None:
    assert choose_arm(None, "support", "alice") is Arm.STABLE


@given(
    content=st.one_of(st.none(), st.text(), st.lists(FIELDS, max_size=3)),
    role=st.sampled_from(["user", "system"]),
    indent=st.sampled_from([None, 2]),
    escaped=st.booleans(),
)
def test_a_unit_does_not_depend_on_how_a_client_spells_json(
    content: object, role: str, indent: int | None, escaped: bool
) -> None:
    body = {"messages": [{"role": role, "content": content}]}
    text = json.dumps(body, indent=indent, ensure_ascii=escaped).encode()
    assert conversation_unit(parse_fields(text, frozenset())) == unit_of(body)


def test_conversations_with_one_system_prompt_split_like_any_others() -> None:
    system = {"role": "system", "content": "You are a shop's assistant."}
    units = [
        unit_of({"messages": [system, {"role": "user", "content": f"question {n}"}]}) for n in range(1000)
    ]
    assert len(set(units)) == 1000
    canary = sum(choose_arm(RolloutSplit("r-7", 2500), "support", unit or "") is Arm.CANARY for unit in units)
    half = NormalDist().inv_cdf(0.9995) * sqrt(1000 * 0.25 * 0.75)  # 99.9 % of the binomial
    assert canary == pytest.approx(250, abs=half)


def test_a_conversation_keeps_its_unit_in_its_later_turns() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    later = [*turns, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
    assert unit_of({"messages": later}) == unit_of({"messages": turns})


@pytest.mark.parametrize("body", [{}, {"messages": 5}, {"messages": [1]}, {"file": "x"}])
def test_a_body_that_names_no_conversation_is_its_own_unit(body: object) -> None:
    assert unit_of(body) is None


def test_the_digest_of_a_conversation_is_its_unit_itself() -> None:
    unit = unit_of({"prompt": "x"})
    assert unit is not None
    assert unit_digest(unit) == unit
    assert unit_digest("alice") != "alice"
    assert len(unit_digest("alice")) == 16


def test_every_arm_has_a_letter_of_its_own() -> None:
    assert len({arm.letter for arm in Arm}) == len(Arm)
