"""Wardrobe as its user meets it: the `wardrobe` command in sub-processes, and one server.

Owns the processes that it starts: whatever happens, `DemoServer.stop` leaves none behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from registry.errors import WardrobeError

START_SECONDS = 300.0
_COMMAND = Path(sys.executable).parent / "wardrobe"


@dataclass(frozen=True, slots=True)
class Product:
    """The command line on one root."""

    root: Path

    def run(self, *arguments: str | Path) -> str:
        """Run one command and return what it printed; its progress and errors go to our stderr.

        Raises: WardrobeError: when it fails.
        """
        # Its own standard input, so that a command can never wait for somebody at the keyboard; its own
        # group, so that it hears of a Ctrl-C once and from us: a training takes the second one as "at once".
        command = self.command(*arguments)
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, process_group=0
        ) as process:
            try:
                printed, _ = process.communicate()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait()  # a training writes a checkpoint behind its step, and goes on from there
                except KeyboardInterrupt:
                    process.terminate()
                raise
        if process.returncode != 0:
            words = " ".join(map(str, arguments))
            raise WardrobeError(f"wardrobe {words}", f"ended with exit code {process.returncode}")
        return printed.strip()

    def ask(self, *arguments: str | Path) -> Any:
        """Run one command with --json and return the parsed answer."""
        return json.loads(self.run(*arguments, "--json"))

    def versions(self, adapter: str) -> dict[str, int]:
        """Return the live versions of `adapter` by their note; empty when there is no such adapter."""
        known = {entry["adapter"] for entry in self.ask("list")}
        if adapter not in known:
            return {}
        return {entry["note"]: entry["version"] for entry in self.ask("show", adapter)["versions"]}

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line as a list."""
        return [str(_COMMAND), "--root", str(self.root), *map(str, arguments)]


@dataclass
class DemoServer:
    """A running `wardrobe serve`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @classmethod
    def start(cls, product: Product, log: Path, *options: str) -> DemoServer:
        """Start a server on a free port; `options` are vLLM's. Its output goes to `log`."""
        port = _free_port()
        command = [*product.command("serve", "--port", str(port)), "--", *options]
        with log.open("wb") as file:
            # Its own session: Ctrl-C reaches us alone, and we stop it in good order.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # A demonstration is over before compiled code has paid for itself.
                env={"WARDROBE_ENGINE__COMPILE": "off", **os.environ},
                start_new_session=True,
            )
        return cls(process, port, log)

    @property
    def url(self) -> str:
        """Return the address."""
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self, tick: Callable[[float], None]) -> float:
        """Wait until it answers and return the seconds; `tick` is called with them meanwhile.

        Raises: WardrobeError: when it ends or takes too long, with the end of its log.
        """
        started = time.monotonic()
        while (seconds := time.monotonic() - started) < START_SECONDS:
            tick(seconds)
            if self.process.poll() is not None:
                raise self._failure(f"ended with exit code {self.process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK:
                    return seconds
            time.sleep(0.25)
        raise self._failure(f"is not ready after {START_SECONDS:.0f} s")

    def stop(self) -> int:
        """Ask it to drain and end, kill what is left, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def _failure(self, fact: str) -> WardrobeError:
        tail = "\n  ".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return WardrobeError("wardrobe serve", f"{fact}\n  {tail}", f"see {self.log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
