"""What a stream's record tells afterwards: its text, its first token, and the gaps in a window."""

from __future__ import annotations

from loadtests.bench.streams import StreamTiming


def test_the_text_is_put_together_from_the_pieces_as_they_came() -> None:
    pieces = [
        b'data: {"choices":[{"delta":{"content":"AL"}}]}\n',
        b'data: {"choices":[{"delta":{"content":"PHA \\u00e9"}}]}\n',
    ]
    assert StreamTiming(0.0, pieces=pieces).text == "ALPHA é"
    assert StreamTiming(0.0).text == ""


def test_gaps_are_those_that_overlap_the_window() -> None:
    stream = StreamTiming(1.0, arrivals=[2.0, 3.0, 5.0, 9.0])
    assert stream.first_token_seconds == 1.0
    assert stream.gaps(3.5, 4.0) == [2.0]
    assert stream.gaps(2.0, 9.0) == [1.0, 2.0, 4.0]
