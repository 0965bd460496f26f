"""The engine's output: one numbered file per start under `<root>/logs/<replica>/`, and why it ended."""

from __future__ import annotations

import re
from pathlib import Path

KEEP = 20
"""Log files that are kept per replica."""

_NAME = re.compile(r"engine-(\d{6})\.log")
_PREFIX = re.compile(
    r"^(\([^)]*\)\s*)?((DEBUG|INFO|WARNING|ERROR|CRITICAL):?\s+)?(\d[\d:. -]+)?(\[[^\]]*\]\s*)?"
)
_FINAL = re.compile(r"^(?:[\w.]*(?:Error|Exception)\b|(?:[\w ]+: )?error):? ?.*\S")
_WRAPPER = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|See root cause above"
)
_NOISE = ("- leaked", "nanobind:", "warnings.warn(")
_TAIL_BYTES = 256 * 1024


def next_log(folder: Path) -> Path:
    """Return the path of the next start's log in `folder`, which is made; old ones beyond KEEP go."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(match[1]) for file in folder.iterdir() if (match := _NAME.fullmatch(file.name)))
    for number in numbers[: max(len(numbers) - KEEP + 1, 0)]:
        (folder / f"engine-{number:06d}.log").unlink(missing_ok=True)
    return folder / f"engine-{numbers[-1] + 1 if numbers else 1:06d}.log"


def reason(path: Path) -> str:
    """Return the line of the log that says why the process ended, or its last words.

    That is the first error of the deepest process: vLLM wraps it once per process that it passes.
    """
    lines = [_PREFIX.sub("", line).strip() for line in _tail(path)]
    finals = [line for line in lines if _FINAL.match(line)]
    causes = [line for line in finals if not _WRAPPER.search(line)] or finals
    if causes:
        return causes[0]
    words = [line for line in lines if line and not line.startswith(_NOISE)]
    return words[-1] if words else "it said nothing"


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
