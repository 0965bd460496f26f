"""Whether two chat templates are the same: whether they render the same, not whether their bytes agree.

And whether a template ends at all, before it is rendered in a process that matters.

Editors add newlines, version control changes them, trainers mark what is learnt. Owns the comparison and the
bounds around it: the rendering happens in a process of its own (`render_worker`), which is ended after
`WAIT_SECONDS`. Invariant: no template makes this take longer, or ends anything but that process.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from registry.validation.intake.render_worker import CPU_SECONDS, MEMORY_BYTES, OUT_OF_MEMORY

WAIT_SECONDS = 10.0
"""How long two templates may take together, the start of Python included."""
RUNAWAY_SECONDS = 60.0
"""When a template is given up that has not used up its processor time: so long only on a busy machine."""
_OUT_OF_TIME = {-signal.SIGXCPU, -signal.SIGKILL}

_WORKER = Path(__file__).with_name("render_worker.py")
_NEWLINE = re.compile(r"\r\n|\r|\n")


def same_template(first: str, second: str, *, wait_seconds: float = WAIT_SECONDS) -> bool:
    """Return whether the templates render every conversation of the set alike.

    Where one of them cannot be rendered, or not in time, their text decides: but for the kind of newlines
    and for spaces at the end it must be the same.
    """
    if _as_read(first) == _as_read(second):
        return True
    found = _render(first, second, wait_seconds)
    if found is None or any(all(one is None for one in renderings) for renderings in found):
        return _as_read(first).rstrip() == _as_read(second).rstrip()
    return found[0] == found[1]


def _as_read(template: str) -> str:
    """Return the text as Jinja takes it: newlines made alike, the last one dropped."""
    return _NEWLINE.sub("\n", template).removesuffix("\n")


def runs_away(templates: Sequence[str], *, wait_seconds: float = RUNAWAY_SECONDS) -> str | None:
    """Return how one of `templates` takes more than short conversations may, None where none does.

    What a template refuses is no matter here. Where no process can be started, nothing is said of them.
    """
    try:
        done = _start(templates, wait_seconds)
    except subprocess.TimeoutExpired:
        return f"does not end in {wait_seconds:g} s"
    except OSError:
        return None
    if done.returncode in _OUT_OF_TIME:
        return f"does not end in {CPU_SECONDS} s"
    return f"needs more than {MEMORY_BYTES >> 20} MiB" if done.returncode == OUT_OF_MEMORY else None


def _render(first: str, second: str, wait_seconds: float) -> list[list[str | None]] | None:
    """Return the hashes of all renderings of both, None where they did not come."""
    try:
        done = _start((first, second), wait_seconds)
        done.check_returncode()
    except (OSError, subprocess.SubprocessError):
        return None
    found: list[list[str | None]] = json.loads(done.stdout)
    return found


def _start(templates: Sequence[str], wait_seconds: float) -> subprocess.CompletedProcess[str]:
    """Render in a process of its own.

    Raises: OSError, subprocess.TimeoutExpired.
    """
    return subprocess.run(
        # -P: a file of the working directory must not stand in for one of Python's.
        [sys.executable, "-P", str(_WORKER)],
        input=json.dumps({"templates": list(templates)}),
        capture_output=True,
        text=True,
        timeout=wait_seconds,
        check=False,
    )
