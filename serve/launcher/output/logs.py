"""Why an engine ended, by its last words, and the numbered files that keep them: one per start.

Invariant: the files of one replica never take more than `KEEP_BYTES` beside the one that is written.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

KEEP = 20
"""Starts whose log is kept per replica."""

PART_BYTES = 32 * 1024**2
"""A log that grows beyond it goes on in a new part; the last two parts are kept."""

KEEP_BYTES = 256 * 1024**2
"""All logs of one replica together; the oldest go first."""

_NAME = re.compile(r"engine-(\d{6})\.log(\.1)?")
_PREFIX = re.compile(
    r"^(\([^)]*\)\s*)?((DEBUG|INFO|WARNING|ERROR|CRITICAL):?\s+)?(\d[\d:. -]+)?(\[[^\]]*\]\s*)?"
)
_FINAL = re.compile(r"^(?:[\w.]*(?:Error|Exception)\b|(?:[\w ]+: )?error):? ?.*\S")
_WRAPPER = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|See root cause above"
)
_NOISE = ("- leaked", "nanobind:", "warnings.warn(")


def next_log(folder: Path) -> Path:
    """Return the path of the next start's log in `folder`, which is made; old ones beyond the limits go.

    Raises: OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts: dict[int, list[Path]] = {}
    for file in folder.iterdir():
        if match := _NAME.fullmatch(file.name):
            starts.setdefault(int(match[1]), []).append(file)
    newest = sorted(starts, reverse=True)
    size = 0
    for place, number in enumerate(newest):
        size += sum(_size(file) for file in starts[number])
        if place >= KEEP - 1 or size > KEEP_BYTES:
            for file in starts[number]:
                with contextlib.suppress(OSError):  # a root that can only be read keeps them
                    file.unlink()
    return folder / f"engine-{newest[0] + 1 if newest else 1:06d}.log"


def earlier_part(path: Path) -> Path:
    """Return where the part of the log `path` before the present one is kept."""
    return path.with_name(f"{path.name}.1")


def reason(words: str) -> str:
    """Return the line of a log's end that says why the process ended, or its last words.

    That is the first error of the deepest process: vLLM wraps it once per process that it passes.
    """
    lines = [_PREFIX.sub("", line).strip() for line in words.splitlines()]
    finals = [line for line in lines if _FINAL.match(line)]
    causes = [line for line in finals if not _WRAPPER.search(line)] or finals
    if causes:
        return causes[0]
    said = [line for line in lines if line and not line.startswith(_NOISE)]
    return said[-1] if said else "it said nothing"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
