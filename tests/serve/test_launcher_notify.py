"""What systemd hears of the launcher, over a real socket, and the launcher's lines."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.launcher.notify import ServiceManager
from serve.launcher.output.voice import QUEUE_SIZE, Voice
from tests.fakes.launched import launched, wait


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's end: a datagram socket at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(20)
        yield ear


def test_without_a_service_manager_nothing_is_said() -> None:
    mine = ServiceManager({})
    mine.ready("well")
    mine.alive()
    assert mine.interval_seconds is None


def test_its_words_are_those_of_sd_notify(tmp_path: Path, manager: socket.socket) -> None:
    mine = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"})
    assert mine.interval_seconds == 20
    mine.ready("well")
    mine.alive()
    mine.stopping()
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1\nSTATUS=well", b"WATCHDOG=1", b"STOPPING=1"]


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).alive()


def test_the_launcher_says_that_it_answers_and_that_it_turns(tmp_path: Path, manager: socket.socket) -> None:
    with launched(
        tmp_path / "logs", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000"
    ) as launcher:
        assert manager.recv(100).startswith(b"READY=1")
        heard = {manager.recv(100) for _ in range(5)}
        assert b"WATCHDOG=1" in heard
        launcher.wait_for("all is well")
        launcher.process.terminate()
        while manager.recv(100) != b"STOPPING=1":
            pass


def test_lines_that_nobody_reads_are_counted_and_hold_nobody_up() -> None:
    read, write = os.pipe()
    release = threading.Event()

    def slow(line: str) -> None:
        release.wait(20)
        os.write(write, line.encode())

    voice = Voice(outputs=[slow])
    for number in range(QUEUE_SIZE + 10):
        voice(f"line {number}")
    release.set()
    voice.close(20)
    os.close(write)
    with os.fdopen(read) as reader:
        lines = reader.read().splitlines()
    assert f"line {QUEUE_SIZE - 1}" in lines
    [lost] = [line for line in lines if "were lost" in line]
    assert int(lost.split()[0]) in {8, 9, 10}


def test_a_full_disk_behind_the_output_costs_lines_and_nothing_else() -> None:
    room = [False]
    written: list[str] = []

    def disk(line: str) -> None:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written.append(line)

    voice = Voice(outputs=[disk])
    voice("lost")
    wait(lambda: voice._lost == 1, "it is lost")
    room[0] = True
    voice("told")
    voice.close()
    assert written == ["1 lines were lost: they could not be written\n", "told\n"]


def test_a_line_for_which_one_output_has_no_room_goes_to_the_next() -> None:
    written: list[str] = []

    def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    voice = Voice(outputs=[full, written.append])
    voice("one")
    voice.close()
    assert written == ["one\n"]


def test_a_reader_that_has_gone_sends_the_lines_to_the_next_output() -> None:
    written: list[str] = []

    def gone(_: str) -> None:
        raise BrokenPipeError

    voice = Voice(outputs=[gone, written.append])
    voice("one")
    voice("two")
    voice.close()
    assert written == [
        "the standard output has no reader any more: more follows here\n",
        "one\n",
        "two\n",
    ]


def test_without_any_output_nothing_is_said_and_nothing_raised() -> None:
    voice = Voice(outputs=[])
    voice("one")
    voice.close()
