"""Python graders and programs in a child process that is held short.

Owns the child: an isolated interpreter (`-I -S`), an empty environment and folder of its own, limits on
CPU time, memory, file size and open files, a time after which its process group is killed, and, where the
kernel gives out user namespaces, no network, and no process that outlives it or who asked for it. What this
is NOT: a boundary against an attacker. The child runs as this user, may read every file that this user may
read, shares the kernel, and code that is judged runs in the interpreter that judges it, so it can lie about
its own score. Run suites and models that you distrust in a container or a machine of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from train.evaluation.formats.specs import SandboxLimits

if TYPE_CHECKING:
    from pydantic import JsonValue

# The limits are set before any foreign code is compiled; a hard limit is not raised again.
_CHILD = """
import json, resource, sys
task = json.load(sys.stdin)
for name, value in task["limits"].items():
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
space = {"__name__": "grader"}
exec(compile(task["source"], "<grader>", "exec"), space)
value = space["grade"](task["sample"], task["item"]) if task["call"] else 1.0
sys.stdout.flush()
print(file=sys.stderr)
print(task["nonce"] + json.dumps(float(value)), file=sys.stderr, flush=True)
"""
# More children than cores would run into their time limit for no fault of theirs.
_SLOTS = threading.BoundedSemaphore(os.cpu_count() or 1)
_OUTPUT_BYTES = 1_000_000
_FILE_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How a child ended: its value, or None with the `reason`."""

    value: float | None
    reason: str = ""


def call_grade(
    source: str, sample: dict[str, JsonValue], item: dict[str, JsonValue], limits: SandboxLimits
) -> ChildResult:
    """Run `source` and return what its `grade(sample, item)` returns."""
    return _run({"source": source, "sample": sample, "item": item, "call": True}, limits)


def run_program(source: str, limits: SandboxLimits) -> ChildResult:
    """Run `source`; the value is 1.0 when it comes to its end without an exception."""
    return _run({"source": source, "sample": {}, "item": {}, "call": False}, limits)


@cache
def network_cut() -> tuple[str, ...]:
    """Return the command that leaves a child no network and nobody who outlives it.

    It is empty where this machine does not allow it.
    """
    unshare, setpriv = shutil.which("unshare"), shutil.which("setpriv")
    if unshare is None or setpriv is None:
        return ()
    alone = (unshare, "--user", "--map-root-user", "--net", "--pid", "--kill-child")
    # Who asks may be killed outright: the kernel then ends the child, and with the first process of a
    # namespace all others of it, a session of their own or not.
    command = (setpriv, "--pdeathsig", "KILL", *alone)
    works = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if works else ()


def _run(task: dict[str, JsonValue], limits: SandboxLimits) -> ChildResult:
    nonce = secrets.token_hex(16)
    # What it writes is held by its limit on files; through a pipe it would fill this process.
    with _SLOTS, _folder() as folder, tempfile.TemporaryFile() as written:
        child = _start(Path(folder), written)
        try:
            text = json.dumps({**task, "nonce": nonce, "limits": _numbers(limits)})
            child.communicate(text.encode(), timeout=limits.timeout_seconds)
        except subprocess.TimeoutExpired:
            return ChildResult(None, f"not done within {limits.timeout_seconds:g} s")
        finally:
            _kill_group(child)
        if (size := written.seek(0, os.SEEK_END)) >= _FILE_BYTES:
            return ChildResult(None, f"wrote {_FILE_BYTES} bytes or more to standard error")
        written.seek(max(0, size - _OUTPUT_BYTES))
        return _read(written.read().decode(errors="replace"), nonce, child.returncode)


def _folder() -> tempfile.TemporaryDirectory[str]:
    # A child that left its group may still write where no namespace holds it.
    return tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True)


def _start(folder: Path, written: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*network_cut(), sys.executable, "-I", "-S", "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=written,
        cwd=folder,
        env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder)},
        start_new_session=True,
    )


def _numbers(limits: SandboxLimits) -> dict[str, JsonValue]:
    return {
        "RLIMIT_CPU": int(limits.timeout_seconds) + 1,
        "RLIMIT_AS": limits.memory_mb * 2**20,
        "RLIMIT_FSIZE": _FILE_BYTES,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    # The group may hold children that outlived the interpreter.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _read(text: str, nonce: str, code: int) -> ChildResult:
    lines = text.splitlines()
    for line in reversed(lines):
        if line.startswith(nonce):
            value = float(json.loads(line.removeprefix(nonce)))
            return ChildResult(value) if value == value else ChildResult(None, "returned NaN")  # noqa: PLR0124
    last = next((line for line in reversed(lines) if line.strip()), f"ended with code {code}")
    return ChildResult(None, last.strip()[:300])
