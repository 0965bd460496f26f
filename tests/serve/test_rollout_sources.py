"""Whose evidence it is: the rule of shares, what is left out, and what is told of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.rollout.assignment import Arm
from serve.rollout.display.sources import left_out, sources
from serve.rollout.policy import EvidenceShares, Policy, policy_of
from serve.rollout.recording.evidence import MAX_SOURCES, REST, ReplicaEvidence
from serve.rollout.recording.pooling import pool
from serve.rollout.recording.recorder import Recorder
from serve.rollout.recording.sources import (
    RATINGS_ALLOWANCE,
    UNITS_ALLOWANCE,
    EvidenceGivers,
    SharedRoom,
    Source,
)
from tests.fakes.rollouts import POLICY, make_entry, unit

ANN, BOB = Source("red", "ann"), Source("blue", "bob")
HALF = EvidenceShares()


def recorder(policy: Policy = POLICY, **changes: Any) -> Recorder:
    return Recorder(make_entry(policy, **changes), "r1", clock=lambda: 50.0)


def send(one: Recorder, source: Source, first: int, count: int, arm: Arm = Arm.STABLE, **more: Any) -> int:
    """Send `count` units of a source, and return how many were taken."""
    more.setdefault("first_turn", True)
    return sum(
        one.observe(
            one.segment, arm, unit(first + n), more.get("outcome", "ok"), source=source, **_rest(more)
        )
        for n in range(count)
    )


def _rest(more: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in more.items() if name != "outcome"}


groups = st.sampled_from(["red", "blue", "green"])
keys = st.sampled_from(["1", "2", "3"])
crowds = st.lists(st.builds(Source, groups, keys), max_size=300)
shares = st.sampled_from([0.1, 0.25, 0.5, 0.75])


@given(crowds, shares, shares)
def test_no_order_of_requests_gives_a_group_or_a_key_more_than_its_share(
    order: list[Source], group_share: float, key_share: float
) -> None:
    crowd = EvidenceGivers()
    crowd.expect(frozenset({"red", "blue", "green"}))
    for group in ("red", "blue", "green"):
        for key in ("1", "2", "3"):
            crowd.meet(Source(group, key))
    room = SharedRoom(EvidenceShares(group_share=group_share, key_share=key_share), crowd, UNITS_ALLOWANCE)
    taken = Counter(source for source in order if room.take(source))
    by_group: Counter[str] = Counter()
    for source, count in taken.items():
        by_group[source.group] += count
    total = sum(taken.values())
    for count in by_group.values():
        odds = group_share / (1 - group_share)
        assert count <= odds * (total - count) + UNITS_ALLOWANCE + 1e-9
        assert count <= group_share * total + (1 - group_share) * UNITS_ALLOWANCE + 1e-9
    for source, count in taken.items():
        odds = key_share / (1 - key_share)
        assert count <= odds * (by_group[source.group] - count) + UNITS_ALLOWANCE + 1e-9


@given(crowds, st.randoms(use_true_random=False))
def test_what_is_taken_depends_on_who_asks_and_on_nothing_else(order: list[Source], luck: Any) -> None:
    one, other = recorder(), recorder()
    for number, source in enumerate(order):
        taken = [
            each.observe(
                each.segment,
                luck.choice([Arm.STABLE, Arm.CANARY]),
                unit(number),
                luck.choice(["ok", "engine_error", "cancelled"]),
                first_turn=luck.random() < 0.5,
                first_token=luck.random(),
                source=source,
            )
            for each in (one, other)
        ]
        assert taken[0] == taken[1]


def test_who_is_alone_is_taken_whole() -> None:
    one = recorder()
    assert send(one, ANN, 0, 500) == 500


def test_a_second_group_that_may_give_evidence_caps_the_first_before_it_sends_anything() -> None:
    one = recorder()
    one.crowd.expect(frozenset({"red", "blue"}))
    assert send(one, ANN, 0, 500) == UNITS_ALLOWANCE
    assert send(one, BOB, 1_000, 100) == 2 * UNITS_ALLOWANCE
    assert send(one, ANN, 2_000, 500) == 2 * UNITS_ALLOWANCE


def test_a_key_that_floods_is_held_to_what_the_other_keys_of_its_group_send() -> None:
    one, flood, calm = recorder(), Source("default", "flood"), Source("default", "calm")
    assert send(one, calm, 0, 40) == 40
    assert send(one, flood, 1_000, 500) == 40 + UNITS_ALLOWANCE


def test_shares_of_1_take_everything() -> None:
    policy = POLICY.model_copy(update={"evidence": EvidenceShares(group_share=1, key_share=1)})
    one = recorder(policy)
    one.crowd.expect(frozenset({"red", "blue"}))
    assert (send(one, ANN, 0, 500), send(one, BOB, 1_000, 1)) == (500, 1)


def test_a_rollout_that_began_without_shares_goes_on_without() -> None:
    document = POLICY.model_dump(mode="json")
    del document["evidence"]
    assert policy_of(make_entry()).evidence == HALF
    assert policy_of(replace(make_entry(), policy=document)).evidence.group_share == 1


def test_what_is_left_out_is_in_no_count_but_its_own() -> None:
    one = recorder()
    one.crowd.expect(frozenset({"red", "blue"}))
    send(one, ANN, 0, UNITS_ALLOWANCE + 5, Arm.CANARY, outcome="engine_error", first_token=9.0)
    send(one, ANN, UNITS_ALLOWANCE + 2, 1, Arm.CANARY, outcome="ok")  # left out before
    tally = one.document().segments[0].arms["canary"]
    ten = UNITS_ALLOWANCE
    assert (tally.requests, tally.units, len(tally.failed), tally.first_token.count) == (ten, ten, ten, ten)
    part = tally.sources["red/ann"]
    assert (part.units, part.units_left_out) == (ten, 5)
    assert part.first_token == (ten, ten, ten, ten)
    assert one.by_source[Arm.CANARY, "red"].failures == ten


def test_a_unit_that_was_taken_stays_taken() -> None:
    one = recorder()
    one.crowd.expect(frozenset({"red", "blue"}))
    send(one, ANN, 0, 100)
    assert send(one, ANN, 0, 1, outcome="engine_error") == 1
    assert one.segment.arm(Arm.STABLE).failed == [unit(0)]


def test_ratings_have_a_share_of_their_own() -> None:
    one = recorder()
    send(one, BOB, 0, 50)
    reasons = [one.rate(Arm.CANARY, unit(100 + n), 0.0, ANN) for n in range(10)]
    assert reasons[:RATINGS_ALLOWANCE] == [""] * RATINGS_ALLOWANCE
    assert all("share" in reason for reason in reasons[RATINGS_ALLOWANCE:])
    assert one.rate(Arm.STABLE, unit(1), 1.0, BOB) == ""
    assert one.rate(Arm.CANARY, unit(104), 0.0, ANN) == ""  # a refused one may be said again
    parts = pool([one.document()], step=0).parts
    assert (parts["red/ann"].ratings, parts["red/ann"].ratings_left_out) == (RATINGS_ALLOWANCE + 1, 7)


def test_a_restart_remembers_who_was_there() -> None:
    before = recorder()
    send(before, ANN, 0, 5)
    written = ReplicaEvidence.model_validate_json(before.document().model_dump_json())
    after = recorder()
    after.restore(written)
    assert send(after, BOB, 100, 500) == UNITS_ALLOWANCE


def test_a_document_tells_the_largest_sources_apart_and_adds_up_the_others() -> None:
    one = recorder()
    for number in range(MAX_SOURCES + 15):
        send(one, Source("default", f"k{number}"), 1_000 * number, 1 + number % 7)
    document = ReplicaEvidence.model_validate_json(one.document().model_dump_json())
    tally = document.segments[0].arms["stable"]
    assert len(tally.sources) == MAX_SOURCES + 1
    assert sum(part.units for part in tally.sources.values()) == tally.units
    assert (
        tally.sources[REST].units
        < min(part.units for name, part in tally.sources.items() if name != REST) * 16
    )


def test_replicas_parts_add_up_and_are_told() -> None:
    documents = []
    for replica in range(2):
        one = recorder()
        one.crowd.expect(frozenset({"red", "blue"}))
        send(one, ANN, 10_000 * replica, 200, Arm.CANARY)
        send(one, BOB, 10_000 * replica + 5_000, 3, Arm.CANARY)
        documents.append(one.document().model_copy(update={"replica": f"r{replica}"}))
    evidence = pool(documents, step=0)
    ann, bob = sources(evidence)
    assert (ann.group, ann.key, ann.units, ann.units_left_out) == ("red", "ann", 20, 380)
    assert (bob.units, bob.units_left_out) == (6, 0)
    assert ann.units_share == pytest.approx(20 / 26)
    (sentence,) = left_out(evidence, HALF)
    assert "380 of 400 units of the group red were left out: at most 50% of the evidence" in sentence
    assert set(evidence.without) == {"red", "blue"}
    assert evidence.without["red"].cells[0].canary.units == 6
