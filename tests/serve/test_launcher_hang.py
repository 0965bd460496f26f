"""A child that hangs is told of, ended and started again: real processes, a fake engine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx

from serve.launcher.child.pulse import ChildPulse
from tests.fakes.launched import launched, wait

HANG = "1.5"


def test_a_stopped_api_server_is_ended_and_started_again_and_clients_hear_503(tmp_path: Path) -> None:
    with launched(tmp_path, FAKE_READY_SECONDS="0.5", HANG_SECONDS=HANG) as launcher:
        launcher.wait_for("all is well")
        os.kill(launcher.groups()[0], signal.SIGSTOP)
        wait(lambda: launcher.status("/readyz") == 503, "a 503")
        told = launcher.get("/readyz").json()
        assert told == {"status": "not ready", "state": "restarting", "reasons": ["the engine has hung"]}
        assert launcher.get("/livez").status_code == 200
        launcher.wait_for("the engine hung: the API server has not answered for 1.5 s")
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/hangs").text == "1"
        assert launcher.get("/restarts").text == "1"


def test_an_event_loop_that_turns_no_more_is_a_hang_though_the_process_answers(tmp_path: Path) -> None:
    with launched(tmp_path, HANG_SECONDS=HANG) as launcher:
        launcher.wait_for("all is well")
        launcher.status("/block")
        launcher.wait_for("the engine hung: the API server's event loop has been blocked for 1.5 s")
        launcher.wait_for("all is well", times=2)


def test_an_engine_that_is_given_up_ends_its_server_and_is_counted(tmp_path: Path) -> None:
    with launched(tmp_path) as launcher:
        launcher.wait_for("all is well")
        began = time.monotonic()
        assert launcher.get("/hang").text == "it hangs"
        launcher.wait_for("the engine hung: its engine was told to")
        launcher.wait_for("all is well", times=2)
        assert time.monotonic() - began < 8, "its last word is the end"
        assert launcher.get("/hangs").text == "1"


def test_a_death_is_no_hang(tmp_path: Path) -> None:
    with launched(tmp_path, HANG_SECONDS="20") as launcher:
        launcher.wait_for("all is well")
        launcher.status("/crash")
        launcher.wait_for("all is well", times=2)
        assert launcher.get("/hangs").text == "0"


def test_a_quiet_server_is_not_taken_for_a_hung_one(tmp_path: Path) -> None:
    with launched(tmp_path, HANG_SECONDS=HANG) as launcher:
        launcher.wait_for("all is well")
        time.sleep(2.0)
        with httpx.stream("GET", launcher.url + "/stream?chunks=8&seconds=0.1", timeout=20) as stream:
            assert len(stream.read()) == 8
        assert len(launcher.groups()) == 1


def test_without_a_limit_nobody_asks(tmp_path: Path) -> None:
    with launched(tmp_path, HANG_SECONDS="0") as launcher:
        launcher.wait_for("all is well")
        os.kill(launcher.groups()[0], signal.SIGSTOP)
        try:
            time.sleep(1.0)
            assert len(launcher.groups()) == 1
            assert launcher.status("/readyz") == 0
        finally:
            os.kill(launcher.groups()[0], signal.SIGCONT)


def test_a_launcher_and_a_child_that_were_frozen_together_go_on(tmp_path: Path) -> None:
    """A suspended container: the time is gone for both."""
    with launched(tmp_path, HANG_SECONDS=HANG) as launcher:
        launcher.wait_for("all is well")
        frozen = [launcher.process.pid, launcher.groups()[0]]
        for process in frozen:
            os.kill(process, signal.SIGSTOP)
        time.sleep(2.5)
        for process in frozen:
            os.kill(process, signal.SIGCONT)
        time.sleep(0.3)
        assert launcher.get("/").status_code == 200
        assert len(launcher.groups()) == 1


def test_looks_are_counted_and_not_seconds() -> None:
    pulse = ChildPulse(10)
    assert pulse.look_seconds == 1
    assert [bool(pulse.look(0, 0)) for _ in range(10)] == [False] * 9 + [True]
    assert ChildPulse(0.5).look_seconds == 0.1


def test_an_answer_ends_the_silence() -> None:
    pulse = ChildPulse(5)
    seen = [pulse.look(pongs, 0) for pongs in (0, 0, 0, 0, 1, 1, 1, 1, 1, 2)]
    assert seen == [""] * 10


def test_pings_that_the_loop_has_not_seen_are_a_hang_once_they_are_many() -> None:
    pulse = ChildPulse(5)
    assert [bool(pulse.look(number, number)) for number in range(1, 6)] == [False] * 4 + [True]


def test_a_child_that_a_debugger_held_begins_anew() -> None:
    pulse = ChildPulse(10)
    assert any(pulse.look(0, 0) for _ in range(10))
    pulse.forgive()
    assert not any(pulse.look(0, 0) for _ in range(9))
