"""Response ids: they tell the truth, and nobody else can make them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.router.endpoints.response_id import BASE_SUBJECT, AnsweredBy, IdIssuer

KEY, UNIT, TAG = b"k" * 32, "00112233445566ff", "89abcdef"
ISSUER = IdIssuer(KEY)


@pytest.mark.parametrize("prefix", ["", "chatcmpl-", "cmpl-", "resp_", "embd-", "decision-"])
@pytest.mark.parametrize("suffix", ["", "-0", "_3", "-0-1"])
def test_an_id_says_who_answered_whatever_the_server_puts_around_it(prefix: str, suffix: str) -> None:
    issued = ISSUER.issue("support.v2-eu@31.c", UNIT, TAG)
    expected = AnsweredBy("support.v2-eu@31", "c", UNIT, TAG)
    assert ISSUER.verify(f"{prefix}{issued}{suffix}") == expected
    assert expected.adapter == "support.v2-eu"


def test_the_base_has_an_id_too() -> None:
    answered = ISSUER.verify(ISSUER.issue(BASE_SUBJECT, UNIT))
    assert answered is not None
    assert (answered.version, answered.arm, answered.unit) == ("base@0", "b", UNIT)


def test_every_id_is_another_one() -> None:
    assert len({ISSUER.issue("support@3.s", UNIT) for _ in range(1000)}) == 1000
    assert len({ISSUER.issue("support@3.s", UNIT, TAG) for _ in range(1000)}) == 1000


def test_another_replica_with_the_same_key_verifies_it() -> None:
    assert IdIssuer(KEY).verify(ISSUER.issue("support@3.s", UNIT)) is not None


def test_an_id_under_another_key_is_refused() -> None:
    assert ISSUER.verify(IdIssuer(b"other" * 6).issue("support@3.s", UNIT)) is None


@given(position=st.integers(0, 200), letter=st.sampled_from("0123456789abcdefsxc@."))
def test_no_character_of_an_id_can_be_changed(position: int, letter: str) -> None:
    issued = ISSUER.issue("support@3.s", UNIT)
    position %= len(issued)
    changed = issued[:position] + letter + issued[position + 1 :]
    assert changed == issued or ISSUER.verify(changed) is None


@pytest.mark.parametrize("text", ["", "chatcmpl-123", "support@3", "resp_.support@3.s..", "x" * 5000])
def test_what_is_no_id_is_refused(text: str) -> None:
    assert ISSUER.verify(text) is None
