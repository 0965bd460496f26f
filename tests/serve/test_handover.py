"""The line between the engine's process and its supervisor."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from serve.engine import handover
from serve.engine.handover import ChildLine, Handover, Message


@pytest.fixture
def parent() -> Any:
    """The parent's end of a line that this process has opened; it is closed without ending the process."""
    ours, theirs = socket.socketpair()
    line = ChildLine(theirs)
    handover._line = line
    with ours, theirs:
        ours.settimeout(5)
        yield ours
        handover._line = None


async def lifespan(answer: Message, state: Any) -> list[Message]:
    sent: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send(answer)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "lifespan", "app": SimpleNamespace(state=state)}
    await Handover(app)(scope, lambda: asyncio.sleep(0, {}), send)
    await asyncio.sleep(0.6)
    return sent


def test_the_end_of_start_up_is_told_to_the_parent(parent: socket.socket) -> None:
    message = {"type": "lifespan.startup.complete"}
    assert asyncio.run(lifespan(message, SimpleNamespace(server=None))) == [message]
    assert parent.recv(100) == b"started\n"


def test_a_start_up_that_failed_is_told_with_its_reason_on_one_line(parent: socket.socket) -> None:
    message = {"type": "lifespan.startup.failed", "message": "no root:\n  run init"}
    asyncio.run(lifespan(message, SimpleNamespace(server=None)))
    assert parent.recv(100) == b"failed no root: run init\n"
    assert handover._line is not None
    assert handover._line.failed


def test_when_the_engine_dies_its_server_ends_soon(parent: socket.socket) -> None:
    server = SimpleNamespace(should_exit=False, config=SimpleNamespace(timeout_graceful_shutdown=None))
    state = SimpleNamespace(server=server, engine_client=SimpleNamespace(errored=True))
    asyncio.run(lifespan({"type": "lifespan.startup.complete"}, state))
    assert server.should_exit
    assert 0 < server.config.timeout_graceful_shutdown <= 5
    assert parent.recv(100) == b"started\nfailed EngineCore has died\n"


def hung_lifespan(parent: socket.socket, wait_seconds: float) -> Any:
    """Live through a start, a hang and the end; return the server."""
    server = SimpleNamespace(should_exit=False, config=SimpleNamespace(timeout_graceful_shutdown=None))
    state = SimpleNamespace(server=server, engine_client=SimpleNamespace(errored=False))

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        handover.give_up("it has not answered for 30 s")
        await asyncio.sleep(wait_seconds)
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Message) -> None:
        pass

    scope = {"type": "lifespan", "app": SimpleNamespace(state=state)}
    asyncio.run(Handover(app)(scope, lambda: asyncio.sleep(0, {}), send))  # type: ignore[arg-type]
    return server


def test_when_the_engine_hangs_its_server_ends_at_once_and_says_its_last_word(parent: socket.socket) -> None:
    server = hung_lifespan(parent, 0.6)
    assert server.should_exit
    assert 0 < server.config.timeout_graceful_shutdown <= 1
    assert parent.recv(200) == b"started\nhung it has not answered for 30 s\nended\n"


def test_an_orderly_end_needs_no_last_word(parent: socket.socket) -> None:
    message = {"type": "lifespan.shutdown.complete"}
    assert asyncio.run(lifespan(message, SimpleNamespace(server=None))) == [message]
    parent.settimeout(0.1)
    with pytest.raises(TimeoutError):
        parent.recv(100)


def test_a_ping_is_answered_with_how_many_the_loop_has_not_seen(parent: socket.socket) -> None:
    line = handover._line
    assert line is not None
    line._answer_ping()  # nothing runs yet: importing is not a hang

    async def play() -> None:
        line.attach(SimpleNamespace(), asyncio.get_running_loop())
        for _ in range(3):  # the loop is held up meanwhile
            line._answer_ping()
        await asyncio.sleep(0.1)
        line._answer_ping()

    asyncio.run(play())
    line._answer_ping()  # and a loop that is closed is not an error
    assert parent.recv(1000).decode().replace("pong ", "").split() == list("001200")


def test_a_reason_without_end_is_cut(parent: socket.socket) -> None:
    line = handover._line
    assert line is not None
    line.say("failed " + "x" * 10**6 + "\n\ud800")
    assert len(parent.recv(10**6)) < 10_000


def test_requests_pass_without_a_wrapper() -> None:
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    arguments: list[Any] = [{"type": "http"}, object(), object()]
    asyncio.run(Handover(app)(*arguments))  # type: ignore[arg-type]
    assert all(one is other for one, other in zip(seen, arguments, strict=True))


CHILD = """
import sys, time
from serve.engine.handover import open_line
line = open_line(int(sys.argv[1]))
time.sleep(60)
"""


def test_a_process_in_somebody_elses_group_ends_only_itself() -> None:
    """Started by hand it shares the shell's group: the end of the line must not end that."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    time.sleep(0.5)
    ours.close()
    assert process.wait(10) == -9


def test_a_drain_before_the_server_runs_is_a_sigterm() -> None:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    with ours:
        ours.sendall(b"drain 5\n")
        assert process.wait(10) == -15


SPEAKING = CHILD.replace("time.sleep(60)", 'line.say("started")\ntime.sleep(60)')


def test_a_parent_that_is_killed_before_it_reads_takes_the_process_with_it() -> None:
    """What it did not read turns the end of the line into a reset."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAKING, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    ours.settimeout(10)
    assert ours.recv(1, socket.MSG_PEEK) == b"s"
    ours.close()
    assert process.wait(10) == -9
