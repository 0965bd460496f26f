"""Run a command that must not outlive its owner: `python -P parent_death.py COMMAND…`.

The owner keeps the other end of our standard input open and never writes to it. When it ends, however it
ends (a `kill -9` of a Ray worker included), the input ends, and the command is told to stop with SIGTERM.
SIGTERM and SIGINT to us go on to the command. The exit code is the command's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType


def main(command: list[str]) -> int:
    """Run `command` and return its exit code, 128 + the number of the signal that ended it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def pass_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    threading.Thread(target=_stop_at_end_of_input, args=(process,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _stop_at_end_of_input(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    process.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
