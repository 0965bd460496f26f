"""The engine's process as the launcher starts it, with the benchmarks' switch in the router's place."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from registry import Registry
from registry.foreign import python
from serve.engine.args import engine_arguments
from serve.engine.environment import engine_environment
from serve.settings import load_settings

MIDDLEWARE = "loadtests.bench.switch.Switch"
START_SECONDS = 300.0


@contextmanager
def running_engine(
    root: Path,
    log: Path,
    options: Sequence[str] = (),
    *,
    compiled: str = "off",
    middleware: str = MIDDLEWARE,
) -> Iterator[str]:
    """Start an engine on `root`, yield its address once it takes requests, and end it.

    `compiled` is the setting `engine.compile`, `middleware` the ASGI class in the router's place.

    Raises: RuntimeError: it ended, or said `failed`, instead of starting.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    registry = Registry.open(root)
    settings = load_settings({"root": root, "port": port, "engine": {"compile": compiled}})
    arguments = engine_arguments(settings, registry.base, registry.limits, extra=options)
    ours, theirs = socket.socketpair()
    command = [
        *python("-m", "serve.engine.child"),
        *("--fd", str(listener.fileno()), "--line", str(theirs.fileno())),
        *("--middleware", middleware, "--owned", json.dumps(arguments.owned), "--", *arguments.argv),
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=engine_environment(settings, os.environ),
            pass_fds=(listener.fileno(), theirs.fileno()),
            start_new_session=True,
        )
    theirs.close()
    try:
        ours.settimeout(START_SECONDS)
        word = ours.makefile().readline().strip()
        if word != "started":
            raise RuntimeError(f"the engine did not start ({word or 'it ended'}); see {log}")
        yield f"http://127.0.0.1:{port}"
    finally:
        ours.close()  # the child ends itself and its group when its line is gone
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        listener.close()
