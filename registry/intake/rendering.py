"""Whether two chat templates are the same: whether they render the same, not whether their bytes agree.

Editors add newlines, version control changes them, trainers mark what is learnt. Owns the comparison and the
bounds around it: the rendering happens in a process of its own (`render_worker`), which is ended after
`WAIT_SECONDS`. Invariant: no template makes this take longer, or ends anything but that process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

WAIT_SECONDS = 10.0
"""How long two templates may take together, the start of Python included."""

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


def _render(first: str, second: str, wait_seconds: float) -> list[list[str | None]] | None:
    """Return the hashes of all renderings of both, None where they did not come."""
    try:
        done = subprocess.run(
            # -P: a file of the working directory must not stand in for one of Python's.
            [sys.executable, "-P", str(_WORKER)],
            input=json.dumps({"templates": [first, second]}),
            capture_output=True,
            text=True,
            timeout=wait_seconds,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found: list[list[str | None]] = json.loads(done.stdout)
    return found
