"""A supervisor over fake engines in a process of its own (`tests.fakes.launch`), as a test sees it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from serve.process_group import group_members

PATIENCE = 20.0


@dataclass
class Launcher:
    """A supervisor in a process of its own; `lines` are those of its standard output and error."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, text: str, times: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        while sum(text in line for line in self.lines) < times:
            assert time.monotonic() < end, f"never said: {text!r} in {self.lines}"
            time.sleep(0.02)

    def groups(self) -> list[int]:
        """The process groups of all children so far."""
        return [int(line.split("process ")[1].split(",")[0]) for line in self.lines if ", process " in line]

    def get(self, path: str, seconds: float = PATIENCE) -> httpx.Response:
        return httpx.get(self.url + path, timeout=seconds)

    def status(self, path: str) -> int:
        """The status of an answer, 0 when there is none within a second."""
        try:
            return self.get(path, 1.0).status_code
        except httpx.TransportError:
            return 0


def wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def launched(
    logs: Path,
    modes: str = "serve",
    *,
    closed_stdout: bool = False,
    unread_stdout: bool = False,
    closed: str = "",
    **environment: str,
) -> Iterator[Launcher]:
    """Run a supervisor until the block ends; then nothing of it may be left.

    Its standard output loses its reader (`closed_stdout`), has one that does not read (`unread_stdout`), or
    it begins without the descriptors `closed`.
    """
    command = [sys.executable, "-m", "tests.fakes.launch", str(logs), modes]
    with tempfile.TemporaryDirectory() as folder:
        port = Path(folder) / "port"
        process = subprocess.Popen(
            _without(closed, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PORT_FILE": str(port)},
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        if closed_stdout:
            process.stdout.close()
        if unread_stdout:
            _fill(process.stdout)
        wait(lambda: port.exists() and port.read_text() != "", "its port")
        launcher = Launcher(process, int(port.read_text()))
    streams = [process.stderr] if closed_stdout or unread_stdout else [process.stdout, process.stderr]
    readers = [
        threading.Thread(target=_read, args=(stream, launcher.lines), daemon=True) for stream in streams
    ]
    for reader in readers:
        reader.start()
    try:
        yield launcher
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        for reader in readers:
            reader.join(PATIENCE)
        process.stderr.close()
        for group in launcher.groups():
            wait(lambda group=group: not group_members(group), f"group {group} left behind")  # type: ignore[misc]


def _without(descriptors: str, command: list[str]) -> list[str]:
    """Return the command that begins without `descriptors`, as a shell's `>&-` does."""
    if not descriptors:
        return command
    closing = " ".join(f"{number}>&-" for number in descriptors)
    return ["sh", "-c", f'exec "$@" {closing}', "sh", *command]


def _fill(stream: IO[str]) -> None:
    """Leave no room in the pipe behind `stream`."""
    with Path(f"/proc/self/fd/{stream.fileno()}").open("wb", buffering=0) as writer:
        os.set_blocking(writer.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while writer.write(b"x" * 4096):
                pass


def _read(stream: IO[str], lines: list[str]) -> None:
    with contextlib.suppress(ValueError):  # a test has closed it
        for line in stream:
            lines.append(line.rstrip())  # noqa: PERF401 - a test reads them as they come
