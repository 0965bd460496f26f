"""The words of the rollouts' metrics: a closed set, whoever acts."""

from __future__ import annotations

import pytest

from serve.rollout.decision.metrics import trigger_of
from tests.fakes.rollouts import make_entry


@pytest.mark.parametrize(
    ("who", "reason", "trigger"),
    [
        ("replica r1", "errors", "auto"),
        ("3f2a91", "alert", "alert"),
        ("anonymous", "alert", "alert"),
        ("3f2a91", "operator", "operator"),
        ("ben", "", "operator"),
    ],
)
def test_an_alert_that_comes_with_a_key_is_still_an_alert(who: str, reason: str, trigger: str) -> None:
    assert trigger_of(make_entry(who=who, reason=reason)) == trigger
