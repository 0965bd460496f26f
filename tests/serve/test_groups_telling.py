"""What clients are told of limits is written as OpenAI writes it."""

from __future__ import annotations

import pytest

from serve.groups.telling import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, b"1s"),
        (59.5, b"1m0s"),
        (200, b"3m20s"),
        (3_599, b"59m59s"),
        (3_600, b"1h0m0s"),
        (69_136, b"19h12m16s"),
    ],
)
def test_durations_are_told_in_hours_minutes_and_seconds(seconds: float, text: bytes) -> None:
    assert duration(seconds) == text
