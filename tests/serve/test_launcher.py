"""The supervisor with real processes and sockets: a fake engine, a kill -9 here and there."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import httpx
import pytest

from registry.errors import Conflict, UsageError
from serve.launcher.holding import Outage, response
from serve.launcher.listener import is_loopback, listen
from serve.launcher.output.logs import reason
from serve.launcher.restarts import Ending, RestartPolicy
from serve.process_group import group_members
from tests.fakes.launched import PATIENCE, launched, wait


class Hammer:
    """Opens connections as fast as it can and counts what came of each."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.seen[self._once()] += 1

    def _once(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                connection.sendall(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                return connection.recv(12).decode() or "closed"
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "reset"


def test_a_killed_engine_comes_back_and_no_connection_is_refused(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        with Hammer(launcher.port) as hammer:
            for times in (2, 3):
                os.kill(launcher.groups()[-1], signal.SIGKILL)
                launcher.wait_for("all is well", times)
            back = hammer.seen["HTTP/1.1 200"]
            wait(lambda: hammer.seen["HTTP/1.1 200"] > back + 50, "the engine answers again")
        assert hammer.seen["refused"] == 0
        assert hammer.seen["HTTP/1.1 503"] > 0
        in_flight_at_two_kills = 2 * 4
        assert hammer.seen["reset"] + hammer.seen["closed"] <= in_flight_at_two_kills
        assert any("killed by SIGKILL" in line for line in launcher.lines)
        assert not group_members(launcher.groups()[0]), "its helper process outlived it"


def test_an_engine_is_told_how_many_ended_before_it(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        assert launcher.get("/restarts").text == "0"
        os.kill(launcher.groups()[-1], signal.SIGKILL)
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/restarts").text == "1"


def test_an_engine_writes_its_log_lines_to_the_launchers_output(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        assert launcher.get("/log").text == "said"
        launcher.wait_for("a line of the engine's")
        os.kill(launcher.groups()[-1], signal.SIGKILL)
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/log").text == "said"
        launcher.wait_for("a line of the engine's", times=2)


def test_while_the_engine_starts_clients_get_503_and_when_to_come_back(tmp_path: Path) -> None:
    with launched(tmp_path, "hang") as launcher:
        launcher.wait_for("starting the engine")
        answer = httpx.post(launcher.url + "/v1/chat/completions", content=b"x" * 3_000_000, timeout=PATIENCE)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        error = answer.json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("server_error", None, "engine_starting")
        assert launcher.get("/livez").status_code == 200
        assert launcher.get("/readyz").status_code == 503


def test_an_engine_that_never_gets_ready_is_a_crash_loop_with_a_reason(tmp_path: Path) -> None:
    with launched(tmp_path, "crash") as launcher:
        assert launcher.process.wait(PATIENCE) == 1
        launcher.wait_for("crash loop, gave up after 3 starts: RuntimeError: out of luck")
        assert len(list(tmp_path.glob("engine-*.log"))) == 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", launcher.port), timeout=1)


def test_a_wrong_configuration_ends_at_once(tmp_path: Path) -> None:
    with launched(tmp_path, "misconfigured") as launcher:
        assert launcher.process.wait(PATIENCE) == 2
        launcher.wait_for("its configuration is wrong: vllm option frobnicate: is unknown")
        assert len(launcher.groups()) == 1


def test_a_start_that_hangs_is_ended_and_tried_again(tmp_path: Path) -> None:
    with launched(tmp_path, "hang,serve", START_TIMEOUT="6") as launcher:
        launcher.wait_for("all is well")
        assert any("was not ready within 6 s" in line for line in launcher.lines)
        assert launcher.get("/").status_code == 200


def test_ready_is_said_when_readyz_says_so(tmp_path: Path) -> None:
    with launched(tmp_path, FAKE_READY_SECONDS="1.0") as launcher:
        launcher.wait_for("starting the engine")
        began = time.monotonic()
        launcher.wait_for("all is well")
        assert time.monotonic() - began > 0.8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_streams_finish_and_newcomers_hear_503(tmp_path: Path, number: int) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        with httpx.stream("GET", launcher.url + "/stream?chunks=20&seconds=0.1", timeout=PATIENCE) as stream:
            chunks = stream.iter_raw()
            received = len(next(chunks))
            launcher.process.send_signal(number)
            launcher.wait_for("draining")
            time.sleep(0.4)
            newcomer = launcher.get("/v1/models")
            assert newcomer.status_code == 503
            assert newcomer.json()["error"]["code"] == "engine_draining"
            assert launcher.get("/livez").status_code == 200
            received += sum(len(chunk) for chunk in chunks)
        assert received == 20
        assert launcher.process.wait(PATIENCE) == 0
        launcher.wait_for("stopped")


def test_a_drain_has_an_end(tmp_path: Path) -> None:
    with launched(tmp_path, DRAIN_SECONDS="0.5") as launcher:
        launcher.wait_for("all is well")
        with httpx.stream("GET", launcher.url + "/stream?chunks=600&seconds=0.1", timeout=PATIENCE) as stream:
            launcher.process.terminate()
            with pytest.raises(httpx.TransportError):
                stream.read()
        assert launcher.process.wait(5) == 0


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with launched(tmp_path, DRAIN_SECONDS="60") as launcher:
        launcher.wait_for("all is well")
        with httpx.stream("GET", launcher.url + "/stream?chunks=600&seconds=0.1", timeout=PATIENCE):
            launcher.process.terminate()
            launcher.wait_for("draining")
            launcher.process.terminate()
            assert launcher.process.wait(5) == 0


def test_a_start_that_takes_long_is_told_of_again_and_again(tmp_path: Path) -> None:
    with launched(tmp_path, "hang", PATIENCE_SECONDS="0.3") as launcher:
        launcher.wait_for("the engine is still starting", times=2)


def test_a_signal_while_starting_ends_the_engine(tmp_path: Path) -> None:
    with launched(tmp_path, "hang") as launcher:
        launcher.wait_for("starting the engine")
        wait(lambda: len(group_members(launcher.groups()[0])) == 2, "engine and helper")
        launcher.process.terminate()
        assert launcher.process.wait(5) == 0
        launcher.wait_for("stopping: the engine was not ready yet")


@pytest.mark.parametrize("mode", ["serve", "hang"])
def test_when_the_supervisor_is_killed_the_engine_ends_itself(tmp_path: Path, mode: str) -> None:
    with launched(tmp_path, mode) as launcher:
        launcher.wait_for("starting the engine")
        group = launcher.groups()[0]
        wait(lambda: len(group_members(group)) == 2, "engine and helper")
        launcher.process.kill()
        wait(lambda: not group_members(group), "the end of the group")


def test_a_taken_port_is_said_before_anything_starts() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(Conflict, match="is taken by another process"):
        listen("127.0.0.1", first.getsockname()[1])


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be bound"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org")),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_what_the_launcher_answers_names_its_request_and_speaks_the_paths_dialect() -> None:
    situation = Outage("restarting", "the engine is restarting", 5)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Request-Id:  mine-1 \r\n\r\n"
    lines, _, content = response(head, situation).partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: mine-1\r\nrequest-id: mine-1" in lines
    found = json.loads(content)
    assert (found["type"], found["error"]["type"]) == ("error", "overloaded_error")
    other = response(b"GET /v1/models HTTP/1.1\r\nx-request-id: a b\r\n\r\n", situation)
    assert re.search(rb"\r\nx-request-id: req_[0-9a-f]{32}\r\n", other)
    assert json.loads(other.partition(b"\r\n\r\n")[2])["error"]["code"] == "engine_restarting"


def test_a_head_request_gets_no_body() -> None:
    answer = response(b"HEAD /readyz HTTP/1.1\r\n\r\n", Outage("starting", "the engine is starting", 5))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"\r\n\r\n")


POLICY = RestartPolicy(first_seconds=1, longest_seconds=4, limit=4, window_seconds=100)


def failures(count: int) -> list[Ending]:
    return [Ending(at=float(number), ready=False) for number in range(count)]


def test_failures_wait_longer_each_time_and_then_give_up() -> None:
    assert [POLICY.delay(failures(count)) for count in (1, 2, 3, 4)] == [1, 2, 4, None]


def test_after_a_ready_start_the_next_one_comes_at_once() -> None:
    assert POLICY.delay([Ending(0, ready=True)]) == 0
    assert POLICY.delay([*failures(3), Ending(1000, ready=True)]) == 0


def test_failures_before_a_ready_start_are_forgiven() -> None:
    assert POLICY.delay([*failures(3), Ending(5, ready=True), Ending(6, ready=False)]) == 1


def test_an_engine_that_dies_after_each_start_loops_too() -> None:
    deaths = [Ending(at=float(number), ready=True) for number in range(8)]
    assert [POLICY.delay(deaths[:count]) for count in range(1, 9)] == [0, 1, 2, 4, 4, 4, 4, None]
    rare = [Ending(at=200.0 * number, ready=True) for number in range(20)]
    assert POLICY.delay(rare) == 0


def test_what_no_restart_mends_is_not_tried_again() -> None:
    assert POLICY.delay([Ending(0, ready=False, incurable=True)]) is None


VLLM_LOG = """\
(APIServer pid=1) INFO 11-22 01:02:28 [launcher.py:186] Available routes are:
(EngineCore pid=2) ERROR 11-22 01:02:28 [core.py:1] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-22 01:02:28 [core.py:1]   File "x.py", line 1, in f
(EngineCore pid=2) ERROR 11-22 01:02:28 [core.py:1] ValueError: Available memory is less than requested
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
nanobind: leaked 4 instances!
 - leaked instance 0x7fb56b574be8
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM_LOG, "ValueError: Available memory is less than requested"),
        (
            "usage: x\nvllm option: error: unrecognized arguments: --frob\n",
            "vllm option: error: unrecognized arguments: --frob",
        ),
        ("hello\nlast words\nnanobind: leaked 4 instances!\n - leaked x\n", "last words"),
        ("", "it said nothing"),
    ],
)
def test_the_reason_is_the_first_error_and_not_its_wrapping(text: str, expected: str) -> None:
    assert reason(text) == expected
