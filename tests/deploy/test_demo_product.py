"""The demo's commands, and a Ctrl-C while one runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.demo.product import Product

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


class Slow(Product):
    """Runs a program that notes the signals that it hears."""

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-c", STUBBORN, *map(str, arguments)]


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
            Slow(tmp_path).run(heard)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard.read_text() == "int"
