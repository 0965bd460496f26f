"""One line of a batch: what its limits do not let in yet is asked again for as long as that takes."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve.batches.asking import LineAsker
from serve.batches.gate import Gate, Place
from serve.batches.lines import BatchLine
from serve.rollout.decision.inner import InnerClient
from serve.settings import BatchSettings

_LIMIT = [(b"retry-after-ms", b"5"), (b"retry-after", b"1")]
_BUSY = [(b"retry-after", b"1")]
_NEVER = [(b"x-should-retry", b"false"), (b"retry-after", b"1")]


def _ask(*refusals: list[tuple[bytes, bytes]]) -> tuple[int, int, float]:
    """Ask where so many requests are refused first; return the status, how often was asked, and the pause."""
    left, asked = list(refusals), 0

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        asked += 1
        await receive()
        status, headers = (429, left.pop(0)) if left else (200, [])
        start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": b"{}"})

    async def ask() -> tuple[int, float]:
        settings = BatchSettings(quiet_seconds=0.0)
        place = Place(Gate(settings, lambda: 0, look_seconds=0.001))
        await place.take()
        asker = LineAsker(
            InnerClient(app, None), lambda _: None, backoff_seconds=(0.0, 0.0), clock=lambda: 100.0
        )
        line = BatchLine(place=0, custom_id="a", body=json.dumps({}).encode(), streams=False)
        record = await asker.ask(line, "/v1/chat/completions", "key", 0.0, place)
        return record.status, asker.pause("key")

    status, pause = asyncio.run(ask())
    return status, asked, pause


def test_a_limit_is_waited_for_however_often_it_refuses() -> None:
    status, asked, _ = _ask(*[_LIMIT] * 20)
    assert (status, asked) == (200, 21)


@pytest.mark.parametrize("refusal", [_BUSY, _NEVER])
def test_what_is_no_limit_or_will_never_be_let_in_is_answered_after_the_last_pause(
    refusal: list[tuple[bytes, bytes]],
) -> None:
    assert _ask(*[refusal] * 20) == (429, 3, 0.0)


def test_no_other_line_of_the_key_goes_in_meanwhile() -> None:
    assert _ask([(b"retry-after-ms", b"40")])[2] == pytest.approx(0.04)
    assert _ask(_BUSY)[2] == 0.0
