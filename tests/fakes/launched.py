"""A supervisor over fake engines in a process of its own (`tests.fakes.launch`), as a test sees it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
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
        wait(lambda: sum(text in line for line in self.lines) >= times, f"{text!r} in {self.lines}")

    def groups(self) -> list[int]:
        """The process groups of all children so far."""
        return [int(line.split("process ")[1].split(",")[0]) for line in self.lines if "process " in line]

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
def launched(logs: Path, modes: str = "serve", **environment: str) -> Iterator[Launcher]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.launch", str(logs), modes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    launcher = Launcher(process, int(process.stdout.readline().split()[1]))
    readers = [
        threading.Thread(target=_read, args=(stream, launcher.lines), daemon=True)
        for stream in (process.stdout, process.stderr)
    ]
    for reader in readers:
        reader.start()
    try:
        yield launcher
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for reader in readers:
            reader.join(PATIENCE)
        process.stdout.close()
        process.stderr.close()
        for group in launcher.groups():
            wait(lambda group=group: not group_members(group), f"group {group} left behind")  # type: ignore[misc]


def _read(stream: IO[str], lines: list[str]) -> None:
    with contextlib.suppress(ValueError):  # a test has closed it
        for line in stream:
            lines.append(line.rstrip())  # noqa: PERF401 - a test reads them as they come
