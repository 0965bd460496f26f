"""Python graders and programs in a child process that is held short.

Owns the child: an isolated interpreter (`-I -S`), an empty environment and folder of its own, limits on
CPU time, memory, file size and open files, no network where the kernel gives out user
namespaces, and a time after which the whole process group is killed. What this is NOT: a boundary against
an attacker. The child runs as this user, may read every file that this user may read, shares the kernel,
and code that is judged runs in the interpreter that judges it, so it can lie about its own score. Run
suites and models that you distrust in a container or a machine of their own.
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
from typing import TYPE_CHECKING

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
    """Return the command that takes the network away, empty where this machine does not allow it."""
    tool = shutil.which("unshare")
    if tool is None:
        return ()
    command = (tool, "--user", "--map-root-user", "--net")
    works = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if works else ()


def _run(task: dict[str, JsonValue], limits: SandboxLimits) -> ChildResult:
    nonce = secrets.token_hex(16)
    with _SLOTS, tempfile.TemporaryDirectory(prefix="grader-") as folder:
        child = _start(Path(folder))
        try:
            text = json.dumps({**task, "nonce": nonce, "limits": _numbers(limits)})
            _, err = child.communicate(text.encode(), timeout=limits.timeout_seconds)
        except subprocess.TimeoutExpired:
            return ChildResult(None, f"not done within {limits.timeout_seconds:g} s")
        finally:
            _kill_group(child)
    return _read(err[-_OUTPUT_BYTES:].decode(errors="replace"), nonce, child.returncode)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*network_cut(), sys.executable, "-I", "-S", "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
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
    for pipe in (child.stdin, child.stderr):
        if pipe is not None:
            pipe.close()


def _read(text: str, nonce: str, code: int) -> ChildResult:
    lines = text.splitlines()
    for line in reversed(lines):
        if line.startswith(nonce):
            value = float(json.loads(line.removeprefix(nonce)))
            return ChildResult(value) if value == value else ChildResult(None, "returned NaN")  # noqa: PLR0124
    last = next((line for line in reversed(lines) if line.strip()), f"ended with code {code}")
    return ChildResult(None, last.strip()[:300])
