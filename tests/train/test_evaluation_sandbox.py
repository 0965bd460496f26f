"""The sandbox holds a grader short, and says what happened."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.evaluation.formats.specs import SandboxLimits
from train.evaluation.grading.sandbox import call_grade, network_cut, run_program

SHORT = SandboxLimits(timeout_seconds=3, memory_mb=256)


def grade(body: str) -> tuple[float | None, str]:
    source = "def grade(sample, item):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    outcome = call_grade(source, {"output_text": "x"}, {}, SHORT)
    return outcome.value, outcome.reason


def test_a_value_comes_back_and_printing_does_no_harm() -> None:
    assert grade("print('hello')\nreturn 0.25") == (0.25, "")
    assert grade("import sys\nsys.stderr.write('noise without an end')\nreturn 1") == (1.0, "")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return undefined", "NameError"),
        ("return float('nan')", "NaN"),
        ("x = bytearray(2 ** 30)\nreturn 1", "MemoryError"),
        ("open('f', 'wb').write(b'x' * 20_000_000)\nreturn 1", "File too large"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1_000_000)", "standard error"),
        ("import os\nos._exit(0)", "ended with code 0"),
        ("return 'high'", "could not convert"),
    ],
)
def test_a_grader_that_fails_has_no_value_but_a_reason(body: str, reason: str) -> None:
    value, found = grade(body)
    assert value is None
    assert reason in found


def test_one_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    source = (
        "import subprocess, sys, time\n"
        f"late = 'import time; time.sleep(2); open({str(mark)!r}, chr(119))'\n"
        "subprocess.Popen([sys.executable, '-c', late])\n"
        "time.sleep(60)\n"
    )
    started = time.monotonic()
    outcome = run_program(source, SandboxLimits(timeout_seconds=1))
    assert outcome.value is None
    assert time.monotonic() - started < 10
    time.sleep(2)
    assert not mark.exists()


def test_the_environment_and_the_folder_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROBE_KEY", "secret")
    assert grade("import os\nreturn float('WARDROBE_KEY' not in os.environ)") == (1.0, "")
    assert grade(f"import os\nreturn float(os.getcwd() != {str(Path.cwd())!r})") == (1.0, "")
    value, reason = grade("import numpy\nreturn 1")
    assert value is None
    assert "No module named" in reason


@pytest.mark.skipif(not network_cut(), reason="this kernel gives out no user namespaces")
def test_there_is_no_network() -> None:
    value, reason = grade("import socket\nsocket.create_connection(('127.0.0.1', 1), 1)\nreturn 1")
    assert value is None
    assert "unreachable" in reason.lower()


@pytest.mark.skipif(not network_cut(), reason="this kernel gives out no user namespaces")
def test_a_process_with_a_session_of_its_own_does_not_outlive_the_grader(tmp_path: Path) -> None:
    held = tmp_path / "held"  # open as long as one of the grader's processes lives
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    body = (
        f"import os, time\nos.open({str(held)!r}, os.O_WRONLY)\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nreturn 0.5"
    )
    assert grade(body) == (0.5, "")
    assert is_let_go(reader)


@pytest.mark.skipif(not network_cut(), reason="this kernel gives out no user namespaces")
def test_a_grader_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    source = f"import os, time\nos.write(os.open({str(held)!r}, os.O_WRONLY), b'begun')\ntime.sleep(60)\n"
    asking = (
        "import sys\nfrom train.evaluation.formats.specs import SandboxLimits\n"
        "from train.evaluation.grading.sandbox import run_program\n"
        "run_program(sys.argv[1], SandboxLimits(timeout_seconds=50))\n"
    )
    with subprocess.Popen([sys.executable, "-c", asking, source]) as asks:
        reader = os.open(held, os.O_RDONLY)
        assert os.read(reader, 5) == b"begun"
        asks.kill()
    assert is_let_go(reader)


def is_let_go(reader: int) -> bool:
    """Wait until nobody has the other end of a pipe open any more, 10 s at most."""
    ready, _, _ = select.select([reader], [], [], 10)
    with os.fdopen(reader, "rb") as pipe:
        return bool(ready) and pipe.read(1) == b""
