"""The supervisor over fake engines, in a process of its own: `python -m tests.fakes.launch LOGS [MODES]`.

It writes its port to PORT_FILE, and beats in the root ROOT where there is one, as REPLICA. MODES are the
child's modes, one per start, the last one for ever after. Where COMPILING names a cache, a compilation that
never ends runs beside a ready engine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path

from registry.store import Registry
from serve.launcher.child import following
from serve.launcher.compiling import BackgroundCompiler, CompilingOptions
from serve.launcher.listener import listen
from serve.launcher.output.voice import Voice, open_standard_descriptors
from serve.launcher.presence import Presence
from serve.launcher.restarts import RestartPolicy
from serve.launcher.supervisor import Supervisor, SupervisorOptions


def main() -> int:
    """Run it and return its exit code."""
    open_standard_descriptors()
    logs = Path(sys.argv[1])
    modes = (sys.argv[2] if len(sys.argv) > 2 else "serve").split(",")
    listener = listen("127.0.0.1", int(os.environ.get("FAKE_PORT", "0")))
    say = Voice()
    say(f"port {listener.getsockname()[1]}")
    Path(os.environ["PORT_FILE"]).write_text(str(listener.getsockname()[1]))

    def command(fd: int, line: int) -> list[str]:
        mode = modes.pop(0) if len(modes) > 1 else modes[0]
        program = os.environ.get("PROGRAM", sys.executable)
        return [
            *(program, "-m", "tests.fakes.child"),
            *("--fd", str(fd), "--line", str(line), "--mode", mode),
        ]

    following.PATIENCE_SECONDS = float(os.environ.get("PATIENCE_SECONDS", "30"))
    presence = None
    if root := os.environ.get("ROOT"):
        presence = Presence(
            Registry.open(Path(root)), os.environ["REPLICA"], "http://x", secrets.token_hex(8)
        )
    plan = SupervisorOptions(
        command=command,
        environment=dict(os.environ),
        log_folders=(
            lambda: logs,
            *((lambda: Path(other),) if (other := os.environ.get("OTHER_LOGS")) else ()),
        ),
        start_timeout_seconds=float(os.environ.get("START_TIMEOUT", "20")),
        drain_seconds=float(os.environ.get("DRAIN_SECONDS", "5")),
        hang_seconds=float(os.environ.get("HANG_SECONDS", "0")),
        say=say,
        describe_ready=lambda: "all is well",
        presence=presence,
        output=os.dup(sys.stdout.fileno()),
        compiler=_compiler(Path(cache), say) if (cache := os.environ.get("COMPILING")) else None,
        policy=RestartPolicy(first_seconds=0.05, longest_seconds=0.2, limit=3),
    )
    with listener:
        code = asyncio.run(Supervisor(listener, plan).run())
    say.close()
    return code


def _compiler(cache: Path, say: Voice) -> BackgroundCompiler:
    def making(line: int, note: Path) -> list[str]:
        command = [sys.executable, "-m", "tests.fakes.making"]
        return [*command, "--line", str(line), "--note", str(note), "hang"]

    options = CompilingOptions(
        making=making,
        argv=(),
        fingerprint="sha256:0",
        environment={**os.environ, "VLLM_CACHE_ROOT": str(cache)},
        lasting=cache,
        log_folders=[lambda: cache / "logs"],
        memory_bytes=0,
    )
    compiler = BackgroundCompiler(options, say)
    compiler.choose({})
    return compiler


if __name__ == "__main__":
    sys.exit(main())
