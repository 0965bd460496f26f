"""vLLM's helper processes die with their parent, under the launcher only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve.engine.environment import SUPERVISED_VARIABLE
from serve.process_group import group_members

# A leader starts a helper, which installs after DELAY seconds, says so, and sleeps.
HELPER = """
import sys, time
from serve.engine import lifetime
time.sleep(float(sys.argv[1]))
lifetime.install()
open(sys.argv[2], "w").close()
time.sleep(60)
"""
LEADER = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]]).wait()"


def start(marker: Path, delay: float, supervised: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", LEADER, "-c", HELPER, str(delay), str(marker)]
    environment = {**os.environ, SUPERVISED_VARIABLE: supervised}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def wait_until_alone(group: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while group_members(group) and time.monotonic() < end:
        time.sleep(0.05)
    return not group_members(group)


@pytest.mark.parametrize("delay", [0.0, 1.5])
def test_a_helper_dies_with_its_parent_also_when_that_died_first(tmp_path: Path, delay: float) -> None:
    leader = start(tmp_path / "marker", delay, "1")
    end = time.monotonic() + 20
    while time.monotonic() < end and not (
        (tmp_path / "marker").exists() if delay == 0 else len(group_members(leader.pid)) == 2
    ):
        time.sleep(0.02)
    leader.kill()
    leader.wait()
    assert wait_until_alone(leader.pid, 10)
    assert (tmp_path / "marker").exists() is (delay == 0)


def test_without_the_launcher_nothing_is_tied(tmp_path: Path) -> None:
    leader = start(tmp_path / "marker", 0.0, "0")
    end = time.monotonic() + 20
    while time.monotonic() < end and not (tmp_path / "marker").exists():
        time.sleep(0.02)
    leader.kill()
    leader.wait()
    assert not wait_until_alone(leader.pid, 0.5)
    os.killpg(leader.pid, signal.SIGKILL)
    assert wait_until_alone(leader.pid, 10)
