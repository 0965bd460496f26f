from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from registry.tuning.liveness import Owner, is_alive, this_process


def test_a_process_is_alive_by_its_start_and_one_elsewhere_by_its_silence() -> None:
    mine = this_process()
    assert is_alive(mine, 1e9, 60)
    assert not is_alive(replace(mine, started="1"), 0.0, 60)
    elsewhere = Owner(host="another machine", pid=mine.pid, started=mine.started)
    assert is_alive(elsewhere, 5.0, 60)
    assert not is_alive(elsewhere, 5.0, 4)
    assert not is_alive(elsewhere, 300.0, 60)


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not is_alive(replace(this_process(), pid=process.pid, started="1"), 0.0, 60)
    process.wait()
