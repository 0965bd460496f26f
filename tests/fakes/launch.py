"""The supervisor over fake engines, in a process of its own: `python -m tests.fakes.launch LOGS [MODES]`.

It prints its port first. MODES are the child's modes, one per start, the last one for ever after; a
file `mode` in LOGS overrides them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from serve.launcher.listener import listen
from serve.launcher.restarts import RestartPolicy
from serve.launcher.supervisor import Plan, Supervisor


def main() -> int:
    """Run it and return its exit code."""
    logs = Path(sys.argv[1])
    modes = (sys.argv[2] if len(sys.argv) > 2 else "serve").split(",")
    listener = listen("127.0.0.1", 0)
    say(f"port {listener.getsockname()[1]}")

    def command(fd: int, line: int) -> list[str]:
        mode = modes.pop(0) if len(modes) > 1 else modes[0]
        child = [sys.executable, "-m", "tests.fakes.child", "--fd", str(fd), "--line", str(line)]
        return [*child, "--mode", mode]

    plan = Plan(
        command=command,
        environment=dict(os.environ),
        logs=logs,
        start_timeout_seconds=float(os.environ.get("START_TIMEOUT", "20")),
        drain_seconds=float(os.environ.get("DRAIN_SECONDS", "5")),
        say=say,
        describe_ready=lambda: "all is well",
        output=os.dup(sys.stdout.fileno()),
        policy=RestartPolicy(first_seconds=0.05, longest_seconds=0.2, limit=3),
    )
    with listener:
        return asyncio.run(Supervisor(listener, plan).run())


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
