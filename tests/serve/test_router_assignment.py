"""Assignment: the published vectors, and what must hold for every unit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.router.assignment import (
    FULL_WEIGHT,
    Arm,
    Split,
    choose_arm,
    conversation_unit,
    is_canary,
    place,
    unit_digest,
)
from serve.router.body import parse_fields

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


def test_units_are_the_published_ones() -> None:
    assert len(VECTORS["units"]) == 11
    for vector in VECTORS["units"]:
        assert unit_of(vector["body"]) == vector["unit"], vector["body"]


@given(unit=st.text(max_size=40))
def test_no_weight_sends_nobody_and_full_weight_sends_everybody(unit: str) -> None:
    assert choose_arm(Split("r", 0), "a", unit) is Arm.STABLE
    assert choose_arm(Split("r", FULL_WEIGHT), "a", unit) is Arm.CANARY


@given(unit=st.text(max_size=40), low=st.integers(0, FULL_WEIGHT), high=st.integers(0, FULL_WEIGHT))
def test_raising_the_weight_never_moves_a_unit_back(unit: str, low: int, high: int) -> None:
    low, high = sorted((low, high))
    assert is_canary("r", "a", unit, high) or not is_canary("r", "a", unit, low)


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


def test_one_system_prompt_does_not_make_one_unit() -> None:
    system = {"role": "system", "content": "You are a shop's assistant."}
    units = {unit_of({"messages": [system, {"role": "user", "content": f"question {n}"}]}) for n in range(50)}
    assert len(units) == 50


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
