"""A Ctrl-C while an example runs a command."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.examples.session import run

STUBBORN = """
import signal, sys, time
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append("int"))
signal.signal(signal.SIGTERM, lambda *_: heard.append("term"))
open(sys.argv[1], "w").close()
while not heard:
    time.sleep(0.01)
time.sleep(0.3)  # behind its step
open(sys.argv[1], "w").write(" ".join(heard))
"""


def test_a_command_hears_of_a_ctrl_c_once_and_is_waited_for(
    tmp_path: Path,
) -> None:
    heard = tmp_path / "heard"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        while not heard.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(sys.executable, "-c", STUBBORN, heard)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard.read_text() == "int"
