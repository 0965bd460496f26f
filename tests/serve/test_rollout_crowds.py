"""Shares keep the tests valid and the lies out, and cost what the table says: seeded, with few runs."""

from __future__ import annotations

import numpy as np
import pytest

from serve.rollout.policy import EvidenceShares
from serve.rollout.simulation.crowds import (
    AGAINST,
    BAD,
    BURSTS,
    EVEN,
    FOR,
    GOOD,
    HALF,
    SMALL,
    UNCAPPED,
    UNEQUAL,
    Member,
    admit,
    detect,
    draw_order,
    rate_by_arm,
)


@pytest.mark.parametrize("members", [EVEN, UNEQUAL, BURSTS], ids=["even", "unequal", "bursts"])
def test_an_identical_canary_is_not_rolled_back_more_often_than_alpha(members: tuple[Member, ...]) -> None:
    assert detect(members, HALF, runs=400, sent=6_000).rolled_back <= 0.05


def test_alike_groups_lose_little_and_a_dominating_one_is_cut_to_the_others() -> None:
    order = draw_order(EVEN, 10_000, np.random.default_rng(3))
    assert admit(EVEN, order, HALF).mean() > 0.9
    assert admit(SMALL, draw_order(SMALL, 10_000, np.random.default_rng(3)), HALF).mean() < 0.13
    assert admit(SMALL, order, UNCAPPED).all()


def test_a_canary_that_fails_five_times_as_often_is_found_after_as_many_units_that_count() -> None:
    alone, capped = (detect(SMALL, shares, factor=5.0, runs=300) for shares in (UNCAPPED, HALF))
    assert min(alone.rolled_back, capped.rolled_back) > 0.95
    assert capped.canary_units == pytest.approx(alone.canary_units, rel=0.3)
    assert capped.sent > 5 * alone.sent  # the price of a crowd in which one sends 95 %


def test_one_group_of_two_can_neither_take_back_nor_promote() -> None:
    few = {"runs": 8, "rounds": 200}
    down, up = rate_by_arm(GOOD, AGAINST, HALF, **few), rate_by_arm(BAD, FOR, HALF, **few)
    assert (down.rolled_back, up.promoted) == (0, 0)
    assert rate_by_arm(GOOD, AGAINST, UNCAPPED, **few).rolled_back == 1
    assert rate_by_arm(BAD, FOR, UNCAPPED, **few).promoted == 1
    assert rate_by_arm(BAD, BAD, HALF, **few).rolled_back > 0.8
    assert rate_by_arm(GOOD, GOOD, EvidenceShares(group_share=0.3), **few).promoted > 0.8
