"""What the processes of test_fork_server.py run: the fork server imports it, and others take it by name."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from serve.engine import fork_server, lifetime

if "BEFORE" in os.environ:  # in the fork server, which has the variables of its start
    fork_server.keep_one()


def first(path: str) -> None:
    """Say who this is, and have the fork server start the second."""
    lifetime.install()
    _say(path)
    os.environ["AFTER"] = "set by the first"
    process = fork_server.EngineProcessContext().Process(target=second, args=(path,))
    process.start()
    process.join()
    sys.exit(process.exitcode)


def second(path: str) -> None:
    """Say who this is, and end or stay."""
    lifetime.install()
    _say(path)
    time.sleep(0 if os.environ["ACT"] == "end" else 120)
    sys.exit(3)


def _say(path: str) -> None:
    fields = (
        os.getpid(),
        os.getppid(),
        os.environ["AFTER"],
        os.environ.get("BEFORE", ""),
        "vllm" in sys.modules,
    )
    with Path(path).open("a") as file:
        file.write(",".join(map(str, fields)) + "\n")
