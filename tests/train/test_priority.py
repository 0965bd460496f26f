"""A process that steps back takes only what nobody else wants, and puts nobody else of its session last."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.process.priority import IDLE

AUTOGROUP = Path("/proc/self/autogroup")
PROGRAM = """
import os
from pathlib import Path
from train.process.priority import step_back_if_asked
step_back_if_asked()
group = Path("/proc/self/autogroup")
print(os.sched_getscheduler(0), os.nice(0), *(group.read_text().split()[-1:] if group.exists() else []))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these classes are Linux's own")


def group_niceness() -> list[str]:
    """How nice the group of this session is: empty where the system has none, or none for this one."""
    return AUTOGROUP.read_text().split()[-1:] if AUTOGROUP.exists() else []


def told(*, asked: bool, session: bool) -> list[str]:
    environment = {**os.environ, IDLE: "1" if asked else "0"}
    command = [sys.executable, "-P", "-c", PROGRAM]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, start_new_session=session
    )
    return done.stdout.split()


def test_who_is_asked_to_steps_back_with_its_own_session() -> None:
    policy, nice, *group = told(asked=True, session=True)
    assert (int(policy), nice) == (os.SCHED_IDLE, "19")
    assert group in (["19"], [])
    assert group or not group_niceness()


def test_the_session_of_others_is_left_as_it_is() -> None:
    before = group_niceness()
    assert told(asked=True, session=False)[2:] == before


def test_who_is_not_asked_stays_as_it_is() -> None:
    policy, nice, *_ = told(asked=False, session=True)
    assert (int(policy), int(nice)) == (os.sched_getscheduler(0), os.nice(0))
