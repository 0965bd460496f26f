"""A body on its way in: its limit, its pace, its share of the memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.types import Message, Receive

from registry.errors import LimitExceeded
from serve.bounds.arrival import Arrivals
from serve.errors import Busy, ClientLeft, TooSlow
from serve.settings import RequestLimits

NEVER = 3_600.0


def arriving(pieces: Sequence[bytes | float | None]) -> Receive:
    """Return a `receive` of a body in pieces: None is the client's leaving, a number a pause in seconds."""
    left = list(pieces)

    async def receive() -> Message:
        piece = left.pop(0)
        while isinstance(piece, float):
            await asyncio.sleep(piece)
            piece = left.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return receive


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


def read(pieces: Sequence[bytes | float | None], *, declared: bytes | None = None, **limits: Any) -> bytes:
    """Read a whole body; nothing of it is counted afterwards, however it ends."""
    arrivals = Arrivals(RequestLimits(**limits))
    try:
        body: bytes = run(lambda: arrivals.whole(arriving(pieces), declared, 10))
    finally:
        assert arrivals.held == 0
    return body


def test_a_body_at_the_limit_is_read_in_one_piece_or_in_many() -> None:
    assert read([b"0123456789"]) == b"0123456789"
    assert read([b"01234", b"", b"56789"]) == b"0123456789"
    assert read([0.001, b"01", 0.001, b"2"]) == b"012"


@pytest.mark.parametrize("pieces", [[b"0123456789x"], [b"01234", b"56789", b"x"], [b"x" * 6] * 100])
def test_a_body_over_the_limit_is_refused_as_soon_as_it_is(pieces: list[bytes | float | None]) -> None:
    with pytest.raises(LimitExceeded, match="exceed this server's 10"):
        read(pieces)


@pytest.mark.parametrize("declared", [b"11", b"9" * 5_000])
def test_a_declared_length_over_the_limit_is_refused_before_the_rest_is_read(declared: bytes) -> None:
    with pytest.raises(LimitExceeded):
        read([b"0", NEVER], declared=declared)


@pytest.mark.parametrize("pieces", [[None], [0.001, None], [b"01", None]])
def test_a_client_that_leaves_while_sending_is_no_body(pieces: list[bytes | float | None]) -> None:
    with pytest.raises(ClientLeft):
        read(pieces)


@pytest.mark.parametrize("pieces", [[NEVER, b"x"], [b"x", NEVER, b"y"], [b"x", *[0.02, b"y"] * 100]])
def test_a_body_that_does_not_come_is_not_waited_for(pieces: list[bytes | float | None]) -> None:
    with pytest.raises(TooSlow, match=r"limits\.body_seconds") as caught:
        read(pieces, body_seconds=0.03)
    assert caught.value.http_status == 408


def test_what_has_arrived_buys_time_at_64_kib_a_second() -> None:
    arrivals = Arrivals(RequestLimits(body_seconds=0.02))
    piece = b"x" * 8_192  # worth an eighth of a second
    body = run(lambda: arrivals.whole(arriving([piece, 0.06, piece, 0.06, piece]), None, 10**6))
    assert len(body) == 3 * len(piece)


def test_the_limit_on_a_whole_request_holds_for_its_body_too() -> None:
    with pytest.raises(TooSlow, match=r"within 0\.02 s; .* limits\.total_seconds"):
        read([b"x", NEVER], total_seconds=0.02)
    arrivals = Arrivals(RequestLimits(total_seconds=0.02))
    with pytest.raises(TooSlow):  # no size buys more of it
        run(lambda: arrivals.whole(arriving([b"x" * 10**6, NEVER, b"x"]), None, 10**7))


def test_bodies_that_arrive_have_a_share_of_the_memory_and_no_more() -> None:
    arrivals = Arrivals(RequestLimits(body_memory_bytes=100))

    async def both() -> list[Any]:
        first = arrivals.rest(arriving([b"x" * 60, 0.05, b"x"]), await _first(b"y"), None, 10**6)
        second = arrivals.rest(arriving([b"x" * 60, 0.05, b"x"]), await _first(b"y"), None, 10**6)
        return list(await asyncio.gather(first, second, return_exceptions=True))

    one, other = run(both)
    assert len(one) == 62
    assert isinstance(other, Busy)
    assert other.rejection == "body_memory"
    assert arrivals.held == 62  # until its request is over


async def _first(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": True}


def test_a_paced_receive_keeps_nothing_and_goes_on_after_the_body() -> None:
    arrivals = Arrivals(RequestLimits(body_seconds=0.03))

    async def all_of_it() -> list[str]:
        receive = arrivals.paced(arriving([b"a", b"b", 0.05, None]))
        return [(await receive())["type"] for _ in range(3)]

    async def slow() -> None:
        receive = arrivals.paced(arriving([b"a", NEVER, b"b"]))
        await receive()
        await receive()

    with pytest.raises(TooSlow):
        run(slow)
    assert arrivals.held == 0
    arrivals = Arrivals(RequestLimits(body_seconds=5))
    assert run(all_of_it) == ["http.request", "http.request", "http.disconnect"]


def test_a_failure_of_the_server_while_it_waits_is_passed_on() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.001)
        raise TimeoutError("of somebody else")

    with pytest.raises(TimeoutError, match="somebody else"):
        run(lambda: Arrivals(RequestLimits()).whole(receive, None, 10))
