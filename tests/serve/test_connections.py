"""Limits on connections, over a real uvicorn and real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from serve.connections.census import Census, Wait
from serve.connections.protocol import PIPELINE, LimitedProtocol, limited
from serve.settings import ConnectionLimits
from tests.fakes.http_server import served
from tests.fakes.raw import RawClient, request
from tests.fakes.served import wait_until


@dataclass
class Echo:
    """Answers each request with the size of its body; `/early` before it has come, `/big` with a lot."""

    scopes: list[Scope] = field(default_factory=list)
    left: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/big":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1_000):
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        if scope["path"] not in {"/early", "/big"}:
            size = await self._read(receive)
            if size is None:
                return
            await self._answer(send, b"%d" % size)
        elif scope["path"] == "/early":
            await self._answer(send, b"early")

    async def _read(self, receive: Receive) -> int | None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return None
            size, more = size + len(message["body"]), message["more_body"]
        return size

    async def _answer(self, send: Send, body: bytes) -> None:
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@dataclass
class Server:
    """A running server with limits of its own."""

    app: Echo
    protocol: type[LimitedProtocol]
    port: int

    @property
    def census(self) -> Census:
        return self.protocol.census

    def client(self, **options: Any) -> RawClient:
        return RawClient(self.port, **options)


@contextmanager
def server(**limits: Any) -> Iterator[Server]:
    protocol = limited(ConnectionLimits(**limits))
    app = Echo()
    with served(app, http=protocol) as url:
        yield Server(app, protocol, int(url.rpartition(":")[2]))


def test_requests_on_one_connection_are_answered_and_it_waits_for_the_next() -> None:
    with server() as one, one.client() as client:
        assert client.ask("GET", "/").body == b"0"
        assert client.ask("POST", "/", body=b"x" * 300_000).body == b"300000"
        wait_until(lambda: one.census.waits[Wait.IDLE], "it is idle")
        assert one.census.open == 1
    wait_until(lambda: not one.census.open, "it is gone")
    assert not any(one.census.waits.values())


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 5_000_000, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 17 + b"host: localhost\r\n\r\n", 431, "head_too_large"),
        (b"GET /" + b"a" * 5_000_000, 414, "target_too_long"),
        (b"\r\n" * 2_000_000, 431, "head_too_large"),
        (b"HELLO\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "malformed_request"),
    ],
)
def test_a_head_without_end_is_refused_at_its_limit(data: bytes, status: int, code: str) -> None:
    with server(head_bytes=4096, head_lines=16) as one, one.client() as client:
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer.error()["code"]) == (status, code)
        assert answer.headers["connection"] == "close"
        assert client.is_closed()
        assert one.census.refused[code] == 1
    assert one.app.scopes == []


def test_a_head_of_just_the_limit_is_served_however_it_is_cut() -> None:
    filler = 4096 - len(request("GET", "/", ["x: "]))
    whole = request("GET", "/", ["x: " + "a" * filler])
    assert len(whole) == 4096
    with server(head_bytes=4096) as one:
        for pieces in (1, 2, 5):
            with one.client() as client:
                step = len(whole) // pieces + 1
                for begin in range(0, len(whole), step):
                    client.send(whole[begin : begin + step])
                    time.sleep(0.002)
                assert client.answer().status == 200
        with one.client() as client:
            client.send(whole.replace(b"x: ", b"x: a", 1))
            assert client.answer().status == 431


def test_a_second_head_has_the_same_limits_as_the_first() -> None:
    with server(head_bytes=4096) as one, one.client() as client:
        assert client.ask("POST", "/", body=b"x" * 9_000).body == b"9000"
        client.send(b"GET / HTTP/1.1\r\nx: " + b"a" * 9_000)
        assert client.answer().status == 431


def test_a_chunked_body_that_is_nearly_all_framing_is_refused() -> None:
    head = request("POST", "/", ["transfer-encoding: chunked"])
    trailers = b"1\r\na\r\n0\r\n" + b"x: y\r\n" * 2_000_000
    extensions = b"1;" + b"e" * 9_000_000
    for body in (trailers, extensions):
        with server(head_bytes=4096) as one, one.client() as client:
            client.send(head + body)
            assert client.answer().error()["code"] == "head_too_large"
            wait_until(lambda one=one: one.app.left == 1, "its request has ended")  # type: ignore[misc]
    with server(head_bytes=4096) as one, one.client() as client:
        client.send(head + b"1\r\na\r\n" * 50_000 + b"0\r\nx-trailer: y\r\n\r\n")
        assert client.answer().body == b"50000"
        assert (b"x-trailer", b"y") not in one.app.scopes[0]["headers"]


def test_what_never_sends_a_whole_head_is_closed() -> None:
    with server(head_seconds=0.05) as one, one.client() as silent, one.client() as half:
        half.send(b"GET / HTTP/1.1\r\nhost: local")
        answer = half.answer()
        assert (answer.status, answer.error()["code"]) == (408, "request_timeout")
        assert half.is_closed()
        assert silent.is_closed()
        assert one.census.ended[Wait.HEAD] == 2


def test_bytes_that_come_one_by_one_buy_a_head_no_time() -> None:
    with server(head_seconds=0.05) as one, one.client() as client:
        client.send(b"GET / HTTP/1.1\r\nx: ")
        while not one.census.ended[Wait.HEAD]:
            client.send(b"a")
        assert client.answer().status == 408


def test_a_connection_without_a_next_request_is_closed() -> None:
    with server(idle_seconds=0.05) as one, one.client() as client:
        assert client.ask("GET", "/").status == 200
        assert client.is_closed()
        assert one.census.ended[Wait.IDLE] == 1


def test_a_body_that_goes_on_after_its_answer_is_not_read_for_ever() -> None:
    with server() as one, one.client() as client:
        client.send(request("POST", "/early", ["content-length: 1000000000"]))
        assert client.answer().body == b"early"
        wait_until(lambda: one.census.waits[Wait.LEFTOVER], "its rest is waited for")
        connection = next(iter(one.census.waits[Wait.LEFTOVER]))
        assert isinstance(connection, LimitedProtocol)
        connection.loop.call_soon_threadsafe(connection.expire, Wait.LEFTOVER)
        assert client.is_closed()
    with server() as one, one.client() as client:
        client.send(request("POST", "/early", ["content-length: 3"]) + b"ab")
        assert client.answer().body == b"early"
        client.send(b"c")
        assert client.ask("GET", "/").body == b"0"


def test_a_client_that_takes_nothing_of_its_answer_is_closed() -> None:
    with server(write_seconds=0.05) as one, one.client() as client:
        client.send(request("GET", "/big"))
        wait_until(lambda: one.census.ended[Wait.WRITE], "it is given up")
        wait_until(lambda: not one.census.open, "it is gone")


def test_requests_that_wait_on_one_connection_are_few() -> None:
    with server() as one, one.client() as client:
        client.send(request("GET", "/") * (PIPELINE + 1))
        assert [client.answer().status for _ in range(PIPELINE + 1)] == [200] * (PIPELINE + 1)
        client.send(request("GET", "/") * 1000)
        assert client.is_closed()
        assert len(one.app.scopes) < 3 * PIPELINE


def test_an_absolute_target_names_the_host_whatever_the_header_says() -> None:
    with server() as one, one.client() as client:
        client.send(b"GET http://evil.example:81/a?b HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert client.answer().status == 200
        (scope,) = one.app.scopes
        assert scope["raw_path"] == b"/a"
        assert [value for name, value in scope["headers"] if name == b"host"] == [b"evil.example:81"]


def test_two_hosts_are_refused_before_anybody_believes_one() -> None:
    with server() as one, one.client() as client:
        client.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nHost: evil.example\r\n\r\n")
        assert client.answer().status == 400
        assert one.app.scopes == []


def test_a_websocket_is_refused_and_another_upgrade_is_overlooked() -> None:
    upgrade = ["connection: upgrade", "sec-websocket-key: x", "sec-websocket-version: 13"]
    with server() as one, one.client() as client:
        answer = client.ask("GET", "/", [*upgrade, "upgrade: websocket"])
        assert (answer.status, answer.error()["code"]) == (403, "upgrade_refused")
    with server() as one, one.client() as client:
        answer = client.ask("GET", "/", ["connection: upgrade", "upgrade: h2c"])
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()


def test_a_connection_beyond_the_limit_takes_the_place_of_one_that_nobody_uses() -> None:
    with server(total=16) as one, ExitStack() as stack:
        idle = [stack.enter_context(one.client()) for _ in range(16)]
        for client in idle:
            assert client.ask("GET", "/").status == 200
        wait_until(lambda: len(one.census.waits[Wait.IDLE]) == 16, "all are idle")
        late = stack.enter_context(one.client())
        assert late.ask("GET", "/").status == 200
        assert idle[0].is_closed()
        assert one.census.open == 16


def test_a_connection_beyond_those_at_work_is_told_so_and_the_server_recovers() -> None:
    with server(total=16) as one, ExitStack() as stack:
        busy = [stack.enter_context(one.client()) for _ in range(16)]
        for client in busy:
            client.send(request("POST", "/", ["content-length: 2"]) + b"a")
        wait_until(lambda: len(one.app.scopes) == 16, "all are at work")
        with one.client() as late:
            answer = late.answer()
            assert (answer.status, answer.error()["code"]) == (503, "too_many_connections")
            assert answer.headers["retry-after"] == "1"
            assert late.is_closed()
        assert one.census.refused["too_many_connections"] == 1
        busy[0].send(b"b")
        assert busy[0].answer().body == b"2"
        with one.client() as next_one:
            assert next_one.ask("GET", "/").status == 200
        assert busy[0].is_closed()


def test_one_address_has_fewer_places_than_all_together_unless_it_is_a_trusted_proxy() -> None:
    def open_four(one: Server) -> int:
        with ExitStack() as stack:
            for number in range(4):
                client = stack.enter_context(one.client())
                client.send(request("POST", "/", ["content-length: 2"]) + b"a")
                wait_until(lambda n=number: len(one.app.scopes) + one.census.refused.total() > n, "seen")  # type: ignore[misc]
            other = stack.enter_context(one.client(source="127.0.0.2"))
            assert other.ask("GET", "/").status == 200
        return one.census.refused["too_many_connections"]

    with server(per_address=3) as limited_one:
        assert open_four(limited_one) == 1
    with server(per_address=3, trusted_proxies=["127.0.0.1/32"]) as trusting:
        assert open_four(trusting) == 0


def test_a_proxy_on_this_machine_is_believed_about_its_client_and_others_are_their_own() -> None:
    told = ["X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"]
    with server() as one, one.client() as client:
        assert client.ask("GET", "/", told).status == 200
        assert client.ask("GET", "/", told[1:]).status == 200
        assert client.ask("GET", "/").status == 200
    seen = [(scope["client"][0], scope["scheme"]) for scope in one.app.scopes]
    assert seen == [("203.0.113.7", "https"), ("127.0.0.1", "https"), ("127.0.0.1", "http")]
