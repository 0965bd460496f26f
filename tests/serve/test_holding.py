"""What the launcher's own answering socket bears: nothing that is sent to it can be its end."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from serve.connections.census import Wait
from serve.launcher.holding import Holding
from serve.launcher.listener import listen
from serve.settings import ConnectionLimits
from tests.fakes.raw import RawClient, request
from tests.fakes.served import wait_until


@contextmanager
def holding(**limits: Any) -> Iterator[tuple[Holding, int]]:
    """Hold a port in a thread until the block ends."""
    loop = asyncio.new_event_loop()
    with listen("127.0.0.1", 0) as listener:
        held = Holding(listener, ConnectionLimits(**limits))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(held.start(), loop).result(10)
        try:
            yield held, listener.getsockname()[1]
            wait_until(lambda: not held.census.open, "everybody has gone")
        finally:
            loop.call_soon_threadsafe(held.stop)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


def test_a_request_is_answered_however_its_head_is_cut() -> None:
    whole = request("GET", "/v1/models")
    with holding() as (_, port):
        for step in (1, 7, len(whole)):
            with RawClient(port) as client:
                for begin in range(0, len(whole), step):
                    client.send(whole[begin : begin + step])
                answer = client.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "5")
                assert answer.error()["code"] == "engine_starting"
                assert client.is_closed()


def test_a_head_without_end_is_refused_and_not_kept() -> None:
    with holding(head_bytes=4096) as (held, port), RawClient(port) as client:
        client.send(b"GET / HTTP/1.1\r\nx: " + b"a" * 5_000_000)
        assert client.answer().error()["code"] == "head_too_large"
        (waiting,) = held.census.waits[Wait.CLOSING]
        assert not vars(waiting)["_head"]


def test_what_never_sends_a_whole_head_is_closed() -> None:
    with holding(head_seconds=0.05) as (_, port), RawClient(port) as silent, RawClient(port) as half:
        half.send(b"GET / HTTP/1.1\r\nhost:")
        assert half.answer().status == 408
        assert silent.is_closed()


def test_connections_beyond_the_limit_take_the_places_of_those_that_send_nothing() -> None:
    with holding(total=16) as (held, port), ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(RawClient(port))
        wait_until(lambda: held.census.ended[Wait.HEAD] == 24, "only so many are held")
        with RawClient(port) as client:
            assert client.ask("GET", "/livez").status == 200
        assert held.census.open <= 16


def test_it_goes_on_when_descriptors_had_run_out() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with holding() as (held, port), ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())), hard))
        # The listing's own descriptor is free again: for this client, and for nobody who would be accepted.
        client = RawClient(port)
        client.send(request("GET", "/livez"))
        wait_until(lambda: _waits_for_descriptors(held), "it has run out")
        stack.close()
        assert client.answer().status == 200
        client.socket.close()


def _waits_for_descriptors(held: Holding) -> bool:
    acceptor = vars(held)["_acceptor"]
    return acceptor is not None and vars(acceptor)["_retry"] is not None
